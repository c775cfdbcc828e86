"""The weight file of a package: blobs behind entries that say what they are, decoded when they are asked for.

The layout is that of MIL blob storage, version 2, all little-endian. A header of 64 bytes holds the number of blobs and
the version. Before each blob stands an entry of 64 bytes: a mark, the type, the size in bytes, where the data begins,
and, for types of less than a byte, how many bits at the end are padding. Such values are packed from the least
significant bit of the first byte upwards, and may lie across two bytes.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_distil.errors import UserError

REMAKE = "the package was changed or cut short: export the model again"

_HEADER = struct.Struct("<II")
_VERSION = 2
_ENTRY = struct.Struct("<IIQQQ")
_ENTRY_MARK = 0xDEADBEEF
_BLOB_DTYPES = {
    1: "fp16",
    2: "fp32",
    3: "uint8",
    4: "int8",
    6: "int16",
    7: "uint16",
    8: "int4",
    9: "uint1",
    10: "uint2",
    11: "uint4",
    12: "uint3",
    13: "uint6",
    14: "int32",
    15: "uint32",
}
# In how many bits a value lies in the file, and as what it is given.
_SUB_BYTE: dict[str, tuple[int, type[np.generic]]] = {
    "uint1": (1, np.uint8),
    "uint2": (2, np.uint8),
    "uint3": (3, np.uint8),
    "uint4": (4, np.uint8),
    "uint6": (6, np.uint8),
    "int4": (4, np.int8),
}
_NUMPY: dict[str, type[np.generic]] = {
    "fp16": np.float16,
    "fp32": np.float32,
    "fp64": np.float64,
    "bool": np.bool_,
    "int8": np.int8,
    "uint8": np.uint8,
    "int16": np.int16,
    "uint16": np.uint16,
    "int32": np.int32,
    "uint32": np.uint32,
    "int64": np.int64,
    "uint64": np.uint64,
}
DTYPES = (*_NUMPY, *_SUB_BYTE)


def numpy_dtype(dtype: str) -> type[np.generic]:
    """The NumPy type in which values of a MIL type are given: a whole byte for those of a few bits."""
    return _SUB_BYTE[dtype][1] if dtype in _SUB_BYTE else _NUMPY[dtype]


def packed_bits(dtype: str, count: int) -> int:
    """How many bits so many values of a type take."""
    return count * (_SUB_BYTE[dtype][0] if dtype in _SUB_BYTE else 8 * np.dtype(_NUMPY[dtype]).itemsize)


def unpack(data: np.ndarray, dtype: str, count: int) -> np.ndarray:
    """The values, flat, in the bytes `data` (uint8). Whole bytes are a view of it."""
    if dtype not in _SUB_BYTE:
        return data.view(_NUMPY[dtype])
    width, kind = _SUB_BYTE[dtype]
    bits_NW = np.unpackbits(data, bitorder="little")[: width * count].reshape(count, width)
    values_N = bits_NW @ (1 << np.arange(width, dtype=np.uint8))
    if kind is np.int8:  # the highest bit counts negative
        values_N = values_N.astype(np.int16) - (bits_NW[:, -1].astype(np.int16) << width)
    return values_N.astype(kind)


@dataclass(frozen=True, slots=True)
class Blob:
    """Where `count` values of a type lie in the mapped weight file: `data`, uint8."""

    dtype: str
    count: int
    data: np.ndarray

    def values(self) -> np.ndarray:
        """The values, flat, decoded anew at every call."""
        return unpack(self.data, self.dtype, self.count)


class WeightFile:
    """A weight file, mapped into memory. Raises `UserError` when it is missing or not of a version that is known."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise UserError(f"{path}: is missing", REMAKE)
        if path.stat().st_size < _HEADER.size:
            raise UserError(f"{path}: ends at byte {path.stat().st_size}, inside its header", REMAKE)
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r")

    def blob(self, offset: int, dtype: str, count: int) -> Blob:
        """The blob whose entry stands at `offset`. Raises `UserError` unless it has so many values of that type."""
        entry = self._bytes[offset : offset + _ENTRY.size].tobytes()
        if len(entry) < _ENTRY.size:
            raise UserError(f"{self.path}: ends at byte {len(self._bytes)}, before the weights at {offset}", REMAKE)
        mark, kind, size, start, padding = _ENTRY.unpack(entry)
        if mark != _ENTRY_MARK or kind not in _BLOB_DTYPES:
            raise UserError(f"{self.path}: has no weights at byte {offset}", REMAKE)
        # After the entries, so that a file of zeros is told by what it lacks and not by its version.
        version = _HEADER.unpack(self._bytes[: _HEADER.size].tobytes())[1]
        if version != _VERSION:
            raise UserError(f"{self.path}: is of storage version {version}, only {_VERSION} is known", REMAKE)
        if start + size > len(self._bytes):
            raise UserError(f"{self.path}: ends at byte {len(self._bytes)}, inside the weights at {offset}", REMAKE)
        found = _BLOB_DTYPES[kind]
        bits = 8 * size - (padding if found in _SUB_BYTE else 0)
        if found != dtype or bits != packed_bits(dtype, count):
            raise UserError(
                f"{self.path}: the weights at byte {offset} are {size} bytes of {found}, "
                f"expected are {count} values of {dtype}",
                REMAKE,
            )
        return Blob(dtype, count, self._bytes[start : start + size])
