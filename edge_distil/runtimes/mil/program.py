"""A saved Core ML package as a phone would get it: its inputs and outputs, its operations, and every constant.

Nothing is run. An `.mlpackage` is a folder: `Manifest.json` says which item is the model, a specification (protobuf)
holds the operations, and weight files hold the large constants. Each is read as it lies there, so that what is checked
is what will be shipped.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edge_distil.checkpoints import read_json
from edge_distil.errors import UserError
from edge_distil.quiet import import_coremltools
from edge_distil.runtimes.mil.blobs import DTYPES, REMAKE, Blob, WeightFile, numpy_dtype, packed_bits, unpack

# The release of iOS whose operations each set has.
OPSETS = {"CoreML5": 15, "CoreML6": 16, "CoreML7": 17, "CoreML8": 18, "CoreML9": 26}
HIGHEST_VERSION = 10  # of a specification

_MODEL_PATH = "@model_path/"  # how a specification names its own folder
_PROTO_DTYPES = {"FLOAT16": "fp16", "FLOAT32": "fp32", "FLOAT64": "fp64"}
_IMMEDIATE_FIELDS = ("floats", "ints", "bools", "strings", "longInts", "doubles")
# Operations that would make the run depend on values, or keep state. None belongs in an encoder.
CONTROL_FLOW = frozenset({"cond", "while_loop", "make_list", "list_write", "list_read", "read_state", "write_state"})


@dataclass(frozen=True, slots=True)
class Feature:
    """One input or output: its shape, and its element type under Core ML's name ("INT32", "FLOAT32").

    An input of flexible shape has all that it takes in `shapes`, where they are listed, or in `ranges` the least and
    the greatest size of each dimension, None where there is no greatest. `shape` is then its default.
    """

    shape: tuple[int, ...]
    dtype: str
    shapes: tuple[tuple[int, ...], ...] = ()
    ranges: tuple[tuple[int, int | None], ...] = ()

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether this shape is allowed."""
        if self.ranges:
            return len(shape) == len(self.ranges) and all(
                least <= size and (greatest is None or size <= greatest)
                for size, (least, greatest) in zip(shape, self.ranges, strict=True)
            )
        return shape in (self.shapes or (self.shape,))

    def lengths(self) -> tuple[int, ...] | None:
        """What the last dimension may be when the others are 1, ascending; None where it has no greatest."""
        if self.ranges:
            least, greatest = self.ranges[-1]
            return None if greatest is None else tuple(range(least, greatest + 1))
        return tuple(sorted({shape[-1] for shape in self.shapes or (self.shape,) if prod(shape[:-1]) == 1}))


@dataclass(frozen=True, slots=True)
class TensorType:
    """The type of a value: MIL's name of its elements ("fp16", "uint4"), and its shape, with None where it varies."""

    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """A constant, as it is stored: in the weight file, or in the specification itself."""

    type: TensorType
    source: Blob | np.ndarray | str

    @property
    def is_float(self) -> bool:
        return self.type.dtype in ("fp16", "fp32", "fp64")

    def read(self) -> np.ndarray | str:
        """The array, in its own shape and type (a whole byte for values of a few bits), or the text."""
        if isinstance(self.source, str):
            return self.source
        flat = self.source.values() if isinstance(self.source, Blob) else self.source
        return flat.reshape([size or 0 for size in self.type.shape])


@dataclass(frozen=True, slots=True)
class Constant:
    """One floating-point constant: the output of a `const`, or an argument of a compressed one."""

    name: str
    value: Value

    @property
    def largest(self) -> float:
        """Its greatest magnitude, NaN or inf where one of its values is. Decodes the constant."""
        array = np.asarray(self.value.read())
        return float(np.abs(array).max()) if array.size else 0.0


