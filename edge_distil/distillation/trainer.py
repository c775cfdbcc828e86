"""General distillation (Sanh et al., 2019, sections 2 and 3): the triple loss in a `transformers.Trainer`."""

from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedModel, Trainer, set_seed

from edge_distil import training
from edge_distil.corpus.blocks import Masking
from edge_distil.distillation.fused import head_losses
from edge_distil.distillation.losses import cosine_loss
from edge_distil.distillation.pretraining import TrainedModel, before_projection, masked_lm_metrics, split_held_out
from edge_distil.distillation.student import student_of


@dataclass(frozen=True, slots=True)
class LossWeights:
    """The recipe's temperature and the weights of L_ce, L_mlm and L_cos."""

    temperature: float = 2.0
    alpha_ce: float = 5.0
    alpha_mlm: float = 2.0
    alpha_cos: float = 1.0


class _Distillation(nn.Module):
    """Student and teacher on one batch; the forward is the triple loss, so that `Trainer` can spread it over devices.

    The teacher is no part of the module's parameters: it is neither trained nor copied between devices.
    """

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel, weights: LossWeights) -> None:
        super().__init__()
        self.student = student
        self.weights = weights
        self._teacher = [teacher.eval().requires_grad_(False)]

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """L = alpha_ce L_ce + alpha_mlm L_mlm + alpha_cos L_cos; ce and cos over real tokens, mlm over masked ones.

        All inputs are [B, L]; `labels` are −100 where a token was not masked.
        """
        teacher = self._teacher[0].to(input_ids.device)
        real_BL = attention_mask.bool()
        with torch.no_grad():
            teacher_ND = teacher.base_model(input_ids, attention_mask=attention_mask).last_hidden_state[real_BL]
            teacher_head_ND = before_projection(teacher, teacher_ND)
        student_ND = self.student.base_model(input_ids, attention_mask=attention_mask).last_hidden_state[real_BL]
        loss, ce, mlm = head_losses(
            before_projection(self.student, student_ND),
            self.student.get_output_embeddings(),
            teacher_head_ND,
            teacher.get_output_embeddings(),
            labels[real_BL],
            temperature=self.weights.temperature,
            alpha_ce=self.weights.alpha_ce,
            alpha_mlm=self.weights.alpha_mlm,
        )
        cos = cosine_loss(student_ND, teacher_ND)
        return {"loss": loss + self.weights.alpha_cos * cos, "ce": ce, "mlm": mlm, "cos": cos.detach()}


class DistillationTrainer(Trainer):
    """A `Trainer` that logs the three losses beside their weighted sum; everything else is the library's."""

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The module's own loss. The last step's parts are kept for the log."""
        outputs = model(**inputs)
        self._parts = {f"loss_{name}": outputs[name] for name in ("ce", "mlm", "cos")}
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log, with the three losses of the last step."""
        parts = {name: value.item() for name, value in self._parts.items()} if "loss" in logs else {}
        super().log({**logs, **parts}, *args, **kwargs)


def distil(
    teacher: PreTrainedModel,
    tokenizer: Tokenizer,
    blocks: np.ndarray,
    *,
    weights: LossWeights,
    epochs: float,
    max_steps: int,
    batch_size: int,
    learning_rate: float,
    warmup: float,
    dropout: float | None,
    seed: int,
) -> TrainedModel:
    """Distil a teacher into a student of half its layers on blocks int32 [N, L]; `dropout`
    None keeps the teacher's.

    Metrics: held-out `mlm_loss`, `mlm_perplexity` and `mlm_accuracy` of the student, the teacher's with `teacher_`
    before them, and `tokens` seen. Raises `UserError` as `student_of` and `pretraining.pretrain` do.
    """
    set_seed(seed)
    training.prepare(teacher)
    student = student_of(teacher)
    training.prepare(student, dropout)
    masking = Masking(tokenizer)
    train_blocks, held_out = split_held_out(blocks)
    with TemporaryDirectory() as scratch:
        trainer = DistillationTrainer(
            _Distillation(student, teacher, weights),
            training.training_arguments(
                scratch,
                epochs=epochs,
                max_steps=max_steps,
                batch_size=batch_size,
                learning_rate=learning_rate,
                warmup=warmup,
                max_grad_norm=5.0,
                seed=seed,
            ),
            data_collator=masking,
            train_dataset=train_blocks,
        )
        curve = training.run(trainer, "distilling")
        steps = trainer.state.global_step
    metrics = masked_lm_metrics(student, held_out, masking)
    metrics |= {f"teacher_{name}": value for name, value in masked_lm_metrics(teacher, held_out, masking).items()}
    return TrainedModel(student, {**metrics, "steps": steps, "tokens": steps * batch_size * blocks.shape[1]}, curve)
