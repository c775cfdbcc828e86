"""Constants that are stored in fewer bits: what they decompress to, before a program runs.

The operations up to iOS 17 and those from iOS 18 on share names and not arguments: the older ones get bits packed into
bytes, and a shape; the newer ones get whole values.
"""

from math import prod
from typing import Literal

import torch

from edge_distil.runtimes.mil.elementwise import along
from edge_distil.runtimes.mil.registry import operation


@operation()
def constexpr_affine_dequantize(
    quantized_data: torch.Tensor, zero_point: torch.Tensor, scale: torch.Tensor, axis: int
) -> torch.Tensor:
    """scale * (quantized_data - zero_point); vectors lie along `axis`."""
    rank = quantized_data.ndim
    return (quantized_data.float() - along(axis, zero_point, rank)) * along(axis, scale, rank)


@operation()
def constexpr_cast(source_val: torch.Tensor, output_dtype: Literal["fp32"]) -> torch.Tensor:
    return source_val


def _unpacked(packed: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """So many values of a few bits each, packed from the least significant bit of the first byte upwards."""
    bits_N = (packed[:, None] >> torch.arange(8, dtype=torch.uint8) & 1).flatten()[: bits * count]
    return (bits_N.reshape(count, bits).int() << torch.arange(bits, dtype=torch.int32)).sum(1)


@operation()
def constexpr_lut_to_dense(
    indices: torch.Tensor,
    lut: torch.Tensor,
    opset: int,
    shape: list[int] | None = None,
    vector_axis: int | None = None,
) -> torch.Tensor:
    """The entries of a table that the indices name.

    From iOS 18 on there may be a table for each block of the indices, [blocks of each dimension, entries, values of an
    entry], and the values of an entry lie along `vector_axis`.
    """
    if opset < 18:
        count = prod(shape or ())
        return lut[_unpacked(indices, len(lut).bit_length() - 1, count)].reshape(shape or ())
    blocks, (entries, width) = lut.shape[:-2], lut.shape[-2:]
    table = torch.zeros((), dtype=torch.int64)  # which table counts for each index
    for size, number in zip(indices.shape, blocks, strict=True):
        table = table[..., None] * number + torch.arange(size) // (size // number)
    found = lut.reshape(-1, entries, width)[table, indices.long()]
    if width == 1:
        return found.squeeze(-1)
    axis = (vector_axis or 0) % indices.ndim
    return found.movedim(-1, axis + 1).flatten(axis, axis + 1)


def _scattered(nonzero_data: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    dense = torch.zeros(mask.shape, dtype=nonzero_data.dtype)
    dense[mask != 0] = nonzero_data
    return dense


@operation()
def constexpr_sparse_to_dense(
    nonzero_data: torch.Tensor, mask: torch.Tensor, opset: int, shape: list[int] | None = None
) -> torch.Tensor:
    """The data where the mask is 1, in order, and 0 elsewhere."""
    if opset < 18:
        mask = _unpacked(mask, 1, prod(shape or ())).reshape(shape or ())
    return _scattered(nonzero_data, mask)


@operation()
def constexpr_lut_to_sparse(
    indices_mask: torch.Tensor,
    indices_nonzero_data: torch.Tensor,
    lut: torch.Tensor,
    opset: int,
    vector_axis: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mask of the entries, as wide as they are, and the entries where it is 1."""
    dense = constexpr_lut_to_dense(_scattered(indices_nonzero_data, indices_mask), lut, opset, vector_axis=vector_axis)
    mask = indices_mask
    if vector_axis is not None:
        mask = mask.repeat_interleave(lut.shape[-1], vector_axis)
    return mask, dense[mask != 0]


@operation()
def constexpr_blockwise_shift_scale(
    data: torch.Tensor, scale: torch.Tensor, offset: torch.Tensor | None = None
) -> torch.Tensor:
    """scale * (data - offset), with a scale and an offset for each block of the data."""

    def spread(values: torch.Tensor) -> torch.Tensor:
        for axis, (size, number) in enumerate(zip(data.shape, values.shape, strict=True)):
            if 1 < number < size:
                values = values.repeat_interleave(size // number, axis)
        return values

    steps = data.float()
    if offset is not None:
        steps = steps - spread(offset)
    return steps * spread(scale)


@operation()
def constexpr_sparse_blockwise_shift_scale(
    data_mask: torch.Tensor, nonzero_data: torch.Tensor, scale: torch.Tensor, offset: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mask, and the data where it is 1, each with the scale and the offset of its place."""
    dense = constexpr_blockwise_shift_scale(_scattered(nonzero_data, data_mask), scale, offset)
    return data_mask, dense[data_mask != 0]
