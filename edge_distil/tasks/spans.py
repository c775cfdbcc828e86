"""Question answering as spans: the features and losses of SQuAD. B windows, L tokens of the longest of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional as F

from edge_distil.console import progress
from edge_distil.distillation.losses import soft_target_loss
from edge_distil.qa import predict_windows
from edge_distil.runtimes import Runtime
from edge_distil.tasks.finetuning import Features
from edge_distil.tasks.squad import DOC_STRIDE, MAX_LENGTH, Question, gold_span, windows
from edge_distil.tokenization import special_tokens


def span_loss(
    start_BL: torch.Tensor, end_BL: torch.Tensor, gold_B2: torch.Tensor, allowed_BL: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy with the gold start and end positions, mean of both; positions not `allowed` have no weight."""
    return (
        F.cross_entropy(_only(start_BL, allowed_BL), gold_B2[:, 0])
        + F.cross_entropy(_only(end_BL, allowed_BL), gold_B2[:, 1])
    ) / 2


def span_soft_target_loss(
    student: tuple[torch.Tensor, torch.Tensor],
    teacher: tuple[torch.Tensor, torch.Tensor],
    allowed_BL: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """Soft-target loss to the teacher's start and end distributions over the allowed positions, mean of both.

    `student` and `teacher` are (start logits, end logits), each [B, L].
    """
    losses = [
        soft_target_loss(_only(mine_BL, allowed_BL), _only(theirs_BL, allowed_BL), temperature)
        for mine_BL, theirs_BL in zip(student, teacher, strict=True)
    ]
    return (losses[0] + losses[1]) / 2


def _only(logits_BL: torch.Tensor, allowed_BL: torch.Tensor) -> torch.Tensor:
    # Not −inf: KL would meet inf − inf there. At −1e4 the soft-max is exactly 0 in fp32.
    return logits_BL.float().masked_fill(~allowed_BL, -1e4)


class SpanFeatures(Features):
    """Windows of questions and contexts with their gold spans. Context tokens and [CLS] alone carry weight."""

    def __init__(
        self,
        questions: Sequence[Question],
        tokenizer: Tokenizer,
        *,
        max_length: int = MAX_LENGTH,
        doc_stride: int = DOC_STRIDE,
    ) -> None:
        """Cut the questions into windows, as `squad.windows` does. A question counts with the first of its answers."""
        self.windows = windows(questions, tokenizer, max_length=max_length, doc_stride=doc_stride)
        super().__init__([window.input_ids for window in self.windows], special_tokens(tokenizer))
        self.gold = [
            gold_span(window, questions[window.question].answers[0]) if questions[window.question].answers else (0, 0)
            for window in self.windows
        ]
        self._teacher: list[np.ndarray] = []

    def cache(self, teacher: Runtime) -> None:
        """Keep the teacher's start and end logits, [2, L] of each window's own length."""
        of_window: dict[int, np.ndarray] = {}
        with progress("teacher's answers", len(self.windows)) as advance:
            for index, start_L, end_L in predict_windows(teacher, self.windows, self.special.pad):
                of_window[index] = np.stack([start_L, end_L])
                advance()
        self._teacher = [of_window[index] for index in range(len(self.windows))]

    def targets(self, indices: Sequence[int], width: int) -> dict[str, torch.Tensor]:
        """`gold` [B, 2], `allowed` [B, L], and the `teacher`'s logits [2, B, L] where they were kept."""
        allowed_BL = np.zeros((len(indices), width), dtype=bool)
        allowed_BL[:, 0] = True  # [CLS]: where a window does not hold the answer
        for row, index in enumerate(indices):
            allowed_BL[row, self.windows[index].context_start : self.windows[index].context_end] = True
        result = {
            "gold": torch.tensor([self.gold[index] for index in indices]),
            "allowed": torch.from_numpy(allowed_BL),
        }
        if self._teacher:
            teacher_2BL = np.zeros((2, len(indices), width), dtype=np.float32)
            for row, index in enumerate(indices):
                teacher_2BL[:, row, : len(self.ids[index])] = self._teacher[index]
            result["teacher"] = torch.from_numpy(teacher_2BL)
        return result

    def gold_loss(self, output: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """`span_loss`."""
        return span_loss(output.start_logits, output.end_logits, batch["gold"], batch["allowed"])

    def soft_loss(self, output: Any, batch: Mapping[str, torch.Tensor], temperature: float) -> torch.Tensor:
        """`span_soft_target_loss`."""
        start_BL, end_BL = batch["teacher"]
        return span_soft_target_loss(
            (output.start_logits, output.end_logits), (start_BL, end_BL), batch["allowed"], temperature
        )
