"""One small interface, token ids and mask in, logits out, over every way to run a model or an exported artifact."""

import sys
from pathlib import Path
from typing import Protocol

import numpy as np

from edge_distil.checkpoints import read_manifest
from edge_distil.errors import UserError
from edge_distil.tasks import Task


class Runtime(Protocol):
    """A model that is ready to run.

    `name` is the engine ("torch", "onnxruntime"), `precision` what its weights are stored in ("fp32", "int8"),
    `outputs` the names that a call returns, `lengths` the input lengths that it takes, ascending, None where any will
    do, `batch_size` how many inputs it is to be given at once, None where that does not change what it says, and
    `folder` holds the model's tokeniser.
    """

    name: str
    precision: str
    outputs: tuple[str, ...]
    lengths: tuple[int, ...] | None
    batch_size: int | None
    folder: Path

    def __call__(self, input_ids_BL: np.ndarray, attention_mask_BL: np.ndarray) -> dict[str, np.ndarray]:
        """Run a batch. Both inputs are int64 [B, L]; each output is float32, [B, L] for start and end logits."""
        ...


def kind_of(folder: Path) -> str:
    """The kind of a model folder without a manifest, by what is there: "checkpoint", "onnx", "openvino" or "coreml"."""
    for kind in ("onnx", "openvino"):
        if (folder / kind).is_dir():
            return kind
    return "coreml" if any(folder.glob("*.mlpackage")) else "checkpoint"


# The engines that run a folder of each kind. Core ML's own is the first choice where it is.
ENGINES = {
    "checkpoint": ("torch",),
    "onnx": ("onnxruntime",),
    "openvino": ("openvino",),
    "coreml": ("coreml", "mil") if sys.platform == "darwin" else ("mil", "coreml"),
}


def open_runtime(
    folder: Path,
    *,
    task: Task = "question-answering",
    precision: str | None = None,
    threads: int | None = None,
    name: str | None = None,
) -> Runtime:
    """The runtime that fits a folder: torch for a checkpoint, ONNX Runtime or OpenVINO for an export to it.

    A Core ML package is run by Core ML on macOS, and elsewhere, or where `name` is "mil", by torch, operation by
    operation. `precision` picks one graph of an export (its int8 graph by default, where there is one; of packages the
    fp16 one). `threads` bounds the cores used. Raises `UserError` when the folder is of another kind, lacks that
    precision, does not match its manifest, or is not run by the engine `name`.
    """
    manifest = read_manifest(folder)
    kind = manifest["kind"] if manifest else kind_of(folder)
    if kind not in ENGINES:
        raise UserError(f"{folder}: is a {kind} folder of edge-distil, no model", "give a checkpoint or an export")
    if name is not None and name not in ENGINES[kind]:
        raise UserError(f"{folder}: {name} does not run this {kind} folder", f"choose {' or '.join(ENGINES[kind])}")
    if kind == "coreml":
        if (name or ENGINES[kind][0]) == "coreml":
            from edge_distil.runtimes.coreml import CoreMLRuntime

            return CoreMLRuntime(folder, precision=precision, threads=threads)
        from edge_distil.runtimes.mil import MilRuntime

        return MilRuntime(folder, precision=precision, threads=threads)
    if kind == "onnx":
        from edge_distil.runtimes.onnx import OnnxRuntime

        return OnnxRuntime(folder, precision=precision, threads=threads)
    if kind == "openvino":
        from edge_distil.runtimes.openvino import OpenVinoRuntime

        return OpenVinoRuntime(folder, precision=precision, threads=threads)
    if precision not in (None, "fp32") and folder.is_dir():
        raise UserError(f"{folder}: a checkpoint runs in fp32, not {precision}", "export it for other precisions")
    from edge_distil.runtimes.torch import TorchRuntime

    return TorchRuntime.load(folder, task=task, threads=threads)
