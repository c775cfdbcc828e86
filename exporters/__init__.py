"""Exports of a checkpoint for phones, browsers and edge CPUs, each checked against it before it is written."""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np

from edge_distil.checkpoints import (
    check_output,
    describe_input,
    new_folder,
    read_json,
    read_manifest,
    write_manifest,
)
from edge_distil.errors import UserError
from edge_distil.models import resolve, task_of
from edge_distil.report.precisions import plot_family
from edge_distil.runtimes import Runtime
from edge_distil.runtimes.onnx import GRAPHS
from edge_distil.runtimes.torch import TorchRuntime
from edge_distil.tasks import Task
from edge_distil.tasks.classification import encode
from edge_distil.tasks.decoding import DECODING, Decoding
from edge_distil.tasks.squad import DOC_STRIDE, MAX_LENGTH, Question, windows
from edge_distil.tasks.texts import Example
from edge_distil.tokenization import load_tokenizer, save_tokenizer, special_tokens
from exporters import gate
from exporters.calibration import Method, calibrate
from exporters.card import FAMILY_PLOT, model_card
from exporters.coreml import plan as coreml_plan
from exporters.encoder import PlainEncoder
from exporters.fitting import fit
from exporters.onnx import Target
from exporters.onnx.plan import InputType, Plan, Precision
from exporters.parts import calibrated_parts

Format = Literal["onnx", "coreml", "openvino"]

_SAMPLES = 64  # texts that activations are calibrated on, and that tell which parts suffer from few bits
_TIMED, _ROUNDS = 8, 4  # texts and rounds of a latency


def _check_length(max_length: int, model: PlainEncoder) -> None:
    longest = model.config.max_position_embeddings
    if not coreml_plan.SHORTEST <= max_length <= longest:
        raise UserError(
            f"a max_length of {max_length} is not possible, the model has {longest} positions",
            f"give --max-length a number from {coreml_plan.SHORTEST} to {longest}",
        )


def _bytes(path: Path) -> int:
    """Size of a file, with the weights of an OpenVINO graph, which lie beside it; or of all files of a package."""
    if path.suffix == ".xml":
        return path.stat().st_size + path.with_suffix(".bin").stat().st_size
    return path.stat().st_size if path.is_file() else sum(_bytes(entry) for entry in path.iterdir())


@dataclass(frozen=True, slots=True)
class OnnxOptions:
    """What an ONNX export is made of. See `exporters.onnx.plan_for` for what precisions and targets mean.

    "dynamic" int8 measures the range of activations as it runs; "static" has it from `calibration` questions, by one of
    the methods of `exporters.calibration`. `family` has the precisions timed and compared, in a table and a plot.
    `input_type` is that of the token ids. `with_tokenizer` writes beside every graph one that takes text
    (`exporters.onnx.tokenizer`).
    """

    precisions: Sequence[Precision] = ("fp32", "int8")
    target: Target = "generic"
    quantization: Literal["dynamic", "static"] = "dynamic"
    calibration_method: Method = "minmax"
    input_type: InputType = "int64"
    family: bool = False
    with_tokenizer: bool = False


@dataclass(frozen=True, slots=True)
class CoreMLOptions:
    """What a Core ML export is made of: see `exporters.coreml.plan.CoreMLPlan`.

    `lengths` are those of an input; None means the `max_length` of the export alone. w8a8 is calibrated on the
    `calibration` questions.
    """

    precisions: Sequence[coreml_plan.Precision] = ("fp16",)
    layout: coreml_plan.Layout = "plain"
    ios: coreml_plan.Ios = 16
    lengths: Sequence[int] | None = None

    def plan(self, precision: coreml_plan.Precision, max_length: int) -> coreml_plan.CoreMLPlan:
        """The plan of one package. Raises `UserError` for what the deployment target does not have."""
        return coreml_plan.CoreMLPlan(
            precision, layout=self.layout, ios=self.ios, lengths=self.lengths or (max_length,)
        )


