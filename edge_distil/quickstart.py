"""The whole way on the starter set: teacher, student, second distillation, exports, proof, an answered question."""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edge_distil import bench, stages, starter
from edge_distil.checkpoints import check_output
from edge_distil.console import note, progress
from edge_distil.distillation.corpus_trainer import CorpusTraining
from edge_distil.distillation.trainer import LossWeights
from edge_distil.errors import UserError
from edge_distil.qa import QuestionAnswerer
from edge_distil.report.tables import megabytes
from edge_distil.runtimes import Runtime, open_runtime
from edge_distil.tasks.evaluation import evaluate
from edge_distil.tasks.finetuning import FineTuning
from edge_distil.unfinished import UnfinishedRun

DISTILLATION = CorpusTraining(max_steps=120, batch_size=16, learning_rate=5e-4, warmup=0.05, dropout=0.0)
# Two passes of the second distillation: F1 94.7 on the dev split, where the teacher has 98.1.
FINE_TUNING = FineTuning(epochs=2.0, batch_size=32, learning_rate=1e-3, warmup=0.05, dropout=0.0)
_LATENCY_QUESTIONS, _LATENCY_REPEATS, _LATENCY_WARMUP = 8, 5, 3
HEADERS = ("", "runtime", "precision", "parameters", "on disk", "F1", "EM", "ms", "ms with text")


