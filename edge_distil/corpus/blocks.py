"""Packing documents into blocks of token ids: long ones are cut, short ones share a block."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from edge_distil.errors import UserError
from edge_distil.tokenization import special_tokens

_TOKENIZE_AT_ONCE = 512


def pack(documents: Iterable[str], tokenizer: Tokenizer, length: int) -> np.ndarray:
    """Blocks of token ids, int32 [N, `length`]: `[CLS] piece [SEP] piece … [SEP]`, then padding.

    A document longer than a block is cut; a piece that would not fit into what is left of a block opens the next one.
    Raises `UserError` when the documents hold no token at all.
    """
    special = special_tokens(tokenizer)
    blocks: list[np.ndarray] = []
    block: list[int] = [special.cls]

    def close() -> None:
        if len(block) > 1:
            blocks.append(np.array(block + [special.pad] * (length - len(block)), dtype=np.int32))
            del block[1:]

    for piece in _pieces(documents, tokenizer, length - 2):
        if len(block) + len(piece) + 1 > length:
            close()
        block += [*piece, special.sep]
    close()
    if not blocks:
        raise UserError("the corpus holds no text", "give text files with one paragraph a line")
    return np.stack(blocks)


def _pieces(documents: Iterable[str], tokenizer: Tokenizer, room: int) -> Iterator[list[int]]:
    remaining = iter(documents)
    while some := list(islice(remaining, _TOKENIZE_AT_ONCE)):
        for encoding in tokenizer.encode_batch(some, add_special_tokens=False):
            ids = encoding.ids
            yield from (ids[first : first + room] for first in range(0, len(ids), room))


class Masking:
    """Dynamic masking (Devlin et al., 2019, 3.1): a new draw each time that a block is used.

    Of all ordinary tokens 15% are chosen; of those 80% become [MASK], 10% a random token, 10% stay as they are.
    """

    def __init__(self, tokenizer: Tokenizer, probability: float = 0.15) -> None:
        self.special = special_tokens(tokenizer)
        self.vocabulary_size = tokenizer.get_vocab_size()
        self.probability = probability

    def __call__(self, blocks: list[np.ndarray], generator: torch.Generator | None = None) -> dict[str, Any]:
        """A batch of masked `input_ids`, `attention_mask` and `labels`, each int64 [B, L]; labels −100 elsewhere."""
        ids_BL = torch.from_numpy(np.stack(blocks)).long()
        special = torch.tensor([self.special.cls, self.special.sep, self.special.pad])
        draw_BL = torch.rand(ids_BL.shape, generator=generator)
        chosen_BL = (draw_BL < self.probability) & ~torch.isin(ids_BL, special)
        labels_BL = torch.where(chosen_BL, ids_BL, -100)
        # One uniform number below the probability decides both: its first 80% mask, the next 10% replace.
        masked_BL = chosen_BL & (draw_BL < 0.8 * self.probability)
        replaced_BL = chosen_BL & ~masked_BL & (draw_BL < 0.9 * self.probability)
        random_BL = torch.randint(self.vocabulary_size, ids_BL.shape, generator=generator)
        attention_BL = (ids_BL != self.special.pad).long()
        ids_BL = torch.where(masked_BL, self.special.mask, torch.where(replaced_BL, random_BL, ids_BL))
        return {"input_ids": ids_BL, "attention_mask": attention_BL, "labels": labels_BL}
