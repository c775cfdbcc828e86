"""Weights in few bits: int8 with a scale for each output channel or row, int4 in blocks with a scale each.

All are symmetric, value = code × scale. The scale of a channel, row or block is the one, of several that clip its
outliers more or less, with the least squared error: a single large weight would otherwise coarsen all its neighbours.

Shapes: K input channels, N output channels; R rows, H columns of a table.
"""

from typing import Any

import numpy as np

# Shares of the largest magnitude that a scale is tried for; below these, clipping costs more than it gains.
_CLIPPING = np.linspace(1.0, 0.7, 13)
# Quantised so many groups at a time, to bound memory.
_AT_ONCE = 1 << 22

BLOCK = 32  # weights that share a scale in int4; the smallest that every kernel takes, and the most exact


def _codes_and_scales(
    groups_GE: np.ndarray, low: int, high: int, scale_type: type[np.floating[Any]] = np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """int8 codes [G, E] from `low` to `high`, and scales [G], of groups of weights with a scale each."""
    codes_GE = np.empty(groups_GE.shape, np.int8)
    scales_G = np.empty(len(groups_GE), scale_type)
    step = max(1, _AT_ONCE // groups_GE.shape[1])
    for first in range(0, len(groups_GE), step):
        part = slice(first, first + step)
        codes_GE[part], scales_G[part] = _best(groups_GE[part].astype(np.float32), low, high, scale_type)
    return codes_GE, scales_G


def _best(
    groups_GE: np.ndarray, low: int, high: int, scale_type: type[np.floating[Any]]
) -> tuple[np.ndarray, np.ndarray]:
    # Signed by its largest weight, so that the code range's longer, negative end holds it where there is one.
    extreme_G = np.take_along_axis(groups_GE, np.abs(groups_GE).argmax(axis=1)[:, None], axis=1)[:, 0]
    full_G = extreme_G / low if -low > high else np.abs(extreme_G) / high
    # Groups of zeros, or of weights so small that their scale is none in its type, become zeros.
    full_G = np.where(full_G.astype(scale_type) == 0, np.float32(1), full_G)
    best_codes, best_scales = np.zeros(groups_GE.shape, np.int8), full_G.astype(scale_type)
    best_errors = np.full(len(groups_GE), np.inf, np.float32)
    for share in _CLIPPING:
        rounded_G = (full_G * np.float32(share)).astype(scale_type)
        scales_G = rounded_G.astype(np.float32)
        codes_GE = np.clip(np.rint(groups_GE / scales_G[:, None]), low, high)
        errors_G = np.square(codes_GE * scales_G[:, None] - groups_GE).sum(axis=1)
        better_G = errors_G < best_errors
        best_errors = np.where(better_G, errors_G, best_errors)
        best_scales = np.where(better_G, rounded_G, best_scales)
        best_codes[better_G] = codes_GE[better_G].astype(np.int8)
    return best_codes, best_scales


def int8_channels(weight_KN: np.ndarray, bits: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """int8 codes [K, N] and fp32 scales [N] of a matrix, one scale for each output channel.

    `bits` 7 keeps the codes within ±63, so that no sum of two products with an unsigned byte leaves 16 bits: x86
    processors without VNNI add them so, and saturate.
    """
    high = 2 ** (bits - 1) - 1
    codes_NK, scales_N = _codes_and_scales(weight_KN.T, -high, high)
    return np.ascontiguousarray(codes_NK.T), scales_N


def symmetric_rows(
    table_RH: np.ndarray, bits: int = 8, scale_type: type[np.floating[Any]] = np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """int8 codes [R, H], of a magnitude below 2 ** (bits - 1), and scales [R] of a table, one for each row."""
    high = 2 ** (bits - 1) - 1
    return _codes_and_scales(table_RH, -high, high, scale_type)


def int8_rows(table_RH: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 codes [R, H] and fp32 scales [R] of a table, one scale for each row."""
    return symmetric_rows(table_RH)


def int4_blocks(weight_RH: np.ndarray, block: int = BLOCK) -> tuple[np.ndarray, np.ndarray]:
    """uint8 codes [R, ⌈H / block⌉, block / 2], two to a byte, and fp16 scales [R, ⌈H / block⌉], along each row.

    A code c stands for (c - 8) × scale; the even weight of a pair is in the low half of its byte. The last block of a
    row is filled up with zeros.
    """
    rows, width = weight_RH.shape
    blocks = -(-width // block)
    filled = np.pad(weight_RH, ((0, 0), (0, blocks * block - width)))
    codes, scales = _codes_and_scales(filled.reshape(rows * blocks, block), -8, 7, np.float16)
    unsigned = (codes + 8).astype(np.uint8).reshape(rows, blocks, block // 2, 2)
    return unsigned[..., 0] | unsigned[..., 1] << 4, scales.reshape(rows, blocks)


def channel_scales(scales_NK: np.ndarray, bits: int = 8) -> np.ndarray:
    """fp32 scales [N] of int8 channels that hold the weights of `int4_blocks`, whose scales are `scales_NK`.

    Eight times the largest block's scale is the largest weight that a channel can have.
    """
    return (8 * np.abs(scales_NK.astype(np.float32)).max(axis=1) / (2 ** (bits - 1) - 1)).astype(np.float32)