def run(
    output: Path, *, export: Callable[..., dict[str, Any]], threads: int, seed: int, overwrite: bool
) -> dict[str, Any]:
    """Distil, fine-tune, export and measure in `output`, which gets the folders student, student-qa, onnx and coreml.

    `export` is `exporters.export`. Returns `output`; `rows`, one for each model and artifact with `name`, `runtime`,
    `precision`, `parameters`, `bytes`, `f1`, `exact_match`, `median_ms` (384 tokens, ids to logits) and
    `median_ms_with_text`, None where it cannot be run here; `question`, `passage`, `answer`, `gold`, the int8 graph's
    answer; and `seconds`. Raises `UserError` when `output` holds anything else, and when
    one of the folders exists and `overwrite` is off.
    """
    begun = time.monotonic()
    folders = {name: output / name for name in ("student", "student-qa", "onnx", "coreml")}
    for folder in folders.values():
        check_output(folder, overwrite)
    unfinished = UnfinishedRun(folders["student"])
    present = {path.name for path in output.iterdir()} if output.is_dir() else set()
    foreign = present - {*folders, unfinished.folder.name}
    if foreign:
        raise UserError(
            f"{output}: already holds {min(foreign)}, which edge-distil did not write", "give --output a new folder"
        )
    unfinished.end()  # two minutes of work: it begins anew
    teacher_qa = starter.teacher_folder("question-answering")

    note("1/6 distilling the starter teacher (6 layers) into a student (3 layers)")
    stages.train(
        folders["student"],
        teacher=None,
        corpus=[],
        block_length=256,
        weights=LossWeights(),
        training=replace(DISTILLATION, seed=seed),
        config={"block_length": 256, **asdict(DISTILLATION), "seed": seed},
        overwrite=overwrite,
    )
    note("2/6 teaching the student to answer questions, with the teacher's answers beside the gold ones")
    stages.finetune(
        folders["student-qa"],
        model=str(folders["student"]),
        teacher=str(teacher_qa),
        options=replace(FINE_TUNING, seed=seed),
        config={"model": str(folders["student"]), "teacher": str(teacher_qa), **asdict(FINE_TUNING), "seed": seed},
        overwrite=overwrite,
    )
    questions = stages.squad_questions(None, "test")
    note("3/6 exporting to ONNX, fp32 and int8")
    onnx = export(folders["student-qa"], folders["onnx"], format="onnx", questions=questions, overwrite=overwrite)
    note("4/6 exporting to Core ML")
    coreml = _export_coreml(export, folders, questions[:32], overwrite)

    runtimes: dict[str, Runtime] = {
        "teacher": open_runtime(teacher_qa, threads=threads),
        "student": open_runtime(folders["student-qa"], threads=threads),
        "student, ONNX": open_runtime(folders["onnx"], precision="fp32", threads=threads),
        "student, ONNX int8": open_runtime(folders["onnx"], precision="int8", threads=threads),
    }
    sizes = {file["precision"]: file["bytes"] for file in onnx["files"]}
    on_disk = [_weights(teacher_qa), _weights(folders["student-qa"]), sizes["fp32"], sizes["int8"]]
    parameters = [sum(w.numel() for w in runtimes[name].model.parameters()) for name in ("teacher", "student")]  # type: ignore[attr-defined]
    note("5/6 asking each the starter test set")
    scores = [evaluate(QuestionAnswerer(runtime), questions) for runtime in runtimes.values()]
    note("6/6 measuring latency")
    contenders = [bench.Contender(name, runtime) for name, runtime in runtimes.items()]
    calls = len(contenders) * _LATENCY_REPEATS * _LATENCY_QUESTIONS
    with progress("measuring", calls) as advance:
        timed = bench.measure(
            contenders,
            questions[:_LATENCY_QUESTIONS],
            threads=threads,
            tokens=384,
            repeats=_LATENCY_REPEATS,
            warmup=_LATENCY_WARMUP,
            progress=advance,
        )
    rows = [
        {
            "name": name,
            "runtime": runtime.name,
            "precision": runtime.precision,
            "parameters": parameters[0 if name == "teacher" else 1],
            "bytes": size,
            "f1": score["f1"],
            "exact_match": score["exact_match"],
            "median_ms": ids["median_ms"],
            "median_ms_with_text": text["median_ms"],
        }
        for (name, runtime), size, score, text, ids in zip(
            runtimes.items(), on_disk, scores, timed[: len(runtimes)], timed[len(runtimes) :], strict=True
        )
    ]
    if coreml:
        # Run operation by operation, which says what the package answers and nothing of a phone's time.
        package = open_runtime(folders["coreml"], name="mil", threads=threads)
        score = evaluate(QuestionAnswerer(package), questions)
        rows.append(
            {
                **dict.fromkeys(("median_ms", "median_ms_with_text")),
                "name": "student, Core ML",
                "runtime": package.name,
                "precision": package.precision,
                "f1": score["f1"],
                "exact_match": score["exact_match"],
                "parameters": parameters[1],
                "bytes": coreml["files"][0]["bytes"],
            }
        )
    question, passage, gold = starter.example()
    answer = QuestionAnswerer(runtimes["student, ONNX int8"]).ask(question, passage)[0]
    return {
        "output": str(output),
        "rows": rows,
        "question": question,
        "passage": passage,
        "answer": {"text": answer.text, "start": answer.start, "end": answer.end, "score": answer.score},
        "gold": gold,
        "seconds": round(time.monotonic() - begun, 1),
    }


def cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    """The rows of `run` as texts under `HEADERS`; a dash stands for what cannot be run here."""

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.1f}"

    return [
        [
            row["name"],
            row["runtime"],
            row["precision"],
            f"{row['parameters'] / 1e6:.2f} M",
            megabytes(row["bytes"]),
            *(number(row[key]) for key in ("f1", "exact_match", "median_ms", "median_ms_with_text")),
        ]
        for row in rows
    ]


def _weights(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _export_coreml(
    export: Callable[..., dict[str, Any]], folders: dict[str, Path], questions: list[Any], overwrite: bool
) -> dict[str, Any] | None:
    """The Core ML export; None, with a note, where its optional dependency is not installed."""
    try:
        return export(
            folders["student-qa"], folders["coreml"], format="coreml", questions=questions, overwrite=overwrite
        )
    except UserError as fault:
        if "coremltools" not in fault.message:
            raise
        note(f"    skipped: {fault.message} ({fault.hint})")
        return None
