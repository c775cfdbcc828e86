"""Look-up tables for weights: the few values that stand for all, found by k-means in one dimension.

fp16 has some 63,000 finite values, so a tensor of any size is a histogram over them, and a step of Lloyd's algorithm is
a search of the k boundaries in cumulated sums: it costs next to nothing, and none is random. It starts from the best
spread of values for k that goes to infinity, their density to the power of one third (Panter and Dite, 1951). What it
then gets stuck in is left by taking entries from where they do little to where values are far from any.

Shapes: U different values in a group of weights, P entries of a table.
"""

import numpy as np

_STEPS = 50  # of Lloyd's algorithm at a time
_ROUNDS = 30  # of moving entries
_GAIN = 0.75  # of the squared error of evenly spread values, from giving them a second entry
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


class _Histogram:
    """Different values in order, with cumulated sums from which the cells of any table are read off."""

    def __init__(self, values_U: np.ndarray, counts_U: np.ndarray) -> None:
        self._values_U = values_U
        self._sums = np.stack([np.cumsum([0, *(counts_U * values_U**power)]) for power in range(3)])

    def cells(self, table_P: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How many values are nearest to each entry, their sum, and the sum of their squares, [P] each."""
        bounds = np.searchsorted(self._values_U, (table_P[1:] + table_P[:-1]) / 2)
        sums = self._sums[:, [0, *bounds, len(self._values_U)]]
        members_P, summed_P, squared_P = np.diff(sums, axis=1)
        return members_P, summed_P, squared_P

    def settled(self, table_P: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The table after Lloyd's steps, with the members and the squared errors of its cells."""
        for _ in range(_STEPS):
            members_P, summed_P, _ = self.cells(table_P)
            # An entry that nothing is nearest to stays where it is.
            moved_P = np.where(members_P > 0, summed_P / np.maximum(members_P, 1), table_P)
            if np.array_equal(moved_P, table_P):
                break
            table_P = moved_P
        members_P, summed_P, squared_P = self.cells(table_P)
        errors_P = squared_P - 2 * table_P * summed_P + members_P * table_P**2
        return table_P, members_P, np.maximum(errors_P, 0)


def _moved(table_P: np.ndarray, members_P: np.ndarray, errors_P: np.ndarray) -> np.ndarray | None:
    """The table with entries taken from neighbours that need but one, for cells that gain more by a second.

    None where no move is worth it.
    """
    pairs = members_P[1:] * members_P[:-1] / np.maximum(members_P[1:] + members_P[:-1], 1) * np.diff(table_P) ** 2
    moved_P = table_P.copy()
    touched: set[int] = set()
    cheapest = iter(np.argsort(pairs, kind="stable").tolist())
    for split in np.argsort(-errors_P, kind="stable").tolist():
        merged = next(
            (pair for pair in cheapest if not touched & {pair, pair + 1} and split not in (pair, pair + 1)), -1
        )
        if merged < 0 or pairs[merged] >= _GAIN * errors_P[split]:
            break
        if split in touched:
            continue
        touched |= {split, merged, merged + 1}
        total = max(members_P[merged] + members_P[merged + 1], 1)
        weights = members_P[merged : merged + 2] / total
        moved_P[merged] = weights @ table_P[merged : merged + 2]
        apart = np.sqrt(errors_P[split] / members_P[split])
        moved_P[split], moved_P[merged + 1] = table_P[split] - apart, table_P[split] + apart
    return np.sort(moved_P) if touched else None


def palette(values: np.ndarray, entries: int) -> np.ndarray:
    """The table [P] of fp16 values, in order, with nearly the least squared error to fp16 weights of any shape.

    Fewer different values than entries are all in it, and the rest repeats the last.
    """
    values_U, counts_U = _ordered(values)
    if len(values_U) <= entries:
        return np.pad(values_U, (0, entries - len(values_U)), mode="edge").astype(np.float16)
    histogram = _Histogram(values_U, counts_U)
    found = histogram.settled(_start(values_U, counts_U, entries))
    for _ in range(_ROUNDS):
        moved_P = _moved(*found)
        if moved_P is None:
            break
        better = histogram.settled(moved_P)
        if better[2].sum() >= found[2].sum():
            break
        found = better
    return found[0].astype(np.float16)


def nearest(values: np.ndarray, table_P: np.ndarray) -> np.ndarray:
    """For each fp16 weight, the uint8 index of the nearest entry of an ordered table; of two as near, the lower."""
    wide_P = table_P.astype(np.float64)
    middles = (wide_P[1:] + wide_P[:-1]) / 2
    # Once for each of fp16's values, not for each weight.
    index_of = np.searchsorted(middles, np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float64))
    return index_of.astype(np.uint8)[values.view(np.uint16)]