@dataclass(frozen=True, slots=True)
class Output:
    """What an operation gives: the name by which others refer to it, and its type."""

    name: str
    type: TensorType


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. An argument is a tuple of names and constants: most have one, a concatenation has many."""

    type: str
    arguments: dict[str, tuple[str | Value, ...]]
    outputs: tuple[Output, ...]
    blocks: tuple[tuple["Operation", ...], ...] = ()

    @property
    def name(self) -> str:
        """The name of its first output; of one without outputs, its type."""
        return self.outputs[0].name if self.outputs else self.type


@dataclass(frozen=True)
class Program:
    """What a package holds. `opset` is the release of iOS whose operations it uses, `version` the specification's."""

    path: Path
    inputs: dict[str, Feature]
    outputs: dict[str, Feature]
    operations: tuple[Operation, ...]
    input_types: dict[str, TensorType]
    version: int
    opset: int
    metadata: dict[str, str]

    @cached_property
    def operation_counts(self) -> Counter[str]:
        """How many operations of each type there are, with those inside other operations."""
        return Counter(operation.type for operation in _flat(self.operations))

    @cached_property
    def _values(self) -> list[Constant]:
        return [
            Constant(operation.name if operation.type == "const" else f"{operation.name}.{argument}", each)
            for operation in _flat(self.operations)
            for argument, given in operation.arguments.items()
            for each in given
            if isinstance(each, Value)
        ]

    @property
    def constants(self) -> list[Constant]:
        """Every floating-point constant."""
        return [constant for constant in self._values if constant.value.is_float]

    @property
    def blobs(self) -> list[Blob]:
        """What lies in the weight files. Constants may share a blob: it is there once."""
        blobs = [constant.value.source for constant in self._values if isinstance(constant.value.source, Blob)]
        return list({blob.data.ctypes.data: blob for blob in blobs}.values())

    @property
    def weight_bytes(self) -> int:
        """The size of the values in the weight files, without headers and padding."""
        return sum(blob.data.nbytes for blob in self.blobs)


def _flat(operations: tuple[Operation, ...]) -> Iterator[Operation]:
    for operation in operations:
        yield operation
        for block in operation.blocks:
            yield from _flat(block)


def read_program(path: Path) -> Program:
    """Read the ML program of an `.mlpackage`: its function "main", or the default one of several.

    Raises `UserError` without coremltools, when `path` is no package, when a file of it is missing, cut short or not
    what coremltools writes, and for a specification or an opset newer than those that are known.
    """
    proto = import_coremltools().proto
    spec_path = _specification_path(path)
    spec = proto.Model_pb2.Model()
    try:
        spec.ParseFromString(spec_path.read_bytes())
    except Exception:  # protobuf's two implementations raise different kinds
        raise UserError(f"{spec_path}: is not a Core ML specification", REMAKE) from None
    if spec.specificationVersion > HIGHEST_VERSION:
        raise UserError(
            f"{spec_path}: is of specification version {spec.specificationVersion}, "
            f"the highest that is known is {HIGHEST_VERSION}",
            "export it for an older release, or update edge-distil",
        )
    if spec.WhichOneof("Type") != "mlProgram":
        raise UserError(f"{spec_path}: holds no ML program", "give a package that edge-distil export wrote")
    name, described = _function(spec, spec_path)
    function = spec.mlProgram.functions[name]
    if function.opset not in OPSETS or function.opset not in function.block_specializations:
        raise UserError(
            f"{spec_path}: uses the operations of {function.opset or 'no opset'}, known are {', '.join(OPSETS)}",
            "export it for an older release, or update edge-distil",
        )
    return Program(
        path=path,
        inputs={feature.name: _feature(feature, proto, spec_path) for feature in described.input},
        outputs={feature.name: _feature(feature, proto, spec_path) for feature in described.output},
        operations=_Reader(proto, spec_path).operations(function.block_specializations[function.opset]),
        input_types={given.name: _tensor_type(given.type, proto) for given in function.inputs},
        version=spec.specificationVersion,
        opset=OPSETS[function.opset],
        metadata=dict(spec.description.metadata.userDefined),
    )


def _specification_path(package: Path) -> Path:
    """Where the manifest of a package says that its model lies."""
    if not package.is_dir():
        raise UserError(f"{package}: is no Core ML package", "give a folder that ends in .mlpackage")
    manifest_path = package / "Manifest.json"
    if not manifest_path.is_file():
        raise UserError(f"{manifest_path}: is missing", REMAKE)
    manifest = read_json(manifest_path)
    try:
        relative = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
        found: Path = package / "Data" / relative
    except (KeyError, TypeError):
        raise UserError(f"{manifest_path}: does not say which file is the model", REMAKE) from None
    return _inside(found, package)


def _inside(path: Path, package: Path) -> Path:
    if not path.resolve().is_relative_to(package.resolve()):
        raise UserError(f"{package}: names a file outside itself, {path}", REMAKE)
    if not path.is_file():
        raise UserError(f"{path}: is missing", REMAKE)
    return path


def _function(spec: Any, path: Path) -> tuple[str, Any]:
    """The name of the function to read, and the description of its inputs and outputs."""
    functions = spec.mlProgram.functions
    name = "main" if "main" in functions else spec.description.defaultFunctionName
    if name not in functions:
        raise UserError(f"{path}: has neither a function main nor a default one", REMAKE)
    return name, next((each for each in spec.description.functions if each.name == name), spec.description)


