"""Which tokens of a block a masked language model has to guess.

Everything follows from the random generator that is given for one block. So a block's masks depend on the seed and on
the block's place in the run alone: not on the batch that it is in, the process that reads it, or an earlier run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer

from edge_distil.corpus.packing import Block, piece_ids, position_ids
from edge_distil.tokenization import special_tokens, starts_word

# The published recipe's emphasis on rare words: a token is chosen in proportion to its count to this power.
RARE_WORDS = -0.7


@dataclass(frozen=True, slots=True)
class MaskedBlock:
    """A block with some tokens hidden: `block` holds the ids that the model sees, the rest [M] what it must guess."""

    block: Block
    positions_M: np.ndarray
    labels_M: np.ndarray


class Masking:
    """Dynamic masking (Devlin et al., 2019, section 3.1): a new draw each time that a block is used.

    Of a block's ordinary tokens 15% are chosen; of those 80% become the mask token, 10% a random one, 10% stay.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        token_counts_V: np.ndarray | None = None,
        *,
        whole_words: bool = False,
        probability: float = 0.15,
    ) -> None:
        """With `token_counts_V`, the corpus' count of every token, rare ones are chosen more often (`RARE_WORDS`).

        `whole_words` chooses words, and hides all pieces of each.
        """
        special = special_tokens(tokenizer)
        self.mask_id = special.mask
        self.vocabulary_size = tokenizer.get_vocab_size()
        self.probability = probability
        counts_V = np.ones(self.vocabulary_size) if token_counts_V is None else token_counts_V[: self.vocabulary_size]
        self._log_weight_V = RARE_WORDS * np.log(np.maximum(counts_V, 1))
        self._ordinary_V = np.ones(self.vocabulary_size, dtype=bool)
        self._ordinary_V[[special.cls, special.sep, special.pad, special.mask]] = False
        self._starts_word_V = starts_word(tokenizer) if whole_words else np.ones(self.vocabulary_size, dtype=bool)

    def __call__(self, block: Block, generator: np.random.Generator) -> MaskedBlock:
        """The block, masked."""
        ids_L = np.array(block.input_ids, dtype=np.int64)
        positions = np.flatnonzero(self._ordinary_V[ids_L])
        # What follows a special token begins a word too, even where a long word was cut in two.
        starts = self._starts_word_V[ids_L[positions]] | (np.diff(positions, prepend=-2) > 1)
        starts[:1] = True
        word_of = np.cumsum(starts) - 1
        sizes = np.bincount(word_of)
        log_weights = np.bincount(word_of, weights=self._log_weight_V[ids_L[positions]]) / sizes
        # Sampling without replacement in proportion to the weights: the largest of log weight + Gumbel noise.
        order = np.argsort(-(log_weights + generator.gumbel(size=len(sizes))), kind="stable")
        budget = np.floor(self.probability * len(positions) + generator.random())
        reached = np.cumsum(sizes[order])
        chosen = np.zeros(len(sizes), dtype=bool)
        chosen[order[reached - sizes[order] / 2 < budget]] = True
        hidden = positions[chosen[word_of]]
        labels = ids_L[hidden]
        draw = generator.random(len(hidden))
        random = generator.integers(self.vocabulary_size, size=len(hidden))
        ids_L[hidden] = np.where(draw < 0.8, self.mask_id, np.where(draw < 0.9, random, labels))
        return MaskedBlock(Block(ids_L, block.lengths), hidden, labels)


def collate(items: Sequence[MaskedBlock]) -> dict[str, torch.Tensor]:
    """A batch of B blocks of L tokens.

    `input_ids`, `position_ids` and `piece_ids` (the place of a token's document among those of its block, −1 for
    padding), each int64 [B, L]; `order` [N], where the real tokens stand in the flattened [B·L], the masked ones first;
    `labels` [M], what the masked ones were.
    """
    length = len(items[0].block.input_ids)
    piece_BL = np.stack([piece_ids(item.block.lengths, length) for item in items])
    masked_M = np.concatenate([row * length + item.positions_M for row, item in enumerate(items)])
    others = piece_BL.flatten() >= 0
    others[masked_M] = False
    arrays = {
        "input_ids": np.stack([item.block.input_ids for item in items]),
        "position_ids": np.stack([position_ids(item.block.lengths, length) for item in items]),
        "piece_ids": piece_BL,
        "order": np.concatenate([masked_M, np.flatnonzero(others)]),
        "labels": np.concatenate([item.labels_M for item in items]),
    }
    return {name: torch.from_numpy(array.astype(np.int64)) for name, array in arrays.items()}
