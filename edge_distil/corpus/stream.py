"""The order in which a run reads its blocks: shuffled anew each epoch, and computed, not kept.

The k-th block of a run, and its masks, follow from the seed and from k. So a run that is cut off goes on at any place
without replaying what came before, any number of processes reads the same run, and no list of places is ever held.
"""

from typing import Protocol

import numpy as np
from torch.utils.data import Dataset

from edge_distil.corpus.masking import MaskedBlock, Masking
from edge_distil.corpus.packing import Block
from edge_distil.errors import UserError

_HELD_OUT_BLOCKS = 128
_ROUNDS = 6
_MASK64 = 2**64 - 1


class Blocks(Protocol):
    """Blocks by number, as `edge_distil.corpus.prepare` gives them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Block: ...


def _mix(value: int) -> int:
    """A 64-bit number that looks like chance (the finaliser of SplitMix64: Steele, Lea & Flood, 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK64
    return value ^ (value >> 31)


def shuffled(place: int, count: int, key: int) -> int:
    """Where `place` goes in a permutation of `count` numbers that follows from `key`.

    A Feistel network permutes the numbers below the next power of four; what falls outside is sent round again until it
    falls inside (Black & Rogaway, 2002). Constant memory, at most four rounds of it on average.
    """
    half = max((count - 1).bit_length() + 1, 2) // 2
    low = (1 << half) - 1
    while True:
        left, right = place >> half, place & low
        for number in range(_ROUNDS):
            left, right = right, left ^ (_mix(_mix(key + number) ^ right) & low)
        place = left << half | right
        if place < count:
            return place


class Stream(Dataset[MaskedBlock]):
    """`items` masked blocks, in the order in which a run reads them, epoch after epoch.

    One block in fifty (128 at most, at least one), spread over the corpus, is held out. Raises `UserError` when there
    are too few to hold any out.
    """

    def __init__(self, blocks: Blocks, masking: Masking, *, items: int, seed: int) -> None:
        self.blocks = blocks
        self.masking = masking
        self.items = items
        self.seed = seed
        self._held_out = held_out(len(blocks))
        self.epoch_length = len(blocks) - len(self._held_out)

    def __len__(self) -> int:
        return self.items

    def __getitem__(self, item: int) -> MaskedBlock:
        epoch, place = divmod(item, self.epoch_length)
        index = shuffled(place, self.epoch_length, _mix(self.seed) ^ _mix(epoch))
        index += int(np.searchsorted(self._held_out - np.arange(len(self._held_out)), index, side="right"))
        return self.masking(self.blocks[index], np.random.Generator(np.random.Philox(key=[self.seed, item])))

    def measured(self) -> list[MaskedBlock]:
        """The held-out blocks, with the same masks each time."""
        return [
            self.masking(self.blocks[int(index)], np.random.Generator(np.random.Philox(key=[0, int(index)])))
            for index in self._held_out
        ]


def held_out(blocks: int) -> np.ndarray:
    """The numbers of the blocks to measure on, ascending. Raises `UserError` for fewer than two blocks."""
    if blocks < 2:
        raise UserError("the corpus fills less than two blocks", "give more text, or a smaller --block-length")
    wanted = min(_HELD_OUT_BLOCKS, max(1, blocks // 50))
    return np.linspace(0, blocks - 1, wanted).round().astype(np.int64)