def _write_onnx(
    plain: PlainEncoder,
    staging: Path,
    court: gate.Judge,
    options: OnnxOptions,
    samples: Sequence[np.ndarray],
    check_text: Callable[[Path, Runtime], dict[str, Any]] | None,
    progress: Callable[[str], None],
) -> tuple[dict[str, str], dict[str, Any]]:
    """Write the graphs that the judge lets through. Returns the path of each precision, and what was measured of it.

    `check_text` writes the graph that takes text beside one that is there, and checks it.
    """
    from edge_distil.runtimes.onnx import OnnxRuntime
    from exporters.onnx import plan_for, write_graph
    from exporters.onnx.emulation import alone
    from exporters.onnx.plan import HIGHER

    paths: dict[str, str] = {}
    measured: dict[str, Any] = dict(court.about)
    for precision in options.precisions:
        progress(f"writing {precision}")
        plan = plan_for(precision, options.target, options.input_type)
        if options.quantization == "static" and precision in ("int8", "int4"):
            progress("calibrating")
            found = calibrate(plain, calibrated_parts(plain), samples, options.calibration_method)
            plan = replace(plan, activations=found)

        def measure(plan: Plan) -> dict[str, float]:
            write_graph(plain, staging, plan)
            return court.measure(OnnxRuntime(staging, precision=plan.precision))

        fitted = fit(plain, plan, HIGHER.get(precision), court, measure, alone, samples, progress)
        paths[precision] = GRAPHS[precision]
        measured[precision] = {
            "megabytes": round(_bytes(staging / paths[precision]) / 1e6, 3),
            **fitted.figures,
            **({"search": fitted.search} if fitted.search else {}),
        }
        if check_text is not None:
            progress(f"putting the tokeniser into {precision}")
            runtime = OnnxRuntime(staging, precision=precision)
            measured[precision]["with_tokenizer"] = check_text(staging / paths[precision], runtime)
    if options.family:
        progress("measuring latency")
        runtimes = {precision: OnnxRuntime(staging, precision=precision) for precision in paths}
        for name, milliseconds in _latency(runtimes, samples).items():
            measured[name]["median_ms"] = milliseconds
        plot_family({name: measured[name] for name in paths}, staging / FAMILY_PLOT)
    return paths, measured


def _write_text_graph(
    path: Path, runtime: Runtime, questions: Sequence[Question], task: Task, max_length: int
) -> dict[str, Any]:
    """Write the graph that takes text beside the one in `path`, which `runtime` runs. Returns what its check found."""
    import onnx

    from exporters.onnx.tokenizer import TextGraph, check, text_graph_path, with_tokenizer

    text_path = path.parent / text_graph_path(path.name)
    onnx.save(with_tokenizer(onnx.load(path), runtime.folder, max_length=max_length, task=task), text_path)
    return {
        "path": text_path.relative_to(runtime.folder).as_posix(),
        "bytes": text_path.stat().st_size,
        **check(TextGraph(text_path), runtime, questions, task=task, max_length=max_length),
    }


