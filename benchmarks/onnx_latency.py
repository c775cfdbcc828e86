"""Latency of our ONNX and OpenVINO artifacts against what people use, and F1 where a trained checkpoint is given.

    python benchmarks/onnx_latency.py [--shapes distilbert bert-base] [--tokens 128 384] [--rounds 3]
        [--optimum-python VENV/bin/python] [--model CHECKPOINT --eval dev-v1.1.json --questions 500]

Batch 1, two threads. Contenders: torch in fp32 and bf16; the plain exporter (`torch.onnx.export(dynamo=True)` of the
library's model) and `quantize_dynamic` of it with its defaults; optimum's export and its `--avx512_vnni` artifact, by
a Python of its own that has optimum-onnx (tests/elsewhere/requirements.txt); OpenVINO with NNCF's defaults; ours.
Every contender runs in a process of its own, because the threads of one runtime take the cores from another's; rounds
take turns. Writes `benchmarks/results/onnx-latency.json` and the tables of docs/onnx.md.
"""

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import result_files

from edge_distil.report.tables import markdown

THREADS = 2
WARM_UP, CALLS = 3, 12
# Contender: where its file lies in the work folder, if it has one.
CONTENDERS = {
    "torch fp32": None,
    "torch bf16": None,
    "plain export": "plain/model.onnx",
    "quantize_dynamic": "plain/model_quantized.onnx",
    "optimum": "optimum/model.onnx",
    "optimum avx512_vnni": "optimum-int8/model_quantized.onnx",
    "NNCF's default, OpenVINO": "nncf/model.xml",
    "ours fp32": "ours/onnx/model.onnx",
    "ours int8": "ours/onnx/model_quantized.onnx",
    "ours int4": "ours/onnx/model_q4.onnx",
    "ours int8, OpenVINO": "ours/openvino/openvino_model_qint8_quantized.xml",
}
Call = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]


def make(source: Path, work: Path, optimum_python: str | None, questions: list[Any]) -> None:
    """Make every artifact of the checkpoint in `source` below `work`; what cannot be made here is left out."""
    import onnx
    import torch
    from onnxruntime.quantization import quantize_dynamic
    from torch.export import Dim
    from transformers import AutoModelForQuestionAnswering

    from edge_distil.tokenization import load_tokenizer, special_tokens
    from exporters import samples_of
    from exporters.encoder import PlainEncoder
    from exporters.onnx import plan_for, write_graph

    model = AutoModelForQuestionAnswering.from_pretrained(source).eval()
    ids_BL = torch.randint(5, 1000, (2, 32))
    names = ("input_ids", "attention_mask")
    free = {0: Dim("batch", min=1), 1: Dim("length", min=2, max=model.config.max_position_embeddings)}
    (work / "plain").mkdir()
    torch.onnx.export(
        model,
        kwargs={"input_ids": ids_BL, "attention_mask": torch.ones_like(ids_BL)},
        f=work / "plain/model.onnx",
        input_names=names,
        output_names=("start_logits", "end_logits"),
        dynamic_shapes=dict.fromkeys(names, free),
        dynamo=True,
        external_data=False,
    )
    # Its shape annotations stand in the way of the quantiser's own inference.
    plain = onnx.load(work / "plain/model.onnx")
    del plain.graph.value_info[:]
    onnx.save(plain, work / "plain/model.onnx")
    quantize_dynamic(work / "plain/model.onnx", work / "plain/model_quantized.onnx")
    if optimum_python:
        run = [optimum_python, "-m", "optimum.commands.optimum_cli"]
        export = ["export", "onnx", "--task", "question-answering", "--model", str(source), str(work / "optimum")]
        subprocess.run([*run, *export], check=True, capture_output=True)
        quantize = ["--onnx_model", str(work / "optimum"), "--avx512_vnni", "-o", str(work / "optimum-int8")]
        subprocess.run([*run, "onnxruntime", "quantize", *quantize], check=True, capture_output=True)
    (work / "ours").mkdir()
    encoder = PlainEncoder.from_library(model, special_tokens(load_tokenizer(source)).sep)
    for precision in ("fp32", "int8", "int4"):
        write_graph(encoder, work / "ours", plan_for(precision, "x86"))
    if importlib.util.find_spec("nncf"):
        from edge_distil.runtimes.openvino import import_openvino
        from exporters.openvino import convert

        openvino, nncf = import_openvino(), import_openvino("nncf")

        samples = samples_of("question-answering", source, questions, 384)
        calibration = [(ids_1L, np.ones_like(ids_1L)) for ids_1L in samples]
        convert(encoder, work / "ours", precision="int8", calibration=calibration)
        inputs = [dict(zip(names, pair, strict=True)) for pair in calibration]
        whole = openvino.convert_model(str(work / "plain/model.onnx"))
        quantized = nncf.quantize(whole, nncf.Dataset(inputs))
        (work / "nncf").mkdir()
        openvino.save_model(quantized, work / "nncf/model.xml")