def _feature(feature: Any, proto: Any, path: Path) -> Feature:
    if feature.type.WhichOneof("Type") != "multiArrayType":
        kind = feature.type.WhichOneof("Type")
        raise UserError(f"{path}: {feature.name} is no array but {kind}", "give a package of a model of token ids")
    array = feature.type.multiArrayType
    return Feature(
        shape=tuple(array.shape),
        dtype=proto.FeatureTypes_pb2.ArrayFeatureType.ArrayDataType.Name(array.dataType),
        shapes=tuple(tuple(shape.shape) for shape in array.enumeratedShapes.shapes),
        ranges=tuple(
            (size.lowerBound, size.upperBound if size.upperBound > 0 else None) for size in array.shapeRange.sizeRanges
        ),
    )


def _tensor_type(value_type: Any, proto: Any) -> TensorType:
    """The type of a tensor; of a list, which only texts come in, that of its elements."""
    tensor = (
        value_type.listType.type.tensorType if value_type.WhichOneof("type") == "listType" else value_type.tensorType
    )
    name = proto.MIL_pb2.DataType.Name(tensor.dataType)
    return TensorType(
        _PROTO_DTYPES.get(name, name.lower()),
        tuple(each.constant.size if each.HasField("constant") else None for each in tensor.dimensions),
    )


class _Reader:
    """Makes operations of what a specification says, with its weight files, each opened once."""

    def __init__(self, proto: Any, spec_path: Path) -> None:
        self._proto = proto
        self._path = spec_path
        self._files: dict[str, WeightFile] = {}

    def operations(self, block: Any) -> tuple[Operation, ...]:
        return tuple(self._operation(operation) for operation in block.operations)

    def _operation(self, operation: Any) -> Operation:
        # Up to iOS 17 the arguments of compressed constants are attributes, later they are inputs.
        name = operation.outputs[0].name if operation.outputs else operation.type
        arguments: dict[str, tuple[str | Value, ...]] = {
            key: (self._value(value, name),) for key, value in operation.attributes.items() if key != "name"
        }
        for key, argument in operation.inputs.items():
            arguments[key] = tuple(
                each.name if each.WhichOneof("binding") == "name" else self._value(each.value, name)
                for each in argument.arguments
            )
        return Operation(
            type=operation.type,
            arguments=arguments,
            outputs=tuple(Output(each.name, _tensor_type(each.type, self._proto)) for each in operation.outputs),
            blocks=tuple(self.operations(block) for block in operation.blocks),
        )

    def _value(self, value: Any, name: str) -> Value:
        kind = _tensor_type(value.type, self._proto)
        if kind.dtype not in ("string", *DTYPES):
            raise UserError(f"{self._path}: {name} is of the type {kind.dtype}, which is not known", REMAKE)
        count = prod(size or 0 for size in kind.shape)
        if value.WhichOneof("value") == "blobFileValue":
            return Value(
                kind, self._file(value.blobFileValue.fileName).blob(value.blobFileValue.offset, kind.dtype, count)
            )
        tensor = value.immediateValue.tensor
        if kind.dtype == "string":
            texts = tensor.strings.values or [
                each.immediateValue.tensor.strings.values[0] for each in value.immediateValue.list.values
            ]
            return Value(kind, ", ".join(texts))
        if tensor.WhichOneof("value") == "bytes":
            data = np.frombuffer(tensor.bytes.values, dtype=np.uint8)
            if 8 * len(data) - packed_bits(kind.dtype, count) not in range(8):
                raise UserError(
                    f"{self._path}: constant {name} has {len(data)} bytes for {count} values of {kind.dtype}", REMAKE
                )
            return Value(kind, unpack(data, kind.dtype, count))
        field = tensor.WhichOneof("value")
        values = getattr(tensor, field).values if field in _IMMEDIATE_FIELDS else ()
        if len(values) != count:
            raise UserError(
                f"{self._path}: constant {name} has {len(values)} values for the shape {kind.shape}", REMAKE
            )
        return Value(kind, np.array(values, dtype=numpy_dtype(kind.dtype)))

    def _file(self, name: str) -> WeightFile:
        if name not in self._files:
            folder = self._path.parent
            self._files[name] = WeightFile(_inside(folder / name.removeprefix(_MODEL_PATH), folder))
        return self._files[name]
