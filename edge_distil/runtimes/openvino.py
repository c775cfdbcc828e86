"""OpenVINO exports, run by OpenVINO on the CPU."""

import importlib
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edge_distil.errors import UserError

# The names that optimum-intel and sentence-transformers look for, best for the CPU first. The weights of each stand
# beside it in a file that ends in `.bin`.
MODELS = {"int8": "openvino/openvino_model_qint8_quantized.xml", "fp16": "openvino/openvino_model.xml"}

_TELEMETRY = "openvino_telemetry"


def import_openvino(name: str = "openvino") -> Any:
    """The module `name`, `openvino` or `nncf`, imported without its telemetry.

    Both report every use to their makers where the package `openvino_telemetry` is there, and fall back to doing
    nothing where its import fails. Raises `UserError` when the module is not installed.
    """
    loaded = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # None is how an import is made to fail
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(
            f"OpenVINO models need the package {name}, which is not installed", "pip install 'edge-distil[openvino]'"
        ) from None
    finally:
        del sys.modules[_TELEMETRY]
        if loaded is not None:
            sys.modules[_TELEMETRY] = loaded


@cache
def _core() -> Any:
    """The only one of this process, which lives as long as it does.

    On Linux a Core gives its thread another stack for signals, and takes it away with itself: where two end in the
    order in which they began, the next signal, such as Ctrl-C's, finds a stack that is gone: SIGSEGV.
    """
    return import_openvino().Core()


class OpenVinoRuntime:
    """One model of an OpenVINO export behind the interface of `edge_distil.runtimes.Runtime`."""

    name = "openvino"
    lengths: tuple[int, ...] | None = None
    batch_size: int | None = None

    def __init__(self, folder: Path, *, precision: str | None = None, threads: int | None = None) -> None:
        """Open the model of a precision, or the smallest one there, for short times of single calls.

        What is not int8 is computed in bf16 where the CPU has instructions for it, else in fp32. `threads` bounds the
        cores used. Raises `UserError` when there is no such model, when a file of it is missing or broken, and without
        the package openvino.
        """
        present = [key for key, relative in MODELS.items() if (folder / relative).is_file()]
        if not present or (precision and precision not in present):
            raise UserError(
                f"{folder}: holds no {precision or 'OpenVINO'} model (it has: {', '.join(present) or 'none'})",
                "export it: edge-distil export MODEL --format openvino",
            )
        self.folder = folder
        self.precision = precision or present[0]
        path = folder / MODELS[self.precision]
        weights = path.with_suffix(".bin")
        if not weights.is_file():
            raise UserError(f"{weights}: is missing, {path.name} has its weights there", "export the model again")
        core = _core()
        has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16" if has_bf16 else "f32"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            compiled = core.compile_model(core.read_model(path), "CPU", settings)
        except RuntimeError as fault:
            reason = str(fault).strip().splitlines()[-1].strip()
            raise UserError(f"{path}: OpenVINO cannot load it: {reason}", "export the model again") from None
        self.outputs = tuple(output.any_name for output in compiled.outputs)
        self._request = compiled.create_infer_request()

    def __call__(self, input_ids_BL: np.ndarray, attention_mask_BL: np.ndarray) -> dict[str, np.ndarray]:
        values = self._request.infer({"input_ids": input_ids_BL, "attention_mask": attention_mask_BL})
        # Copies: the request writes its next results where these lie.
        return {name: np.array(values[index]) for index, name in enumerate(self.outputs)}
