"""Packages in few bits: a converted program's weights, replaced by what Core ML unpacks them from.

| | iOS 16 and 17 | iOS 18 |
|---|---|---|
| palette8, 6, 4 | one look-up table for a tensor | one for each group of channels |
| int8, w8a8 | a scale for each row | the same |
| int4 | | a scale for each block of a row |

A weight is a matrix [O, I] of a product, a convolution [O, I, 1, 1] of the channels-first layout, or a table [V, H].
w8a8 also rounds what goes into a product, to int8 with one calibrated scale.
"""

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edge_distil.errors import UserError
from exporters.calibration import Activation
from exporters.coreml.conversion import About, convert, describe, module_of, traced
from exporters.coreml.fp16 import is_tied
from exporters.coreml.palettes import nearest, palette
from exporters.coreml.plan import CoreMLPlan, Ios, Precision
from exporters.coreml.program import (
    Converted,
    Packed,
    Stored,
    WeightFile,
    Written,
    block_of,
    text_value,
    weight_file,
    write_program,
)
from exporters.encoder import PlainEncoder
from exporters.parts import modules_of, parts
from exporters.quantization import symmetric_rows

# Channels that share a look-up table on iOS 18, so many that the tables are a hundredth of the weights at most.
_GROUP = {4: 16, 6: 32, 8: 64}
_BLOCK = 64  # weights that share a scale in int4: with 32, DistilBERT's package would be above 36 MB


@dataclass(frozen=True, slots=True)
class Compressed:
    """What a weight is unpacked from: an operation of MIL, its arguments by name, and whether they are attributes."""

    operation: str
    arguments: Mapping[str, Stored]
    as_attributes: bool


def _divisor(number: int, most: int) -> int:
    """The largest divisor of a number that is not above `most`."""
    return next(divisor for divisor in range(min(number, most), 0, -1) if number % divisor == 0)


