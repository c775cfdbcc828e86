"""OpenVINO models for Intel CPUs, from a `PlainEncoder`: fp16 weights, or int8 calibrated on real inputs."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from edge_distil.errors import UserError
from edge_distil.quiet import quiet
from edge_distil.runtimes.openvino import MODELS, import_openvino
from exporters.encoder import PlainEncoder

_INPUTS = ("input_ids", "attention_mask")

# The start of a layer of an `.xml` whose name is made of its type and a number.
_UNNAMED = re.compile(r'(?P<before><layer id=")(?P<id>\d+)(?P<between>" name=")(?P<type>[A-Z][A-Za-z0-9]*)_\d+')


def convert(
    model: PlainEncoder,
    folder: Path,
    *,
    precision: Literal["fp16", "int8"],
    calibration: Sequence[tuple[np.ndarray, np.ndarray]],
) -> str:
    """Write the model below `folder`, as an `.xml` and the `.bin` of its weights. Returns the `.xml`'s relative path.

    The model takes `input_ids` and `attention_mask`, int64 [B, L] of any batch and length, and gives float32 outputs
    named as `model.output_names`. `calibration` holds such pairs of inputs, from which int8 learns the range of every
    activation: a few dozen windows of real text, unpadded. fp16 needs none. The same arguments give the same bytes
    with the same versions of torch, OpenVINO and NNCF. Raises `UserError` without OpenVINO, and for int8 without NNCF
    or without calibration.
    """
    if precision == "int8" and not calibration:
        raise UserError("int8 has no inputs to be calibrated on", "give a few windows of real text")
    with quiet():
        openvino = import_openvino()
        converted = _converted(model, openvino)
        if precision == "int8":
            converted = _quantized(converted, calibration)
    converted.set_friendly_name("encoder")
    path = folder / MODELS[precision]
    path.parent.mkdir(exist_ok=True)
    try:
        openvino.save_model(converted, path, compress_to_fp16=True)
    except RuntimeError as fault:  # its streams do not say why: the disk, as a rule
        raise UserError(f"{path.name}: cannot be written: {fault}", "check free space and permissions") from fault
    _number_layers(path)
    return MODELS[precision]


def _converted(model: PlainEncoder, openvino: Any) -> Any:
    """The model as an `openvino.Model` in fp32 with free batch and length."""
    example = {name: torch.ones((2, 8), dtype=torch.int64) for name in _INPUTS}
    free = openvino.PartialShape([-1, -1])
    with torch.no_grad():
        converted = openvino.convert_model(
            model, example_input=example, input=[(name, free, openvino.Type.i64) for name in _INPUTS]
        )
    for output, name in zip(converted.outputs, model.output_names, strict=True):
        output.get_tensor().set_names({name})
    return converted


def _quantized(model: Any, calibration: Sequence[tuple[np.ndarray, np.ndarray]]) -> Any:
    """The model with int8 weights and activations in its matrix products, and the word embeddings in int8.

    Told that it is a transformer, NNCF leaves sums and norms in floating point and moves the range of activations that
    stand out into the weights (Xiao et al., 2023, "SmoothQuant"). Without, int8 sums between the layers cost a trained
    model nearly all its answers. Its preset for accuracy gives activations a zero point too, which costs time and gains
    no answers here.
    """
    nncf = import_openvino("nncf")
    return nncf.quantize(
        model,
        nncf.Dataset([dict(zip(_INPUTS, pair, strict=True)) for pair in calibration]),
        subset_size=len(calibration),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.PERFORMANCE,
    )


def _number_layers(path: Path) -> None:
    """Number the layers that have no name of their own by their place in the file.

    OpenVINO numbers them by how many the process has made before, so that a second export would differ from the first.
    """
    text = _UNNAMED.sub(r"\g<before>\g<id>\g<between>\g<type>_\g<id>", path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")
