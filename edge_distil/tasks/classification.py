"""Texts and pairs of texts: their token ids, their features and losses, and what a model says of them.

B examples, L tokens, C classes; a regression has one output. Classes are numbered as in the model's `id2label`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import PreTrainedModel

from edge_distil.console import progress
from edge_distil.distillation.losses import soft_target_loss
from edge_distil.runtimes import Runtime
from edge_distil.tasks.finetuning import Features
from edge_distil.tasks.texts import Example
from edge_distil.tokenization import load_tokenizer, pad, special_tokens


def encode(examples: Sequence[Example], tokenizer: Tokenizer, max_length: int) -> list[list[int]]:
    """`[CLS] text [SEP]` or `[CLS] text [SEP] pair [SEP]` of every example, at most `max_length` tokens.

    Of a pair that is too long the longer text is cut, token by token, as the library's tokenisers do by
    "longest_first"; so is the odd token given where both are cut.
    """
    special = special_tokens(tokenizer)
    texts = tokenizer.encode_batch([example.text for example in examples], add_special_tokens=False)
    pairs = tokenizer.encode_batch([example.pair or "" for example in examples], add_special_tokens=False)
    result = []
    for example, text, pair in zip(examples, texts, pairs, strict=True):
        if example.pair is None:
            result.append([special.cls, *text.ids[: max_length - 2], special.sep])
            continue
        room = max_length - 3
        # What the shorter one leaves is the longer one's. Where neither is short both get half, and the longer one the
        # odd token, the second of two alike. (BERT's authors always gave it to the first.)
        half = (room + (len(text.ids) > len(pair.ids))) // 2
        first = min(len(text.ids), max(room - len(pair.ids), half))
        result.append([special.cls, *text.ids[:first], special.sep, *pair.ids[: room - first], special.sep])
    return result


def predict_texts(runtime: Runtime, ids: Sequence[list[int]], *, batch_size: int = 32) -> np.ndarray:
    """The logits of encoded texts, [N, C], in their order, with a progress bar.

    They are run in batches of like length, so that little is spent on padding, or as many at once as the runtime asks
    for.
    """
    pad_id = special_tokens(load_tokenizer(runtime.folder)).pad
    batch_size = runtime.batch_size or batch_size
    by_length = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
    logits: dict[int, np.ndarray] = {}
    with progress("reading", len(ids)) as advance:
        for first in range(0, len(ids), batch_size):
            indices = by_length[first : first + batch_size]
            found_BC = runtime(*pad([ids[index] for index in indices], pad_id, runtime.lengths))["logits"]
            logits |= dict(zip(indices, found_BC, strict=True))
            advance(len(indices))
    return np.stack([logits[index] for index in range(len(ids))])


def decide(logits_NC: np.ndarray, labels: Sequence[str] | None) -> list[Any]:
    """The likeliest label of each text, or its score for a regression."""
    if labels is None:
        return logits_NC[:, 0].tolist()
    return [labels[index] for index in logits_NC.argmax(axis=1)]


class TextFeatures(Features):
    """Encoded texts with their labels, or their scores where `labels` is None: a regression."""

    def __init__(
        self, examples: Sequence[Example], tokenizer: Tokenizer, labels: Sequence[str] | None, max_length: int
    ) -> None:
        super().__init__(encode(examples, tokenizer, max_length), special_tokens(tokenizer))
        self.is_regression = labels is None
        classes = {label: index for index, label in enumerate(labels or ())}
        self.gold = torch.tensor(
            [example.label if isinstance(example.label, float) else classes[example.label] for example in examples]
        )
        self._teacher_NC: torch.Tensor | None = None

    def cache(self, teacher: Runtime) -> None:
        """Keep the teacher's logits, [N, C]."""
        self._teacher_NC = torch.from_numpy(predict_texts(teacher, self.ids))

    def start_head(self, model: PreTrainedModel) -> None:
        """A fresh regression begins at the mean score.

        Begun at 0 the bias would move by a learning rate a step, and the encoder would learn the mean in its place.
        """
        bias = cast(torch.nn.Linear, model.classifier).bias
        if self.is_regression and not bias.any():
            with torch.no_grad():
                bias.fill_(self.gold.mean())

    def targets(self, indices: Sequence[int], width: int) -> dict[str, torch.Tensor]:
        """`gold`: classes or scores [B]; the `teacher`'s logits [B, C] where they were kept."""
        result = {"gold": self.gold[list(indices)]}
        if self._teacher_NC is not None:
            result["teacher"] = self._teacher_NC[list(indices)]
        return result

    def gold_loss(self, output: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Cross-entropy with the labels, or the squared distance to the scores."""
        if self.is_regression:
            return F.mse_loss(output.logits[:, 0].float(), batch["gold"])
        return F.cross_entropy(output.logits.float(), batch["gold"])

    def soft_loss(self, output: Any, batch: Mapping[str, torch.Tensor], temperature: float) -> torch.Tensor:
        """Soft targets at the temperature; for a regression the squared distance to the teacher's scores."""
        if self.is_regression:
            return F.mse_loss(output.logits.float(), batch["teacher"])
        return soft_target_loss(output.logits, batch["teacher"], temperature)