def _latency(runtimes: Mapping[str, Runtime], samples: Sequence[np.ndarray]) -> dict[str, float]:
    """Median milliseconds of a call with one text, on all cores, the precisions taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in runtimes}
    for _ in range(_ROUNDS):
        for ids_1L in samples[:_TIMED]:
            for name, runtime in runtimes.items():
                begun = time.perf_counter()
                runtime(ids_1L, np.ones_like(ids_1L))
                seconds[name].append(time.perf_counter() - begun)
    # The first round warms up.
    return {name: round(1000 * median(times[len(times) // _ROUNDS :]), 2) for name, times in seconds.items()}


def samples_of(task: Task, folder: Path, questions: Sequence[Question], max_length: int) -> list[np.ndarray]:
    """Token ids [1, L] of the first questions with their contexts, or of texts: what the model is used on."""
    tokenizer = load_tokenizer(folder)
    some = questions[:_SAMPLES]
    if task == "question-answering":
        ids = [window.input_ids for window in windows(some, tokenizer, max_length=max_length)]
    else:
        texts = dict.fromkeys(question.context for question in some)
        ids = encode([Example(str(number), text, None, "") for number, text in enumerate(texts)], tokenizer, max_length)
    return [np.array([each]) for each in ids[:_SAMPLES]]


def _write_openvino(
    plain: PlainEncoder,
    staging: Path,
    court: gate.Judge,
    samples: Sequence[np.ndarray],
    progress: Callable[[str], None],
) -> tuple[dict[str, str], dict[str, Any]]:
    """Write fp16 and int8. Returns as `_write_onnx` does."""
    from edge_distil.runtimes.openvino import OpenVinoRuntime
    from exporters.openvino import convert

    calibration = [(ids_1L, np.ones_like(ids_1L)) for ids_1L in samples]
    paths: dict[str, str] = {}
    for precision in ("fp16", "int8"):
        progress(f"writing {precision}")
        paths[precision] = convert(plain, staging, precision=precision, calibration=calibration)
    runtimes = {precision: OpenVinoRuntime(staging, precision=precision) for precision in paths}
    return paths, gate.check_outputs(court, runtimes)


def _coreml_metadata(
    plain: PlainEncoder, folder: Path, lengths: str, longest: int, task: Task, source: Mapping[str, str]
) -> dict[str, str]:
    """What an app has to know to make inputs of texts and texts of outputs, as the strings that Core ML stores."""
    tokenizer = load_tokenizer(folder)
    special = special_tokens(tokenizer)
    cased, accented = (tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text for text in "AÉ")
    metadata = {
        "task": task,
        "max_length": str(longest),
        "lengths": lengths,
        "vocab_size": str(plain.config.vocab_size),
        "do_lower_case": str(cased == "a").lower(),
        "strip_accents": str(accented in "eE").lower(),
        **{f"{name}_id": str(getattr(special, name)) for name in ("cls", "sep", "pad", "unk")},
        "source": Path(source["path"]).name,
        "source_sha256": source["sha256"],
    }
    if task == "question-answering":
        metadata["doc_stride"] = str(DOC_STRIDE)
    if task == "text-classification":
        labels = read_json(folder / "config.json").get("id2label", {})
        metadata["labels"] = json.dumps([labels[number] for number in sorted(labels, key=int)], ensure_ascii=False)
    return metadata


def _write_coreml(
    plain: PlainEncoder,
    staging: Path,
    court: gate.Judge,
    options: CoreMLOptions,
    max_length: int,
    task: Task,
    samples: Sequence[np.ndarray],
    name: str,
    source: Mapping[str, str],
    progress: Callable[[str], None],
) -> tuple[dict[str, str], dict[str, Any]]:
    """Write the packages that the judge lets through, as they lie on disk. Returns as `_write_onnx` does."""
    from edge_distil.runtimes.mil import PACKAGES, MilRuntime
    from exporters.coreml import HIGHER, About, alone, convert, lengths_text, module_of, traced, unpacked, write_package

    plans = [options.plan(precision, max_length) for precision in options.precisions]
    longest = plans[0].longest
    metadata = _coreml_metadata(plain, staging, lengths_text(plans[0].lengths), longest, task, source)
    module = traced(module_of(plain, plans[0]), longest)
    paths: dict[str, str] = {}
    measured: dict[str, Any] = dict(court.about)
    programs: dict[bool, Any] = {}  # in fp32 or not
    for plan in plans:
        precision = plan.precision
        if precision == "w8a8":
            progress("calibrating")
            plan = replace(plan, activations=calibrate(plain, calibrated_parts(plain), samples))
        progress(f"writing {precision}")
        in_fp32 = precision == "fp32"
        if in_fp32 not in programs:
            programs[in_fp32] = convert(module, plain, plan)
        about = About(f"{name}, {task}, {precision}.", {**metadata, "precision": precision, "layout": plan.layout})
        path = staging / PACKAGES[precision]
        holds: dict[str, Any] = {}

        def measure(
            plan: coreml_plan.CoreMLPlan, path: Path = path, about: About = about, holds: dict[str, Any] = holds
        ) -> dict[str, float]:
            shutil.rmtree(path, ignore_errors=True)
            written = write_package(plain, path, plan, about, programs[plan.precision == "fp32"])
            runtime = MilRuntime(staging, precision=plan.precision)
            holds |= gate.check_package(runtime.program, plain, plan, written)
            progress(f"running {plan.precision}")
            exact = MilRuntime(staging, precision=plan.precision, rounding="fp32")
            holds["same_weights_decibels"] = gate.check_computes(exact, unpacked(plain, plan), samples)
            return court.measure(gate.WatchedPackage(runtime))

        fitted = fit(plain, plan, HIGHER.get(precision), court, measure, alone, samples, progress)
        paths[precision] = PACKAGES[precision]
        measured[precision] = {
            "megabytes": round(_bytes(path) / 1e6, 3),
            **holds,
            **fitted.figures,
            **({"search": fitted.search} if fitted.search else {}),
        }
    if len(plans) > 1:
        plot_family({name: measured[name] for name in paths}, staging / FAMILY_PLOT)
    return paths, measured


def export(
    model: Path,
    output: Path,
    *,
    format: Format,
    questions: Sequence[Question],
    max_length: int = MAX_LENGTH,
    max_drop: float = 1.0,
    onnx: OnnxOptions | None = None,
    coreml: CoreMLOptions | None = None,
    calibration: Sequence[Question] | None = None,
    labelled: gate.LabelledTexts | None = None,
    task: Task | None = None,
    config: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> dict[str, Any]:
    """Export the checkpoint in `model` to the folder `output`, which appears only if the gate lets it through.

    `questions` are what the gate runs, all of them: a few dozen take seconds, and tell the loss of F1 to one answer's
    worth. `max_length` is the fixed length of a Core ML package, unless `coreml` says otherwise, and the longest window
    that the gate gives to an ONNX graph. `max_drop` is how many points of F1, or of the task's score on `labelled`,
    fewer bits may lose: where they lose more, the parts that suffer most are kept in a higher precision. `onnx` and
    `coreml` say what is written.
    `calibration` questions, by default those of the gate, are what activations are calibrated on. `task` is found out
    where None. `config` goes into the manifest, `progress` is told each step as it starts.

    Returns `artifact`, the output folder; `format`; `files`, each with its `path` in it, `bytes` and `precision`;
    `gate`, what was measured; and `seconds`. Raises `UserError` for an output that holds something else, a model
    without the task's head or without a conversion, a length that it has no positions for, and when a check of
    `exporters.gate` fails.
    """
    started = time.perf_counter()
    check_output(output, overwrite)
    if not questions:
        raise UserError("there is no question to check the export with", "give a SQuAD file with at least one question")
    options, packages = onnx or OnnxOptions(), coreml or CoreMLOptions()
    if format == "coreml":
        max_length = max(packages.lengths or [max_length])
        for precision in packages.precisions:
            packages.plan(precision, max_length)  # before any work
    progress("reading the checkpoint")
    folder = resolve(model)
    manifest = read_manifest(folder)
    task = task or (manifest["task"] if manifest else task_of(folder))
    if options.with_tokenizer:
        from exporters.onnx.tokenizer import check_possible

        check_possible(folder, task)
    reference = TorchRuntime.load(folder, task=task)
    tokenizer = load_tokenizer(folder)
    plain = PlainEncoder.from_library(reference.model, special_tokens(tokenizer).sep)
    if format == "coreml" and packages.lengths:
        coreml_plan.check_lengths(packages.lengths, plain.config.max_position_embeddings)
    _check_length(max_length, plain)
    source = describe_input(folder)
    check_text = partial(_write_text_graph, questions=questions, task=task, max_length=max_length)

    with new_folder(output, overwrite=overwrite) as staging:
        shutil.copyfile(folder / "config.json", staging / "config.json")
        save_tokenizer(folder, staging, max_length)
        if (folder / DECODING).is_file():
            Decoding.load(folder).save(staging)
        progress("asking the checkpoint")
        court = gate.judge(
            reference,
            questions,
            task=task,
            max_length=max_length,
            max_drop=max_drop,
            lengths=tuple(packages.lengths or [max_length]) if format == "coreml" else None,
            labelled=labelled,
        )
        samples = samples_of(task, folder, calibration or questions, max_length)
        if format == "onnx":
            paths, measured = _write_onnx(
                plain, staging, court, options, samples, check_text if options.with_tokenizer else None, progress
            )
        elif format == "openvino":
            paths, measured = _write_openvino(plain, staging, court, samples, progress)
        else:
            progress("converting to Core ML")
            paths, measured = _write_coreml(
                plain, staging, court, packages, max_length, task, samples, folder.name, source, progress
            )
        files = [
            {"path": path, "bytes": _bytes(staging / path), "precision": precision} for precision, path in paths.items()
        ]
        texts = {precision: measured[precision].get("with_tokenizer") for precision in paths if precision in measured}
        files += [
            {"path": found["path"], "bytes": found["bytes"], "precision": precision, "input": "text"}
            for precision, found in texts.items()
            if found
        ]
        card = model_card(
            folder.name,
            format,
            paths=paths,
            task=task,
            outputs=plain.output_names,
            max_length=max_length,
            input_type=options.input_type,
            measured=measured,
            ios=packages.ios,
            lengths=coreml_plan.lengths_text(packages.lengths or (max_length,)),
            has_plot=(staging / FAMILY_PLOT).is_file(),
        )
        (staging / "README.md").write_text(card, encoding="utf-8")
        write_manifest(
            staging,
            kind=format,
            task=task,
            command="edge-distil export",
            config=config or {},
            inputs={"model": source},
            measured=measured,
        )
    return {
        "artifact": str(output),
        "format": format,
        "files": files,
        "gate": measured,
        "seconds": round(time.perf_counter() - started, 3),
    }