def compress(weight: np.ndarray, precision: Precision, ios: Ios, *, is_table: bool = False) -> Compressed:
    """A weight, fp16 [O, I], [O, I, 1, 1] or a table [V, H], in few bits.

    The look-up tables of a table of embeddings are of groups of its columns, for the size of a vocabulary has no
    divisors to speak of.
    """
    if precision.startswith("palette"):
        return _palettized(weight, int(precision[-1]), ios, axis=1 if is_table else 0)
    rows = weight.reshape(len(weight), -1)
    if precision == "int4":
        block = _divisor(rows.shape[1], _BLOCK)
        codes, scales = symmetric_rows(rows.reshape(-1, block), 4, np.float16)
        shape = (len(rows), rows.shape[1] // block, *weight.shape[2:])
        packed = Packed(codes.reshape(weight.shape), "INT4")
        return Compressed(
            "constexpr_blockwise_shift_scale", {"data": packed, "scale": scales.reshape(shape)}, as_attributes=False
        )
    codes, scales = symmetric_rows(rows, 8, np.float16)
    codes = codes.reshape(weight.shape)
    if ios >= 18:
        scale = scales.reshape(-1, *[1] * (weight.ndim - 1))
        return Compressed("constexpr_blockwise_shift_scale", {"data": codes, "scale": scale}, as_attributes=False)
    arguments: dict[str, Stored] = {"quantized_data": codes, "scale": scales}
    arguments |= {"zero_point": np.int8(0), "axis": np.int32(0)}
    return Compressed("constexpr_affine_dequantize", arguments, as_attributes=True)


def _palettized(weight: np.ndarray, bits: int, ios: Ios, axis: int) -> Compressed:
    if ios < 18:
        table_P = palette(weight, 2**bits)
        packed = packed_bits(nearest(weight, table_P), bits)
        arguments = {"indices": packed, "lut": table_P, "shape": np.array(weight.shape, np.uint32)}
        return Compressed("constexpr_lut_to_dense", arguments, as_attributes=True)
    size = _divisor(weight.shape[axis], _GROUP[bits])
    groups = np.split(weight, weight.shape[axis] // size, axis=axis)
    tables = [palette(group, 2**bits) for group in groups]
    indices = np.concatenate([nearest(*pair) for pair in zip(groups, tables, strict=True)], axis=axis)
    shape = [1] * weight.ndim
    shape[axis] = len(groups)
    lut = np.stack(tables).reshape(*shape, 2**bits, 1)
    stored = indices if bits == 8 else Packed(indices, f"UINT{bits}")
    return Compressed("constexpr_lut_to_dense", {"indices": stored, "lut": lut}, as_attributes=False)


def packed_bits(indices: np.ndarray, bits: int) -> np.ndarray:
    """Indices below 2 ** bits as bytes without gaps, the lowest bit of the first one first."""
    if bits == 8:
        return indices.ravel()
    pairs = np.pad(indices.ravel(), (0, -indices.size % 4)).reshape(-1, 4).astype(np.uint32)  # 4 × 6 bits are 3 bytes
    words = (pairs << (np.arange(4, dtype=np.uint32) * bits)).sum(axis=1, dtype=np.uint32)
    whole = words.astype("<u4").view(np.uint8).reshape(-1, 4)[:, : bits // 2].ravel()
    return np.ascontiguousarray(whole[: -(-indices.size * bits // 8)])


def dense(compressed: Compressed, shape: tuple[int, ...]) -> np.ndarray:
    """The weight, fp16 [..], that Core ML unpacks: for judging a precision without writing a package."""
    given = {
        name: stored.values if isinstance(stored, Packed) else np.asarray(stored)
        for name, stored in compressed.arguments.items()
    }
    if compressed.operation == "constexpr_lut_to_dense" and compressed.as_attributes:
        bits = len(given["lut"]).bit_length() - 1
        unpacked = np.unpackbits(given["indices"], bitorder="little")[: bits * int(np.prod(shape))].reshape(-1, bits)
        return np.asarray(given["lut"][unpacked @ (1 << np.arange(bits))].reshape(shape))
    if compressed.operation == "constexpr_lut_to_dense":
        lut, indices = given["lut"], given["indices"]
        axis = int(np.argmax(lut.shape[: len(shape)]))
        tables = lut.reshape(-1, lut.shape[-2])
        size = shape[axis] // len(tables)
        group_of = np.repeat(np.arange(len(tables)), size).reshape([-1 if a == axis else 1 for a in range(len(shape))])
        return np.asarray(tables[group_of, indices])
    if compressed.as_attributes:
        return np.asarray(given["scale"].reshape(-1, *[1] * (len(shape) - 1)) * given["quantized_data"])
    rows = given["data"].reshape(*given["scale"].shape[:2], -1)
    return np.asarray((rows * given["scale"].reshape(*rows.shape[:2], 1)).reshape(shape))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a weight of the program belongs: a part, and whether it is a table of embeddings."""

    part: str
    is_table: bool


def _places(model: PlainEncoder) -> dict[str, _Place]:
    """The weights that can be in few bits, by the name that the converter gives their constants."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}  # a shared one under its first name
    found: dict[str, _Place] = {}
    for part in parts(model):
        for module in modules_of(model, part):
            constant = names[id(module.weight)].replace(".", "_")
            found.setdefault(constant, _Place(part, part.startswith("embeddings.")))
    return found


@torch.no_grad()
def unpacked(model: PlainEncoder, plan: CoreMLPlan) -> PlainEncoder:
    """A copy of the model with the weights that Core ML unpacks, for judging a plan without running its package.

    Its products and sums are in fp32; what goes into a product of w8a8 is rounded as the package does it.
    """
    twin = copy.deepcopy(model)
    for part in parts(model):
        if part == "head.decoder" and is_tied(model):
            continue  # it is the table of word embeddings
        precision = plan.of(part)
        activation = plan.activations[part] if precision == "w8a8" and not part.startswith("embeddings.") else None
        for module in modules_of(twin, part):
            # Positions beyond the longest input are in no package.
            weight = module.weight[: plan.longest] if part == "embeddings.position" else module.weight
            weight.copy_(torch.from_numpy(_unpacked(weight.numpy(), part, precision, plan, activation)))
            if activation is not None:
                module.register_forward_pre_hook(_rounding(activation))
    return twin


def _unpacked(
    weight: np.ndarray, part: str, precision: Precision, plan: CoreMLPlan, activation: Activation | None
) -> np.ndarray:
    if precision == "fp32":
        return weight
    half = weight.astype(np.float16)
    if precision == "fp16":
        return half.astype(np.float32)
    smoothing = np.float32(1) if activation is None or activation.smoothing is None else activation.smoothing
    half = (half * smoothing).astype(np.float16)
    compressed = compress(half, precision, plan.ios, is_table=part.startswith("embeddings."))
    return np.asarray(dense(compressed, half.shape).astype(np.float32) / smoothing)


def _rounding(activation: Activation) -> Callable[[Any, tuple[torch.Tensor, ...]], tuple[torch.Tensor]]:
    """A hook that rounds what a layer is given."""
    smoothing = torch.ones(()) if activation.smoothing is None else torch.from_numpy(activation.smoothing)
    scale = float(symmetric_scale(activation))

    def rounded(_: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        return ((given[0] / smoothing / scale).round().clamp(-128, 127) * scale * smoothing,)

    return rounded


def alone(model: PlainEncoder, plan: CoreMLPlan, part: str) -> AbstractContextManager[PlainEncoder]:
    """A copy of the model with one part alone in the plan's precision, as `exporters.fitting` asks for it."""
    return nullcontext(unpacked(model, replace(plan, precision="fp16", kept={part: plan.precision})))


def write_package(
    model: PlainEncoder,
    path: Path,
    plan: CoreMLPlan,
    about: About = About(),  # noqa: B008
    program: Converted | None = None,
) -> Written:
    """Write the package of a plan at `path`, which ends in `.mlpackage` and is nothing yet.

    `program` is what `convert` made of the model for this layout, target and lengths, in fp16: with it only weights are
    rewritten. The same arguments give the same bytes. Returns what the package is to hold. Raises `UserError` without
    coremltools, and for w8a8 without calibrated activations.
    """
    if program is None:
        program = convert(traced(module_of(model, plan), plan.longest), model, plan)
    places = _places(model)
    for place in places.values():
        if plan.of(place.part) == "w8a8" and not place.is_table and place.part not in plan.activations:
            raise UserError(f"w8a8 has no activations of {place.part}", "calibrate it on a few real questions")
    spec = type(program.spec)()
    spec.CopyFrom(program.spec)
    describe(spec, model, plan, about)
    block = block_of(spec)
    file = weight_file(path)
    writer = _Writer(file, plan, places)
    operations = [written for operation in block.operations for written in writer.written(operation, program.weights)]
    del block.operations[:]
    block.operations.extend(operations)
    return Written(write_program(spec, path), file.arrays)


class _Writer:
    """Writes a program's operations one after another, in the precision that the plan has for each."""

    def __init__(self, file: WeightFile, plan: CoreMLPlan, places: Mapping[str, _Place]) -> None:
        from coremltools import proto

        self._types = proto.MIL_pb2
        self._file = file
        self._plan = plan
        self._places = places
        self._value_types: dict[str, Any] = {}
        self._rounded: dict[tuple[str, str], str] = {}  # what has been rounded for a part → under which name

    def _place(self, constant: str) -> _Place | None:
        return self._places.get(constant.removesuffix("_to_fp16"))

    def written(self, operation: Any, weights: Mapping[str, np.ndarray]) -> list[Any]:
        """What stands for an operation: itself, itself with other weights, or with its input rounded before."""
        self._value_types |= {output.name: output.type for output in operation.outputs}
        name = operation.outputs[0].name
        if name in weights:
            return [self._constant(operation, name, weights[name])]
        if operation.type in ("linear", "conv"):
            place = self._place(operation.inputs["weight"].arguments[0].name)
            if place and not place.is_table and self._plan.of(place.part) == "w8a8":
                return [*self._round_input(operation, place.part), operation]
        return [operation]

    def _constant(self, operation: Any, name: str, weight: np.ndarray) -> Any:
        place = self._place(name)
        precision = self._plan.of(place.part) if place else "fp16"
        if place is None or precision in ("fp16", "fp32"):
            operation.attributes["val"].CopyFrom(self._file.value(weight))
            return operation
        activation = self._plan.activations.get(place.part) if precision == "w8a8" else None
        if activation is not None and activation.smoothing is not None:
            factors = activation.smoothing.reshape(-1, *[1] * (weight.ndim - 2))
            weight = (weight * factors).astype(weight.dtype)
        found = compress(weight, precision, self._plan.ios, is_table=place.is_table)
        compressed = self._types.Operation(type=found.operation, outputs=operation.outputs)
        compressed.attributes["name"].CopyFrom(operation.attributes["name"])
        for argument, stored in found.arguments.items():
            value = self._file.value(stored)
            if found.as_attributes:
                compressed.attributes[argument].CopyFrom(value)
            else:
                compressed.inputs[argument].arguments.add().value.CopyFrom(value)
        return compressed

    def _round_input(self, operation: Any, part: str) -> list[Any]:
        """The operations that round the input of a product to int8 and back; the product then takes what they give."""
        given = operation.inputs["x"].arguments[0]
        key = (given.name, part)
        if key in self._rounded:  # query, key and value share their input
            given.name = self._rounded[key]
            return []
        activation = self._plan.activations[part]
        name, float_type = given.name, self._value_types[given.name]
        made: list[Any] = []
        source = name
        if activation.smoothing is not None:
            inverse = (1 / activation.smoothing).astype(np.float16)
            if operation.type == "conv":
                inverse = inverse.reshape(1, -1, 1, 1)
            factors = self._add_constant(made, f"{name}_smoothing", self._file.value(inverse))
            source = self._add(made, "mul", f"{name}_smoothed", float_type, {"x": source, "y": factors})
        scale = self._add_constant(made, f"{name}_scale", self._file.value(symmetric_scale(activation)))
        dtype = self._add_constant(made, f"{name}_dtype", text_value(self._types, "int8"))
        codes_type = self._types.ValueType()
        codes_type.CopyFrom(float_type)
        codes_type.tensorType.dataType = self._types.DataType.Value("INT8")
        quantized = {"input": source, "scale": scale, "output_dtype": dtype}
        codes = self._add(made, "quantize", f"{name}_quantized", codes_type, quantized)
        rounded = self._add(made, "dequantize", f"{name}_rounded", float_type, {"input": codes, "scale": scale})
        self._rounded[key] = given.name = rounded
        return made

    def _add(self, made: list[Any], kind: str, name: str, value_type: Any, inputs: Mapping[str, str]) -> str:
        """Append an operation with these inputs, by name, and return the name of what it gives."""
        operation = self._types.Operation(type=kind)
        operation.attributes["name"].CopyFrom(text_value(self._types, name))
        for argument, given in inputs.items():
            operation.inputs[argument].arguments.add().name = given
        operation.outputs.add(name=name, type=value_type)
        made.append(operation)
        return name

    def _add_constant(self, made: list[Any], name: str, value: Any) -> str:
        operation = self._types.Operation(type="const")
        operation.attributes["name"].CopyFrom(text_value(self._types, name))
        operation.attributes["val"].CopyFrom(value)
        operation.outputs.add(name=name, type=value.type)
        made.append(operation)
        return name


def symmetric_scale(activation: Activation) -> np.float16:
    """The step of int8 codes around zero that reach as far as a calibrated range, which need not be around zero."""
    low, high = -activation.zero_point * activation.scale, (255 - activation.zero_point) * activation.scale
    return np.float16(max(-low, high) / 127)
