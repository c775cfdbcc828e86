"""Packing documents into blocks that are full: long documents are cut, short ones share a block.

A block of L tokens is a row of pieces, each `[CLS] tokens [SEP]` of one document, and at its end, now and then, a few
tokens of padding. Which tokens belong together follows from the pieces' lengths alone.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from edge_distil.tokenization import SpecialTokens

# A shorter piece of a longer document has too little context to teach anything: better a few tokens of padding.
_SHORTEST_PIECE = 16


class Block(NamedTuple):
    """One block: `input_ids` [L] and the `lengths` [P] of its pieces, [CLS] and [SEP] included, integers both."""

    input_ids: np.ndarray
    lengths: np.ndarray


def position_ids(lengths: np.ndarray, length: int) -> np.ndarray:
    """Position of every token of a block within its piece, int64 [`length`]; 0 for padding."""
    return _spread(np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths), length, 0)


def piece_ids(lengths: np.ndarray, length: int) -> np.ndarray:
    """Which piece every token of a block belongs to, int64 [`length`]: 0, 1, 2 …, and −1 for padding."""
    return _spread(np.repeat(np.arange(len(lengths)), lengths), length, -1)


def _spread(values: np.ndarray, length: int, padding: int) -> np.ndarray:
    spread = np.full(length, padding, dtype=np.int64)
    spread[: len(values)] = values
    return spread


def packed(documents: Iterable[np.ndarray], special: SpecialTokens, length: int) -> Iterator[Block]:
    """Blocks of exactly `length` tokens (int32) from documents of token ids [N], every token once and in order.

    A document is cut where its block ends. When that would leave a piece of less than 16 tokens (of an eighth of a
    block, if that is less), what is left of the block is padding, and the document opens the next one.
    """
    shortest = max(1, min(_SHORTEST_PIECE, length // 8))
    ids, lengths, filled = np.full(length, special.pad, dtype=np.int32), list[int](), 0
    for document in documents:
        first = 0
        while first < len(document):
            rest, room = len(document) - first, length - filled - 2
            if room < min(rest, shortest):
                yield Block(ids, np.array(lengths, dtype=np.int32))
                ids, lengths, filled = np.full(length, special.pad, dtype=np.int32), [], 0
                continue
            taken = min(rest, room)
            end = filled + taken + 2
            ids[filled] = special.cls
            ids[filled + 1 : end - 1] = document[first : first + taken]
            ids[end - 1] = special.sep
            lengths.append(taken + 2)
            filled, first = end, first + taken
    if lengths:
        yield Block(ids, np.array(lengths, dtype=np.int32))
