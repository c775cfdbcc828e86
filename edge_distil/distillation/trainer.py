"""General distillation (Sanh et al., 2019, sections 2 and 3): the triple loss on a corpus."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from edge_distil import training
from edge_distil.corpus.masking import Masking
from edge_distil.corpus.stream import Blocks
from edge_distil.distillation.corpus_trainer import CorpusTraining, LossModule, train_on_corpus
from edge_distil.distillation.fused import HeadWeights, head_losses
from edge_distil.distillation.losses import at_least_fp32
from edge_distil.distillation.pretraining import head_inputs, masked_lm_metrics
from edge_distil.errors import UserError
from edge_distil.training import TrainedModel
from edge_distil.unfinished import UnfinishedRun

# The published recipe's optimiser, where it differs from AdamW's usual settings.
_RECIPE = {"adam_beta2": 0.98, "adam_epsilon": 1e-6, "max_grad_norm": 5.0}


@dataclass(frozen=True, slots=True)
class LossWeights:
    """The recipe's temperature and the weights of its losses; one of weight 0 is not computed.

    `ce_on` says which tokens L_ce and L_mse are about: "all" real ones, or the "masked" ones alone, which is several
    times faster, because the vocabulary projections are most of a step. Raises `UserError` when all weights are 0.
    """

    temperature: float = 2.0
    alpha_ce: float = 5.0
    alpha_mlm: float = 2.0
    alpha_cos: float = 1.0
    alpha_mse: float = 0.0
    ce_on: Literal["all", "masked"] = "all"

    def __post_init__(self) -> None:
        if not any((self.alpha_ce, self.alpha_mlm, self.alpha_cos, self.alpha_mse)):
            raise UserError("all weights of the losses are 0", "give one of them, e.g. --alpha-ce 5")


class Distillation(LossModule):
    """Student and teacher on one micro-batch.

    The teacher is no part of the module's parameters: it is neither trained nor copied between devices.
    """

    def __init__(
        self, student: PreTrainedModel, teacher: PreTrainedModel, weights: LossWeights, *, bf16: bool = False
    ) -> None:
        """`bf16` says that the forward will run in bf16 autocast: the teacher's matrices are cast once for all.

        Its word embeddings with them, where they are the vocabulary projection's matrix, the largest of all.
        """
        super().__init__(student)
        self.weights = weights
        teacher.eval().requires_grad_(False)
        if bf16:
            for module in teacher.modules():
                if isinstance(module, torch.nn.Linear):
                    module.to(torch.bfloat16)
        self._teacher: list[Any] = [teacher]

    def forward(self, *, tokens: torch.Tensor, masked: torch.Tensor, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """L = alpha_ce L_ce + alpha_mlm L_mlm + alpha_cos L_cos + alpha_mse L_mse, and each by itself.

        `tokens` and `masked` count the real and the masked tokens of the whole step; the rest is what
        `corpus.masking.collate` gives.
        """
        weights, labels_M = self.weights, batch["labels"]
        of_logits = weights.alpha_ce or weights.alpha_mse
        on_all = of_logits and weights.ce_on == "all"
        rows = batch["order"] if on_all or weights.alpha_cos else batch["order"][: len(labels_M)]
        student_ND, transformed_ND = head_inputs(self.model, batch, rows)
        loss = student_ND.new_zeros(())
        parts: dict[str, torch.Tensor] = {}
        teacher_head_ND: Any = None
        teacher_projection = None
        if of_logits or weights.alpha_cos:
            teacher = self._teacher[0].to(student_ND.device)
            with torch.no_grad():
                teacher_ND, teacher_head_ND = head_inputs(teacher, batch, rows)
            if of_logits:
                teacher_projection = teacher.get_output_embeddings()
            if weights.alpha_cos:
                cosine_N = F.cosine_similarity(at_least_fp32(student_ND), at_least_fp32(teacher_ND), dim=-1)
                parts["cos"] = (1 - cosine_N).sum() / tokens.to(cosine_N.dtype)
                loss = loss + weights.alpha_cos * parts["cos"]
        if of_logits or weights.alpha_mlm:
            wanted = slice(None) if on_all else slice(len(labels_M))
            of_head, head_parts = head_losses(
                transformed_ND[wanted],
                self.model.get_output_embeddings(),
                labels_M,
                HeadWeights(
                    tokens=tokens if on_all else masked,
                    masked=masked,
                    temperature=weights.temperature,
                    alpha_ce=weights.alpha_ce,
                    alpha_mlm=weights.alpha_mlm,
                    alpha_mse=weights.alpha_mse,
                ),
                teacher_ND=teacher_head_ND[wanted] if of_logits else None,
                teacher_projection=teacher_projection,
            )
            loss = loss + of_head
            parts |= head_parts
        return {"loss": loss, **{name: value.detach() for name, value in parts.items()}}


def distil(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    blocks: Blocks,
    masking: Masking,
    weights: LossWeights,
    options: CorpusTraining,
    run: UnfinishedRun,
) -> TrainedModel:
    """Distil a teacher into a student, as `distillation.student.student_of` makes one, on masked blocks.

    Metrics: held-out `mlm_loss`, `mlm_perplexity` and `mlm_accuracy` of the student, the teacher's with `teacher_`
    before them, `steps` and `tokens` seen. Raises `UserError` for a corpus of less than two blocks, and as
    `corpus_trainer.train_on_corpus` does.
    """
    training.prepare(teacher)
    training.prepare(student, options.dropout)
    stream = options.stream(blocks, masking)
    measured = stream.measured()
    of_teacher = {f"teacher_{name}": value for name, value in masked_lm_metrics(teacher, measured).items()}
    module = Distillation(student, teacher, weights, bf16=options.in_bf16)
    result = train_on_corpus(module, stream, options, run, "distilling", **_RECIPE)
    return replace(result, metrics={**masked_lm_metrics(result.model, measured), **of_teacher, **result.metrics})
