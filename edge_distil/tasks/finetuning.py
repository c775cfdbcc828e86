"""Fine-tuning for question answering, alone or with a teacher: the second distillation (Sanh et al., 2019, section 3).

Shapes: B windows, L tokens of the longest of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel, Trainer, set_seed

from edge_distil import training
from edge_distil.console import progress
from edge_distil.distillation.losses import soft_target_loss
from edge_distil.qa import predict_windows
from edge_distil.runtimes import Runtime
from edge_distil.runtimes.torch import model_inputs
from edge_distil.tasks.squad import DOC_STRIDE, MAX_LENGTH, Question, Window, gold_span, pad, windows
from edge_distil.tokenization import special_tokens
from edge_distil.training import TrainedModel


@dataclass(frozen=True, slots=True)
class SecondDistillation:
    """A teacher for fine-tuning: its runtime, the temperature, and the weights of its loss and of the gold one."""

    teacher: Runtime
    temperature: float = 2.0
    alpha_ce: float = 0.5
    alpha_gold: float = 0.5


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


class _Features:
    """Windows with their gold spans and, where there is a teacher, its cached logits. An item is one window's index."""

    def __init__(self, questions: Sequence[Question], prepared: list[Window], pad_id: int) -> None:
        self.windows = prepared
        self.gold = [
            gold_span(window, questions[window.question].answers[0]) if questions[window.question].answers else (0, 0)
            for window in prepared
        ]
        self.pad_id = pad_id
        self.teacher: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def cache(self, teacher: Runtime) -> None:
        """Run the teacher once over every window: the windows are fixed, so no epoch has to do it again."""
        with progress("teacher's answers", len(self.windows)) as advance:
            for index, start_L, end_L in predict_windows(teacher, self.windows, self.pad_id):
                self.teacher[index] = (start_L, end_L)
                advance()

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        # `input_ids` is what the library's length-grouping sampler measures.
        return {"index": index, "input_ids": self.windows[index].input_ids}

    def collate(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch, padded to its longest window: ids, mask, gold spans, allowed positions, the teacher's logits."""
        indices = [item["index"] for item in items]
        batch = [self.windows[index] for index in indices]
        ids_BL, mask_BL = pad(batch, self.pad_id)
        allowed_BL = np.zeros(ids_BL.shape, dtype=bool)
        allowed_BL[:, 0] = True  # [CLS]: where a window does not hold the answer
        for row, window in enumerate(batch):
            allowed_BL[row, window.context_start : window.context_end] = True
        tensors = {"input_ids": ids_BL, "attention_mask": mask_BL, "allowed": allowed_BL}
        if self.teacher:
            for part, name in enumerate(("teacher_start", "teacher_end")):
                tensors[name] = np.zeros(ids_BL.shape, dtype=np.float32)
                for row, index in enumerate(indices):
                    tensors[name][row, : len(self.windows[index].input_ids)] = self.teacher[index][part]
        result = {name: torch.from_numpy(value) for name, value in tensors.items()}
        result["gold"] = torch.tensor([self.gold[index] for index in indices])
        return result


class QuestionAnsweringTrainer(Trainer):
    """A `Trainer` whose loss is the gold span's, and a teacher's distributions where there is one."""

    def __init__(self, *args: Any, sep_id: int, distillation: SecondDistillation | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sep_id = sep_id
        self.distillation = distillation

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """alpha_gold × gold loss + alpha_ce × soft-target loss; the gold loss alone without a teacher."""
        unwrapped = self.accelerator.unwrap_model(model)
        output = model(**model_inputs(unwrapped, inputs["input_ids"], inputs["attention_mask"], self.sep_id))
        loss = span_loss(output.start_logits, output.end_logits, inputs["gold"], inputs["allowed"])
        if self.distillation:
            soft = span_soft_target_loss(
                (output.start_logits, output.end_logits),
                (inputs["teacher_start"], inputs["teacher_end"]),
                inputs["allowed"],
                self.distillation.temperature,
            )
            loss = self.distillation.alpha_gold * loss + self.distillation.alpha_ce * soft
        return (loss, output) if return_outputs else loss


def finetune_squad(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    *,
    distillation: SecondDistillation | None = None,
    max_length: int = MAX_LENGTH,
    doc_stride: int = DOC_STRIDE,
    epochs: float,
    max_steps: int,
    batch_size: int,
    learning_rate: float,
    warmup: float,
    dropout: float | None,
    seed: int,
    schedule: str = "linear",
    group_by_length: bool = True,
) -> TrainedModel:
    """Fine-tune a question-answering model in place. `dropout` None keeps its own.

    `schedule` is one of the library's names. `group_by_length` puts windows of like length into one batch, which saves
    padding where lengths differ.

    Metrics: the `loss` at the end of the curve, where it has one, and the numbers of `windows` and
    `steps`. Raises `UserError` for an empty question and for a loss that is no number.
    """
    training.check_duration(epochs, max_steps)
    set_seed(seed)
    training.prepare(model, dropout)
    special = special_tokens(tokenizer)
    features = _Features(
        questions, windows(questions, tokenizer, max_length=max_length, doc_stride=doc_stride), special.pad
    )
    if distillation:
        features.cache(distillation.teacher)
    with TemporaryDirectory() as scratch:
        trainer = QuestionAnsweringTrainer(
            model,
            training.training_arguments(
                scratch,
                epochs=epochs,
                max_steps=max_steps,
                batch_size=batch_size,
                learning_rate=learning_rate,
                warmup=warmup,
                weight_decay=0.01,
                seed=seed,
                group_by_length=group_by_length,
                schedule=schedule,
            ),
            data_collator=features.collate,
            train_dataset=features,
            sep_id=special.sep,
            distillation=distillation,
        )
        curve = training.run(trainer, "fine-tuning")
        steps = trainer.state.global_step
    metrics = {"windows": len(features), "steps": steps, **({"loss": curve[-1]["loss"]} if curve else {})}
    return TrainedModel(model.eval(), metrics, curve)
