"""Exports of a checkpoint for phones, browsers and edge CPUs, each checked against it before it is written."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from edge_distil.checkpoints import check_output, describe_input, new_folder, read_json, read_manifest, write_manifest
from edge_distil.errors import UserError
from edge_distil.models import resolve
from edge_distil.runtimes import Runtime
from edge_distil.runtimes.torch import TorchRuntime
from edge_distil.tasks import Task
from edge_distil.tasks.decoding import DECODING, Decoding
from edge_distil.tasks.squad import MAX_LENGTH, Question
from edge_distil.tokenization import load_tokenizer, save_tokenizer, special_tokens
from exporters import gate
from exporters.card import model_card
from exporters.encoder import PlainEncoder

Format = Literal["onnx", "coreml"]

_SHORTEST = 16  # a window must have room for a question, its separators and some context


def checkpoint_task(folder: Path) -> Task:
    """What a checkpoint was made for: as its manifest says, else as `config.json` names its class, else answering."""
    manifest = read_manifest(folder)
    if manifest is not None:
        return manifest["task"]
    architectures = read_json(folder / "config.json").get("architectures") or [""]
    tasks: dict[str, Task] = {"ForMaskedLM": "masked-lm", "ForSequenceClassification": "text-classification"}
    return next((task for end, task in tasks.items() if architectures[0].endswith(end)), "question-answering")


def _check_length(max_length: int, model: PlainEncoder) -> None:
    longest = model.config.max_position_embeddings
    if not _SHORTEST <= max_length <= longest:
        raise UserError(
            f"a max_length of {max_length} is not possible, the model has {longest} positions",
            f"give --max-length a number from {_SHORTEST} to {longest}",
        )


def _bytes(path: Path) -> int:
    """Size of a file, or of all files of a package."""
    return path.stat().st_size if path.is_file() else sum(_bytes(entry) for entry in path.iterdir())


def _write_onnx(plain: PlainEncoder, staging: Path) -> tuple[dict[str, str], dict[str, Runtime]]:
    """Write the graphs. Returns the path of each precision, and what the gate is to run for it."""
    from edge_distil.runtimes.onnx import OnnxRuntime
    from exporters.onnx import write_graphs

    paths = write_graphs(plain, staging)
    return paths, {precision: OnnxRuntime(staging, precision=precision) for precision in paths}


def _write_coreml(
    plain: PlainEncoder, staging: Path, max_length: int, description: str, source: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, Runtime], dict[str, Any]]:
    """Write the package and check it as it lies on disk. As `_write_onnx`, and what was measured of the package."""
    from exporters.coreml import PACKAGE, convert, read_package

    normalizer = load_tokenizer(staging).normalizer
    lower_case = normalizer is not None and normalizer.normalize_str("A") == "a"
    metadata = {
        "max_length": str(max_length),
        "vocab_size": str(plain.config.vocab_size),
        "do_lower_case": str(lower_case).lower(),
        "source": Path(source["path"]).name,
        "source_sha256": source["sha256"],
    }
    traced = convert(plain, staging / PACKAGE, max_length=max_length, description=description, metadata=metadata)
    measured = gate.check_package(read_package(staging / PACKAGE), plain, max_length)
    # Core ML runs on Apple's systems alone: what is run here is the module that was converted, before fp16.
    runtime = gate.TracedRuntime(traced, plain.output_names, staging, max_length)
    return {"fp16": PACKAGE}, {"traced": runtime}, {"package": measured}


def export(
    model: Path,
    output: Path,
    *,
    format: Format,
    questions: Sequence[Question],
    max_length: int = MAX_LENGTH,
    max_drop: float = 1.0,
    task: Task | None = None,
    config: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> dict[str, Any]:
    """Export the checkpoint in `model` to the folder `output`, which appears only if the gate lets it through.

    `questions` are what the gate runs, all of them: a few dozen take seconds, and tell the loss of F1 to one answer's
    worth. `max_length` is the fixed length of a Core ML package, and the longest window that the gate gives to an ONNX
    graph. `max_drop` is how many points of F1 int8 may lose. `task` is found out where None. `config` goes into the
    manifest, `progress` is told each step as it starts.

    Returns `artifact`, the output folder; `format`; `files`, each with its `path` in it, `bytes` and `precision`;
    `gate`, what was measured; and `seconds`. Raises `UserError` for an output that holds something else, a model
    without the task's head or without a conversion, a length that it has no positions for, and when a check of
    `exporters.gate` fails.
    """
    started = time.perf_counter()
    check_output(output, overwrite)
    if not questions:
        raise UserError("there is no question to check the export with", "give a SQuAD file with at least one question")
    progress("reading the checkpoint")
    folder = resolve(model)
    task = task or checkpoint_task(folder)
    reference = TorchRuntime.load(folder, task=task)
    tokenizer = load_tokenizer(folder)
    plain = PlainEncoder.from_library(reference.model, special_tokens(tokenizer).sep)
    _check_length(max_length, plain)
    source = describe_input(folder)

    with new_folder(output, overwrite=overwrite) as staging:
        shutil.copyfile(folder / "config.json", staging / "config.json")
        save_tokenizer(folder, staging, max_length)
        if (folder / DECODING).is_file():
            Decoding.load(folder).save(staging)
        progress(f"converting to {format}")
        measured: dict[str, Any] = {}
        if format == "onnx":
            paths, artifacts = _write_onnx(plain, staging)
        else:
            paths, artifacts, measured = _write_coreml(plain, staging, max_length, f"{folder.name}, {task}.", source)
        progress("checking it against the checkpoint")
        measured |= gate.check_outputs(
            reference, artifacts, questions, task=task, max_length=max_length, max_drop=max_drop
        )
        files = [
            {"path": path, "bytes": _bytes(staging / path), "precision": precision} for precision, path in paths.items()
        ]
        card = model_card(
            folder.name, format, task=task, outputs=plain.output_names, max_length=max_length, measured=measured
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
