"""Look-up tables for weights: the few values that stand for all, found by k-means in one dimension.

fp16 has some 63,000 finite values, so a tensor of any size is a histogram over them, and a step of Lloyd's algorithm is
a search of the k boundaries in cumulated sums: it costs next to nothing, and none is random. It starts from the best
spread of values for k that goes to infinity, their density to the power of one third (Panter and Dite, 1951).

Shapes: U different values in a group of weights, P entries of a table.
"""

import numpy as np

_STEPS = 200
_BINS = 1024  # of the density that the start is taken from


def _ordered(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different values [U] of fp16 weights, float64, in order, and how often [U] each stands there."""
    counts = np.bincount(values.ravel().view(np.uint16), minlength=1 << 16)
    found = np.flatnonzero(counts)
    values_U = found.astype(np.uint16).view(np.float16).astype(np.float64)
    order = np.argsort(values_U, kind="stable")
    return values_U[order], counts[found][order]


def _start(values_U: np.ndarray, counts_U: np.ndarray, entries: int) -> np.ndarray:
    density_B, edges = np.histogram(values_U, _BINS, weights=counts_U)
    shares = np.concatenate([[0], np.cumsum(np.cbrt(density_B))])
    return np.interp((np.arange(entries) + 0.5) / entries * shares[-1], shares, edges)


def palette(values: np.ndarray, entries: int) -> np.ndarray:
    """The table [P] of fp16 values, in order, with a squared error to fp16 weights that no step of k-means lessens.

    Fewer different values than entries are all in it, and the rest repeats the last.
    """
    values_U, counts_U = _ordered(values)
    if len(values_U) <= entries:
        return np.pad(values_U, (0, entries - len(values_U)), mode="edge").astype(np.float16)
    counted_U = np.concatenate([[0], np.cumsum(counts_U)])
    summed_U = np.concatenate([[0], np.cumsum(counts_U * values_U)])
    table_P = _start(values_U, counts_U, entries)
    for _ in range(_STEPS):
        bounds = np.searchsorted(values_U, (table_P[1:] + table_P[:-1]) / 2)
        bounds = np.concatenate([[0], bounds, [len(values_U)]])
        members_P = np.diff(counted_U[bounds])
        # An entry that nothing is nearest to stays where it is.
        moved_P = np.where(members_P > 0, np.diff(summed_U[bounds]) / np.maximum(members_P, 1), table_P)
        if np.array_equal(moved_P, table_P):
            break
        table_P = moved_P
    return np.sort(table_P).astype(np.float16)


def nearest(values: np.ndarray, table_P: np.ndarray) -> np.ndarray:
    """For each fp16 weight, the uint8 index of the nearest entry of an ordered table; of two as near, the lower."""
    wide_P = table_P.astype(np.float64)
    middles = (wide_P[1:] + wide_P[:-1]) / 2
    # Once for each of fp16's values, not for each weight.
    index_of = np.searchsorted(middles, np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float64))
    return index_of.astype(np.uint8)[values.view(np.uint16)]
