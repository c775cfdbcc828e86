"""Core ML packages run anywhere: the operations that a saved package holds, computed by torch."""

from collections import Counter
from pathlib import Path

import numpy as np
import torch

from edge_distil.errors import UserError
from edge_distil.runtimes.mil.blobs import Blob
from edge_distil.runtimes.mil.interpreter import Interpreter, Observer, Rounding
from edge_distil.runtimes.mil.program import CONTROL_FLOW, Feature, Operation, Program, Value, read_program

__all__ = [
    "CONTROL_FLOW",
    "PACKAGES",
    "Feature",
    "Interpreter",
    "MilRuntime",
    "Observer",
    "Operation",
    "Program",
    "Rounding",
    "find_package",
    "lengths_of",
    "read_program",
    "stored_precision",
]

# The packages of an export, best for a phone first.
PACKAGES = {
    "fp16": "model.mlpackage",
    **{
        precision: f"model_{precision}.mlpackage"
        for precision in ("int8", "palette8", "palette6", "palette4", "int4", "w8a8", "fp32")
    },
}

_INPUTS = ("input_ids", "attention_mask")


def find_package(folder: Path, precision: str | None) -> tuple[Path, str | None]:
    """The package of a precision in a folder, or the first of `PACKAGES` there is, and its precision.

    A package of another name is taken where it is the only one; its precision is None then. Raises `UserError` when
    there is no such package.
    """
    present = {key: folder / name for key, name in PACKAGES.items() if (folder / name).is_dir()}
    chosen = precision or next(iter(present), None)
    if chosen in present:
        return present[chosen], chosen
    others = sorted(folder.glob("*.mlpackage"))
    if len(others) == 1 and not present and precision is None:
        return others[0], None
    found = ", ".join(present or (path.name for path in others)) or "none"
    choose = "choose one of these with --precision, or " if present else ""
    wanted = f" --precision {precision}" if precision else ""
    raise UserError(
        f"{folder}: holds no {precision or 'Core ML'} package (it has: {found})",
        f"{choose}export it: edge-distil export MODEL --format coreml{wanted}",
    )


def stored_precision(program: Program) -> str:
    """The name of the precision that most of a program's weights are stored in, as `PACKAGES` has them."""
    stored: Counter[str] = Counter()
    for operation in program.operations:
        for argument, given in operation.arguments.items():
            if isinstance(given[0], Value) and isinstance(given[0].source, Blob):
                stored[_stored_as(operation, argument, given[0].source.dtype)] += given[0].source.count
    most = stored.most_common(1)[0][0] if stored else "fp32"
    return "w8a8" if most == "int8" and program.operation_counts["quantize"] else most


def _stored_as(operation: Operation, argument: str, dtype: str) -> str:
    table = operation.arguments.get("lut", ("",))[0]
    if argument.startswith("indices") and isinstance(table, Value):
        # The table's size and not the type of the indices, which before iOS 18 are packed into bytes.
        entries = table.type.shape[-2:][0] or 1
        return f"palette{entries.bit_length() - 1}"
    return dtype.removeprefix("u")


def lengths_of(program: Program) -> tuple[int, ...] | None:
    """The input lengths that an encoder's program takes for a single text, ascending; None where any will do.

    Raises `UserError` for a program of other inputs than token ids and their mask, and for one without batches of 1.
    """
    if sorted(program.inputs) != sorted(_INPUTS):
        raise UserError(
            f"{program.path}: has the inputs {', '.join(program.inputs)}, expected are {', '.join(_INPUTS)}",
            "give a package that edge-distil export wrote",
        )
    lengths = program.inputs["input_ids"].lengths()
    if lengths == () or not all(program.inputs[name].takes((1, (lengths or (1,))[-1])) for name in _INPUTS):
        raise UserError(f"{program.path}: takes no single text", "export it for a batch of 1")
    return lengths


class MilRuntime:
    """One package of a Core ML export behind the interface of `edge_distil.runtimes.Runtime`.

    Texts are run one at a time, as a phone does.
    """

    name = "mil"
    batch_size: int | None = 1

    def __init__(
        self, folder: Path, *, precision: str | None = None, threads: int | None = None, rounding: Rounding = "fp16"
    ) -> None:
        """Open the package of a precision, or the first of `PACKAGES` there is.

        `threads` bounds the cores that torch uses, `rounding` is the interpreter's. Raises `UserError` when there is no
        such package, when it is broken, and for operations that are not known.
        """
        path, named = find_package(folder, precision)
        program = read_program(path)
        if threads:
            torch.set_num_threads(threads)
        self.folder = folder
        self.precision = named or stored_precision(program)
        self.outputs: tuple[str, ...] = tuple(program.outputs)
        self.lengths = lengths_of(program)
        self.program = program
        self._interpreter = Interpreter(program, rounding)

    def __call__(
        self, input_ids_BL: np.ndarray, attention_mask_BL: np.ndarray, observer: Observer | None = None
    ) -> dict[str, np.ndarray]:
        rows = [
            self._interpreter({"input_ids": ids_1L, "attention_mask": mask_1L}, observer)
            for ids_1L, mask_1L in zip(input_ids_BL[:, None], attention_mask_BL[:, None], strict=True)
        ]
        return {name: torch.cat([row[name] for row in rows]).float().numpy() for name in self.outputs}
