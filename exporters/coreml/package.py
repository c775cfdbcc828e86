"""Reading a saved Core ML package back from disk, on any machine: what it takes, what it gives, and every constant.

Nothing is run. An `.mlpackage` holds a specification (protobuf) and a weight file; each is read as it lies there, so
that what is checked is what will be shipped.
"""

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_distil.errors import UserError

_DATA = Path("Data/com.apple.CoreML")
_REMAKE = "the package was changed or cut short: export the model again"

# The weight file, as coremltools' MILBlob storage writes it: before each blob an entry of a mark, the type, the size in
# bytes and the position of the data, all little-endian.
_ENTRY = struct.Struct("<IIQQ")
_ENTRY_MARK = 0xDEADBEEF
_BLOB_TYPES: dict[int, type[np.generic]] = {1: np.float16, 2: np.float32, 3: np.uint8, 4: np.int8}

# Operations that would make the run depend on values, or keep state. None belongs in an encoder.
CONTROL_FLOW = frozenset({"cond", "while_loop", "make_list", "list_write", "list_read", "read_state", "write_state"})


@dataclass(frozen=True, slots=True)
class Feature:
    """One input or output: its shape, and its element type under Core ML's name ("INT32", "FLOAT32")."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Constant:
    """One floating-point constant. `largest` is its greatest magnitude, NaN or inf where one of its values is."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    largest: float


@dataclass(frozen=True, slots=True)
class Package:
    """What a package holds. `weight_bytes` counts the values in its weight file, without headers and padding."""

    inputs: dict[str, Feature]
    outputs: dict[str, Feature]
    operations: Counter[str]
    constants: list[Constant]
    weight_bytes: int
    metadata: dict[str, str]


def read_package(path: Path) -> Package:
    """Read an `.mlpackage` of one ML program.

    Raises `UserError` when a file is missing, cut short, or not what coremltools writes.
    """
    from exporters.coreml.conversion import import_coremltools

    proto = import_coremltools().proto
    spec_path, weights_path = path / _DATA / "model.mlmodel", path / _DATA / "weights" / "weight.bin"
    for file in (spec_path, weights_path):
        if not file.is_file():
            raise UserError(f"{file}: is missing", _REMAKE)
    spec = proto.Model_pb2.Model()
    try:
        spec.ParseFromString(spec_path.read_bytes())
    except Exception:  # protobuf's two implementations raise different kinds
        raise UserError(f"{spec_path}: is not a Core ML specification", _REMAKE) from None
    if "main" not in spec.mlProgram.functions:
        raise UserError(f"{spec_path}: holds no ML program", "give a package that edge-distil export wrote")
    main = spec.mlProgram.functions["main"]

    type_name = proto.MIL_pb2.DataType.Name
    weights = np.memmap(weights_path, dtype=np.uint8, mode="r")
    operations: Counter[str] = Counter()
    constants: list[Constant] = []
    blobs: dict[int, int] = {}  # constants may share a blob: offset → bytes
    for operation in _operations(main.block_specializations[main.opset]):
        operations[operation.type] += 1
        value = operation.attributes["val"] if operation.type == "const" else None
        if value is None or not type_name(value.type.tensorType.dataType).startswith("FLOAT"):
            continue
        name, tensor_type = operation.outputs[0].name, value.type.tensorType
        shape = tuple(dimension.constant.size for dimension in tensor_type.dimensions)
        if value.WhichOneof("value") == "blobFileValue":
            array = _blob(weights, value.blobFileValue.offset, weights_path)
            blobs[value.blobFileValue.offset] = array.nbytes
        elif tensor_type.dataType == proto.MIL_pb2.FLOAT16:
            array = np.frombuffer(value.immediateValue.tensor.bytes.values, dtype=np.float16)
        else:
            array = np.array(value.immediateValue.tensor.floats.values)
        if array.size != np.prod(shape):
            raise UserError(f"{spec_path}: constant {name} has {array.size} values for the shape {shape}", _REMAKE)
        constants.append(Constant(name, type_name(tensor_type.dataType), shape, float(np.abs(array).max())))

    def features(described: Any) -> dict[str, Feature]:
        array_type = proto.FeatureTypes_pb2.ArrayFeatureType.ArrayDataType
        types = {feature.name: feature.type.multiArrayType for feature in described}
        return {name: Feature(tuple(of.shape), array_type.Name(of.dataType)) for name, of in types.items()}

    return Package(
        inputs=features(spec.description.input),
        outputs=features(spec.description.output),
        operations=operations,
        constants=constants,
        weight_bytes=sum(blobs.values()),
        metadata=dict(spec.description.metadata.userDefined),
    )


def _operations(block: Any) -> Iterator[Any]:
    """Every operation of a block and of the blocks nested in it."""
    for operation in block.operations:
        yield operation
        for nested in operation.blocks:
            yield from _operations(nested)


def _blob(weights: np.ndarray, offset: int, path: Path) -> np.ndarray:
    """The values of one blob, flat. `offset` is where its entry stands in the weight file."""
    entry = weights[offset : offset + _ENTRY.size].tobytes()
    if len(entry) < _ENTRY.size:
        raise UserError(f"{path}: ends at byte {len(weights)}, before the weights at {offset}", _REMAKE)
    mark, kind, size, start = _ENTRY.unpack(entry)
    if mark != _ENTRY_MARK or kind not in _BLOB_TYPES:
        raise UserError(f"{path}: has no weights at byte {offset}", _REMAKE)
    if start + size > len(weights):
        raise UserError(f"{path}: ends at byte {len(weights)}, inside the weights at {offset}", _REMAKE)
    return weights[start : start + size].view(_BLOB_TYPES[kind])
