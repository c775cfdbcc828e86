"""Small Core ML packages on disk, for the tests that read and run them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_distil.quiet import import_coremltools, quiet

ct = import_coremltools()
from coremltools.converters.mil import Builder as mb  # noqa: E402
from coremltools.converters.mil.mil import types  # noqa: E402

TARGETS = {15: ct.target.iOS15, 16: ct.target.iOS16, 17: ct.target.iOS17, 18: ct.target.iOS18}
_DTYPES = {"float32": types.fp32, "float16": types.fp16, "int32": types.int32}
# The builder takes the names of a program's inputs from those of a function's arguments.
_NAMED: list[Callable[[Any], Any]] = [
    lambda body: body,
    lambda body: lambda x: body(x),
    lambda body: lambda x, y: body(x, y),
    lambda body: lambda x, y, z: body(x, y, z),
]


def save_program(
    body: Callable[..., Any], inputs: Sequence[np.ndarray], path: Path, *, opset: int = 16, **options: Any
) -> Path:
    """Write the package of a program of the operations that `body` builds of its inputs x, y and z, and no others."""
    specs = [mb.TensorSpec(shape=array.shape, dtype=_DTYPES[array.dtype.name]) for array in inputs]
    with quiet():
        program = mb.program(input_specs=specs, opset_version=TARGETS[opset])(_NAMED[len(inputs)](body))
        package = ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=TARGETS[opset],
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
            **options,
        )
        package.save(str(path))
    return path