def opened(contender: str, source: Path, work: Path) -> Call:
    """A contender, ready to run on two threads, as it is used by default."""
    file = work / (CONTENDERS[contender] or "")
    if contender.startswith("torch"):
        from edge_distil.runtimes.torch import TorchRuntime

        return TorchRuntime.load(
            source, task="question-answering", bf16=contender.endswith("bf16"), threads=THREADS
        ).__call__
    if file.suffix == ".xml":
        from edge_distil.runtimes.openvino import import_openvino

        core = import_openvino().Core()
        compiled = core.compile_model(
            file, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": THREADS, "NUM_STREAMS": 1}
        )

        def run_openvino(ids_BL: np.ndarray, mask_BL: np.ndarray) -> dict[str, np.ndarray]:
            found = compiled({"input_ids": ids_BL, "attention_mask": mask_BL})
            return {name: found[index] for index, name in enumerate(("start_logits", "end_logits"))}

        return run_openvino
    import onnxruntime

    from edge_distil.tokenization import load_tokenizer, special_tokens

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    with_segments = len(session.get_inputs()) == 3
    separator = special_tokens(load_tokenizer(source)).sep

    def run_onnx(ids_BL: np.ndarray, mask_BL: np.ndarray) -> dict[str, np.ndarray]:
        inputs = {"input_ids": ids_BL, "attention_mask": mask_BL}
        if with_segments:
            is_separator_BL = ids_BL == separator
            inputs["token_type_ids"] = (is_separator_BL.cumsum(axis=1) - is_separator_BL > 0).astype(np.int64)
        return dict(zip(names, session.run(None, inputs), strict=True))

    return run_onnx


def measure(contender: str, source: Path, work: Path, lengths: list[int]) -> dict[str, list[float]]:
    """Milliseconds of single calls by length."""
    call = opened(contender, source, work)
    chance = np.random.default_rng(0)
    found: dict[str, list[float]] = {}
    for length in lengths:
        ids_1L = chance.integers(5, 1000, (1, length))
        mask_1L = np.ones_like(ids_1L)
        times = []
        for _ in range(WARM_UP + CALLS):
            begun = time.perf_counter()
            call(ids_1L, mask_1L)
            times.append(1000 * (time.perf_counter() - begun))
        found[str(length)] = times[WARM_UP:]
    return found


def score(contender: str, source: Path, work: Path, questions: list[Any]) -> dict[str, float]:
    """EM and F1 of a contender over questions, by our own answering around it."""
    from edge_distil.qa import QuestionAnswerer
    from edge_distil.tasks.evaluation import evaluate

    call = opened(contender, source, work)

    class Given:
        name, precision, folder = contender, "", source
        lengths, batch_size = None, 1
        outputs = ("start_logits", "end_logits")

        def __call__(self, ids_BL: np.ndarray, mask_BL: np.ndarray) -> dict[str, np.ndarray]:
            return call(ids_BL, mask_BL)

    found = evaluate(QuestionAnswerer(Given()), questions)
    return {name: found[name] for name in ("exact_match", "f1")}


def asked(path: Path | None, count: int) -> list[Any]:
    """Questions of a SQuAD file, or the starter's."""
    from edge_distil.starter import questions
    from edge_distil.tasks.squad import parse_squad, read_squad

    return (read_squad(path) if path else parse_squad(questions("test"), "starter set, test"))[:count]


