"""A converted ML program in memory, and its way to disk: a folder of a specification, a weight file and a list of both.

The specification is protobuf, and the weight file is written with coremltools' own storage; what this module does is to
write the same bytes for the same program: no random identifiers, no dates, entries in one order.
"""

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_distil.checkpoints import sha256_file
from edge_distil.runtimes.mil import Program

_DATA = Path("Data/com.apple.CoreML")
_WEIGHTS = "weights/weight.bin"
_MODEL_PATH = "@model_path"
_IN_FILE = 10  # so many values and more lie in the weight file, fewer in the program itself, as coremltools has it


@dataclass(frozen=True, slots=True)
class Packed:
    """Integers of fewer than 8 bits, one to a byte [..]; they are stored without the bits between."""

    values: np.ndarray
    dtype: str  # "INT4", "UINT4" or "UINT6"


Stored = np.ndarray | np.generic | Packed


@dataclass(frozen=True, slots=True)
class Converted:
    """A model's specification, and the arrays that its large constants hold, by the constants' names.

    `spec` is a Core ML `Model` message, whose constants say nothing of a place in a file yet.
    """

    spec: Any
    weights: Mapping[str, np.ndarray]

    @property
    def block(self) -> Any:
        """The operations, a `Block` message."""
        return block_of(self.spec)


def block_of(spec: Any) -> Any:
    """The only block of operations of a specification."""
    main = spec.mlProgram.functions["main"]
    return main.block_specializations[main.opset]


def read_converted(path: Path) -> Converted:
    """The program of a package that coremltools has just written, with its weights in memory."""
    from coremltools import proto
    from coremltools.libmilstoragepython import _BlobStorageReader

    spec = proto.Model_pb2.Model()
    spec.ParseFromString((path / _DATA / "model.mlmodel").read_bytes())
    reader = _BlobStorageReader(str(path / _DATA / _WEIGHTS))
    kinds: dict[int, Callable[[int], np.ndarray]] = {
        proto.MIL_pb2.FLOAT16: lambda offset: np.array(reader.read_fp16_data(offset), np.uint16).view(np.float16),
        proto.MIL_pb2.FLOAT32: lambda offset: np.array(reader.read_float_data(offset), np.float32),
        proto.MIL_pb2.INT32: lambda offset: np.array(reader.read_int32_data(offset), np.int32),
    }
    weights = {}
    for operation in block_of(spec).operations:
        value = operation.attributes["val"] if operation.type == "const" else None
        if value is not None and value.WhichOneof("value") == "blobFileValue":
            shape = [dimension.constant.size for dimension in value.type.tensorType.dimensions]
            array = kinds[value.type.tensorType.dataType](value.blobFileValue.offset)
            weights[operation.outputs[0].name] = array.reshape(shape)
    return Converted(spec, weights)


@dataclass(frozen=True, slots=True)
class Written:
    """What a package is to hold, as checksums: of its specification, and of each array in its weight file."""

    specification: str
    arrays: Counter[str]


def found_in(program: Program) -> Written:
    """What a package that was read back from disk holds."""
    specification = sha256_file(program.path / _DATA / "model.mlmodel")
    return Written(specification, Counter(_checksum(blob.values()) for blob in program.blobs))


def _checksum(values: np.ndarray) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()


class WeightFile:
    """The weight file of a package, which grows by a constant at a time. `arrays` has the checksum of each."""

    def __init__(self, path: Path) -> None:
        from coremltools import proto
        from coremltools.libmilstoragepython import _BlobStorageWriter

        self.arrays: Counter[str] = Counter()
        self._types = proto.MIL_pb2
        path.parent.mkdir(parents=True)
        self._writer = _BlobStorageWriter(str(path))

    def value(self, stored: Stored) -> Any:
        """The `Value` message of an array, which is in the file from then on unless it is short."""
        values = stored.values if isinstance(stored, Packed) else np.asarray(stored)
        dtype = stored.dtype if isinstance(stored, Packed) else _type_name(values)
        value = tensor_value(self._types, values.shape, dtype)
        if values.size >= _IN_FILE and values.dtype != np.uint32:  # a shape is not a weight
            value.blobFileValue.fileName = f"{_MODEL_PATH}/{_WEIGHTS}"
            value.blobFileValue.offset = self._write(np.ascontiguousarray(values).ravel(), dtype)
        else:
            fill(value, values, dtype)
        return value

    def _write(self, values: np.ndarray, dtype: str) -> int:
        writer = self._writer
        self.arrays[_checksum(values)] += 1
        if dtype == "FLOAT16":
            return int(writer.write_fp16_data(values.view(np.uint16)))
        name = {"FLOAT32": "float"}.get(dtype, dtype.lower())
        return int(getattr(writer, f"write_{name}_data")(values))


def _type_name(values: np.ndarray) -> str:
    return values.dtype.name.upper()


def tensor_value(types: Any, shape: Iterable[int], dtype: str) -> Any:
    """An empty `Value` message of a tensor of Core ML's type `dtype`. `types` is coremltools' `MIL_pb2`."""
    value = types.Value()
    tensor = value.type.tensorType
    tensor.dataType = types.DataType.Value(dtype)
    for size in shape:
        tensor.dimensions.add().constant.size = size
    tensor.rank = len(tensor.dimensions)
    return value


def text_value(types: Any, text: str) -> Any:
    """The `Value` message of a string."""
    value = tensor_value(types, (), "STRING")
    value.immediateValue.tensor.strings.values.append(text)
    return value


def fill(value: Any, values: np.ndarray, dtype: str) -> None:
    """Put a few values into a `Value` message."""
    tensor = value.immediateValue.tensor
    if dtype == "FLOAT32":
        tensor.floats.values.extend(values.ravel().tolist())
    elif dtype == "INT32":
        tensor.ints.values.extend(values.ravel().tolist())
    elif dtype in ("INT4", "UINT4", "UINT6"):
        bits = int(dtype[-1])
        unpacked = (values.ravel().astype(np.uint8)[:, None] >> np.arange(bits) & 1).astype(np.uint8)
        tensor.bytes.values = np.packbits(unpacked, bitorder="little").tobytes()
    else:
        tensor.bytes.values = values.astype(values.dtype.newbyteorder("<")).tobytes()


def write_program(spec: Any, path: Path) -> str:
    """Write the specification and the list of files beside a weight file that is there already.

    The identifiers in the list are made from what the files hold. Returns the checksum of the specification, of what
    was to be written and not of what is on disk.
    """
    serialized = spec.SerializeToString(deterministic=True)
    (path / _DATA / "model.mlmodel").write_bytes(serialized)
    entries = {}
    for name, place, file, description in (
        ("model.mlmodel", "model.mlmodel", "model.mlmodel", "CoreML Model Specification"),
        ("weights", "weights", _WEIGHTS, "CoreML Model Weights"),
    ):
        digest = sha256_file(path / _DATA / file)
        entries[str(uuid.uuid5(uuid.NAMESPACE_OID, f"{place} {digest}"))] = {
            "author": "com.apple.CoreML",
            "description": description,
            "name": name,
            "path": f"{_DATA.name}/{place}",
        }
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": entries,
        "rootModelIdentifier": next(iter(entries)),
    }
    (path / "Manifest.json").write_text(json.dumps(manifest, indent=4) + "\n", encoding="utf-8")
    return hashlib.sha256(serialized).hexdigest()


def weight_file(path: Path) -> WeightFile:
    """The weight file of a package that is to be written at `path`."""
    return WeightFile(path / _DATA / _WEIGHTS)
