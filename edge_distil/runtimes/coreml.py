"""Core ML exports, run by Core ML itself: on a Mac alone."""

import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edge_distil.errors import UserError
from edge_distil.quiet import import_coremltools, quiet
from edge_distil.runtimes.mil import find_package, lengths_of, read_program, stored_precision

ComputeUnits = Literal["all", "cpu_only", "cpu_and_gpu", "cpu_and_ne"]


class CoreMLRuntime:
    """One package of a Core ML export behind the interface of `edge_distil.runtimes.Runtime`.

    Texts are run one at a time, as an app does.
    """

    name = "coreml"
    batch_size: int | None = 1

    def __init__(
        self,
        folder: Path,
        *,
        precision: str | None = None,
        threads: int | None = None,
        compute_units: ComputeUnits = "all",
    ) -> None:
        """Open the package of a precision, or the first of `PACKAGES` there is, for these compute units.

        `threads` is taken for the interface's sake: Core ML chooses for itself. Raises `UserError` off macOS, without
        coremltools, when there is no such package, and when Core ML cannot load it.
        """
        if sys.platform != "darwin":
            raise UserError(f"{folder}: Core ML runs on macOS alone", "leave the runtime out, or choose mil")
        path, named = find_package(folder, precision)
        program = read_program(path)
        self.folder = folder
        self.precision = named or stored_precision(program)
        self.outputs: tuple[str, ...] = tuple(program.outputs)
        self.lengths = lengths_of(program)
        coremltools = import_coremltools()
        try:
            with quiet():
                self._model: Any = coremltools.models.MLModel(
                    str(path), compute_units=coremltools.ComputeUnit[compute_units.upper()]
                )
        except Exception as fault:  # Core ML's own faults arrive as several kinds
            raise UserError(f"{path}: Core ML cannot load it: {fault}", "export the model again") from None

    def __call__(self, input_ids_BL: np.ndarray, attention_mask_BL: np.ndarray) -> dict[str, np.ndarray]:
        ids_BL, mask_BL = input_ids_BL.astype(np.int32), attention_mask_BL.astype(np.int32)
        rows = [
            self._model.predict({"input_ids": ids_1L, "attention_mask": mask_1L})
            for ids_1L, mask_1L in zip(ids_BL[:, None], mask_BL[:, None], strict=True)
        ]
        return {name: np.concatenate([row[name] for row in rows]).astype(np.float32) for name in self.outputs}