def main() -> None:
    """Make the artifacts, measure all contenders in turn, write the result and the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", default=["distilbert", "bert-base"])
    parser.add_argument("--tokens", nargs="+", type=int, default=[128, 384])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--optimum-python")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of BERT's uncased tokeniser")
    parser.add_argument("--model", type=Path, help="question-answering checkpoint, for F1")
    parser.add_argument("--eval", type=Path, help="SQuAD file")
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        what, contender, source, work = given.one
        if what == "score":
            print(json.dumps(score(contender, Path(source), Path(work), asked(given.eval, given.questions))))
        else:
            print(json.dumps(measure(contender, Path(source), Path(work), given.tokens)))
        return
    rows: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    with TemporaryDirectory() as scratch:
        for name in [*given.shapes, *(["checkpoint"] if given.model else [])]:
            work = Path(scratch) / name
            work.mkdir()
            source = given.model if name == "checkpoint" else random_checkpoint(name, given.tokenizer, work / "source")
            make(source, work, given.optimum_python, asked(given.eval, 64))
            compared, calls = compare(name, source, work, given)
            rows, runs = [*rows, *compared], [*runs, *calls]
            shutil.rmtree(work)
            result = result_files.write(
                "onnx-latency",
                command=result_files.command_line(),
                configuration={"threads": THREADS, "rounds": given.rounds, "calls": CALLS, "warm_up": WARM_UP},
                seeds=[0],
                runs=runs,
                results={"rows": rows},
            )
            result_files.write_blocks(blocks(result))


def random_checkpoint(shape: str, tokenizer: Path, folder: Path) -> Path:
    """A model of a published shape with random weights, as a model folder."""
    from edge_distil.bench import random_model

    random_model(shape).save_pretrained(folder)  # type: ignore[arg-type]
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer / file, folder / file)
    return folder


def compare(
    name: str, source: Path, work: Path, given: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All contenders on one model: a row for each with its size, its times by length, and perhaps its scores.

    And the times of all its calls.
    """
    present = [one for one, file in CONTENDERS.items() if file is None or (work / file).is_file()]
    times: dict[str, dict[str, list[float]]] = {one: {str(length): [] for length in given.tokens} for one in present}

    def one(what: str, contender: str) -> Any:
        options = ["--tokens", *map(str, given.tokens), "--tokenizer", str(given.tokenizer)]
        if given.eval:
            options += ["--eval", str(given.eval), "--questions", str(given.questions)]
        command = [sys.executable, __file__, *options, "--one", what, contender, str(source), str(work)]
        environment = os.environ | {"OMP_NUM_THREADS": str(THREADS)}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        return json.loads(done.stdout.splitlines()[-1])

    for number in range(given.rounds):
        for contender in present:
            for length, found in one("measure", contender).items():
                times[contender][length] += found
            print(f"{name}, round {number + 1}: {contender}", file=sys.stderr)
    runs = [
        {"model": name, "contender": contender, "tokens": int(length), "times_ms": found}
        for contender, by_length in times.items()
        for length, found in by_length.items()
    ]
    rows = [
        {
            "model": name,
            "contender": contender,
            "bytes": file_bytes(work, contender, source),
            "median_ms": {length: statistics.median(found) for length, found in times[contender].items()},
            "p90_ms": {length: float(np.percentile(found, 90)) for length, found in times[contender].items()},
            "calls": given.rounds * CALLS,
            **(one("score", contender) if name == "checkpoint" else {}),
        }
        for contender in present
    ]
    return rows, runs


def file_bytes(work: Path, contender: str, source: Path) -> int:
    """Size of what is shipped: the file, and the weights beside it where they are apart."""
    file = work / CONTENDERS[contender] if CONTENDERS[contender] else source / "model.safetensors"
    weights = file.with_suffix(".bin")
    return file.stat().st_size + (weights.stat().st_size if weights.is_file() else 0)


def blocks(result: dict[str, Any]) -> result_files.Blocks:
    """One table for each model."""
    rows, made = result["results"]["rows"], {}
    for model in dict.fromkeys(row["model"] for row in rows):
        of_model = [row for row in rows if row["model"] == model]
        lengths = list(of_model[0]["median_ms"])
        scored = "f1" in of_model[0]
        header = ("", *(f"ms, {length} tokens" for length in lengths), "MB", *(["EM", "F1"] if scored else []))
        cells = [
            [
                row["contender"],
                *(f"{row['median_ms'][length]:.1f}" for length in lengths),
                f"{row['bytes'] / 1e6:.1f}",
                *([f"{row['exact_match']:.1f}", f"{row['f1']:.2f}"] if scored else []),
            ]
            for row in of_model
        ]
        made["docs/onnx.md", f"onnx-latency-{model}"] = markdown(header, cells)
    return made


def prose(result: dict[str, Any]) -> result_files.Prose:
    """What the text around the tables says of them."""
    rows = {(row["model"], row["contender"]): row for row in result["results"]["rows"]}

    def ratios(ours: str, other: str, model: str) -> str:
        """Our median over the other's, by length."""
        one, two = (rows[model, contender]["median_ms"] for contender in (ours, other))
        return " and ".join(f"{one[length] / two[length]:.2f}" for length in one)

    lost = rows["checkpoint", "torch fp32"]["f1"] - rows["checkpoint", "optimum avx512_vnni"]["f1"]
    optimum = [ratios("ours int8", "optimum avx512_vnni", model) for model in ("distilbert", "bert-base", "checkpoint")]
    plain = ", ".join(ratios("ours fp32", "plain export", model) for model in ("distilbert", "bert-base"))
    openvino = ", ".join(
        ratios("ours int8, OpenVINO", "NNCF's default, OpenVINO", model) for model in ("distilbert", "bert-base")
    )
    return {
        "docs/onnx.md": [
            f"our int8 took {optimum[0]} of the time at DistilBERT's shape (128 and 384 tokens), {optimum[1]} at "
            f"BERT-base's, {optimum[2]} at the checkpoint's",
            f"where optimum's lost {lost:.1f} points",
            f"Against the plain export our fp32 took {plain};",
            f"Against NNCF's default our OpenVINO int8 took {openvino}.",
        ]
    }


if __name__ == "__main__":
    main()
