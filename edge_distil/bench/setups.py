"""What there is to time in a model folder: each model file in each runtime that can run it."""

import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_distil.checkpoints import read_manifest
from edge_distil.errors import UserError

RUNTIMES = ("torch", "torch.compile", "onnxruntime", "openvino", "coreml", "mil")
DEVICES = ("cpu", "cuda", "mps", "coreml")
# Which parts of a chip Core ML may use on each device.
_COMPUTE_UNITS = {"cpu": "cpu_only", "coreml": "all"}
_ON_DEVICE = {
    "cpu": RUNTIMES,
    "cuda": ("torch", "torch.compile"),
    "mps": ("torch", "torch.compile"),
    "coreml": ("coreml",),
}


@dataclass(frozen=True, slots=True)
class Setup:
    """A model in one runtime, to be opened in a process of its own.

    `model` is its name in the results, `precision` that of the graph or package, and for torch what its weights are
    converted to. `bytes` are those of the model on disk. `random_weights`: the folder's model was never trained, and
    its tokeniser need not be its own.
    """

    model: str
    folder: str
    runtime: str
    precision: str | None
    bytes: int
    device: str = "cpu"
    compute_units: str | None = None
    random_weights: bool = False

    def as_json(self) -> dict[str, Any]:
        """For the command line of the process."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.model} ({self.runtime}{f' {self.precision}' if self.precision else ''})"


def check_device(device: str) -> None:
    """Refuse a device that is unknown or that this machine lacks. Raises `UserError`."""
    if device not in DEVICES:
        raise UserError(f"--device {device}: unknown device", f"the devices are: {', '.join(DEVICES)}")
    if device == "coreml" and sys.platform != "darwin":
        raise UserError(
            "--device coreml: Core ML runs on macOS alone",
            "leave --device out: packages are then run operation by operation, which says nothing of a phone's time",
        )
    if device in ("cuda", "mps"):
        import torch

        is_there = torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()
        if not is_there:
            raise UserError(
                f"--device {device}: this machine has none that torch {torch.__version__} can use",
                "leave --device out to measure on the CPU",
            )


def labelled(folders: Sequence[Path]) -> dict[str, Path]:
    """Folders by the names that they have in the results: the shortest ending of each path that no other one has.

    Raises `UserError` for a folder that is given twice.
    """
    parts = [folder.resolve().parts for folder in folders]
    named: dict[str, Path] = {}
    for folder, own in zip(folders, parts, strict=True):
        if parts.count(own) > 1:
            raise UserError(f"{folder}: is given twice", "give every folder once")
        shared = (sum(theirs[-length:] == own[-length:] for theirs in parts) > 1 for length in range(1, len(own)))
        named[Path(*own[-1 - sum(shared) :]).as_posix()] = folder
    return named


def setups_of(
    folder: Path,
    *,
    name: str | None = None,
    device: str = "cpu",
    runtimes: Collection[str] = (),
    precisions: Collection[str] = (),
    random_weights: bool = False,
) -> list[Setup]:
    """Every model file of a folder in every runtime for it on a device; those of `runtimes` and `precisions`, if given.

    Whether a runtime is installed and a precision has instructions is found out where it is opened. Core ML packages
    run in Core ML on macOS; operation by operation ("mil") elsewhere, and there where it is asked for. Raises
    `UserError` for a folder without a model, for files that are not those of the manifest, and where none is left.
    """
    if not random_weights:
        if folder.is_file():
            raise UserError(f"{folder}: is a file, no model folder", "give the folder of a checkpoint or an export")
        if not folder.is_dir():
            raise UserError(f"{folder}: no such model folder", "give a checkpoint or an export")
        read_manifest(folder)
    present = [*_checkpoint(folder, {*runtimes, *precisions}), *_graphs(folder), *_packages(folder, device, runtimes)]
    if not present:
        raise UserError(
            f"{folder}: holds no model: no .safetensors, no onnx/, no openvino/, no .mlpackage",
            "give a checkpoint or an export",
        )
    kept = [
        (runtime, precision, size)
        for runtime, precision, size in present
        if runtime in _ON_DEVICE[device]
        and (not runtimes or runtime in runtimes)
        and (not precisions or precision in precisions)
    ]
    if not kept:
        has = ", ".join(dict.fromkeys(f"{runtime} {precision or ''}".strip() for runtime, precision, _ in present))
        wanted = " ".join([*runtimes, *precisions, f"on {device}"])
        raise UserError(f"{folder}: nothing in it runs as {wanted}", f"it has: {has}; choose among these")
    return [
        Setup(
            model=name or folder.resolve().name,
            folder=str(folder),
            runtime=runtime,
            precision=precision,
            bytes=size,
            device=device,
            compute_units=_COMPUTE_UNITS[device] if runtime == "coreml" else None,
            random_weights=random_weights,
        )
        for runtime, precision, size in kept
    ]


_Found = tuple[str, str | None, int]


def _checkpoint(folder: Path, wanted: Collection[str]) -> list[_Found]:
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if not size:
        return []
    found: list[_Found] = [("torch", "fp32", size), ("torch", "bf16", size), ("torch.compile", "fp32", size)]
    # Compiling takes half a minute a model: once, unless more is asked for.
    return [*found, ("torch.compile", "bf16", size)] if {"torch.compile", "bf16"} & set(wanted) else found


def _graphs(folder: Path) -> list[_Found]:
    from edge_distil.runtimes.onnx import GRAPHS
    from edge_distil.runtimes.openvino import MODELS

    found: list[_Found] = []
    for runtime, graphs in (("onnxruntime", GRAPHS), ("openvino", MODELS)):
        for precision, relative in graphs.items():
            file = folder / relative
            if file.is_file():
                # Weights may lie beside the graph, under names that go by its own.
                parts = {file, file.with_suffix(".bin"), *file.parent.glob(f"{file.name}?data")}
                size = sum(path.stat().st_size for path in parts if path.is_file())
                found.append((runtime, precision, size))
    return found


def _packages(folder: Path, device: str, runtimes: Collection[str]) -> list[_Found]:
    present = sorted(folder.glob("*.mlpackage"))
    if not present:
        return []
    from edge_distil.runtimes.mil import PACKAGES

    by_name = {name: precision for precision, name in PACKAGES.items()}
    order = list(PACKAGES.values())
    engines = [name for name in ("coreml", "mil") if name in runtimes]
    found: list[_Found] = []
    for path in sorted(present, key=lambda path: order.index(path.name) if path.name in order else len(order)):
        if path.name not in by_name and len(present) > 1:
            continue
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        for engine in engines or ["coreml" if sys.platform == "darwin" or device == "coreml" else "mil"]:
            found.append((engine, by_name.get(path.name), size))
    return found
