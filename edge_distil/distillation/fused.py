"""Vocabulary projections, L_ce and L_mlm in one pass over chunks of tokens.

At BERT's vocabulary the logits of a batch are the largest tensors of the whole step, and most of its time goes into
reading and writing them. Here neither model's [N, V] logits ever exist whole: the gradient is formed chunk by chunk
while the chunk's logits are at hand. Equal to `edge_distil.distillation.losses`, which the tests hold it against.

Shapes: N real tokens, V vocabulary, D hidden size.
"""

from typing import Any

import torch
from torch.nn import functional as F

# So many logits a chunk (32 MB in fp32): small enough to stay near the cores and to be reused by the allocator.
_CHUNK_LOGITS = 2**23


class _HeadLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        student_ND: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor,
        teacher_ND: torch.Tensor,
        teacher_weight_VD: torch.Tensor,
        teacher_bias_V: torch.Tensor,
        labels_N: torch.Tensor,
        temperature: float,
        alpha_ce: float,
        alpha_mlm: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        device = student_ND.device.type
        low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else student_ND.dtype
        wide = torch.promote_types(low, torch.float32)
        tokens, masked = len(student_ND), max(int((labels_N != -100).sum()), 1)
        weight, teacher_weight = weight_VD.to(low), teacher_weight_VD.to(low)
        gradient_ND = torch.empty_like(student_ND)
        gradient_VD = torch.zeros_like(weight_VD)
        gradient_V = torch.zeros_like(bias_V)
        ce = torch.zeros((), dtype=wide, device=student_ND.device)
        mlm = torch.zeros((), dtype=wide, device=student_ND.device)
        size = max(_CHUNK_LOGITS // len(weight_VD), 1)
        with torch.autocast(device, enabled=False):
            for first in range(0, tokens, size):
                rows = slice(first, first + size)
                hidden = student_ND[rows].to(low)
                logits = F.linear(hidden, weight, bias_V.to(low)).to(wide)
                soft_target = F.linear(teacher_ND[rows].to(low), teacher_weight, teacher_bias_V.to(low)).to(wide)
                labels = labels_N[rows]
                at = torch.nonzero(labels != -100).squeeze(1)
                hard = F.log_softmax(logits[at], dim=-1)
                mlm -= hard.gather(1, labels[at, None]).sum() / masked
                soft_target = F.log_softmax(soft_target.div_(temperature), dim=-1)
                soft = F.log_softmax(logits.div_(temperature), dim=-1)
                target_probability = soft_target.exp()
                ce += (
                    torch.dot(target_probability.flatten(), soft_target.sub_(soft).flatten()) * temperature**2 / tokens
                )
                # d ce / d logits = T (softmax(student / T) − softmax(teacher / T)) / N
                gradient = soft.exp_().sub_(target_probability).mul_(alpha_ce * temperature / tokens)
                # d mlm / d logits = (softmax(student) − one-hot label) / M, on the masked rows
                hard = hard.exp_()
                hard[torch.arange(len(at), device=hard.device), labels[at]] -= 1
                gradient.index_add_(0, at, hard, alpha=alpha_mlm / masked)
                gradient_V += gradient.sum(dim=0)
                gradient = gradient.to(low)
                gradient_ND[rows] = gradient @ weight
                gradient_VD += gradient.T @ hidden
        ctx.save_for_backward(gradient_ND, gradient_VD, gradient_V)
        ctx.mark_non_differentiable(ce, mlm)
        return alpha_ce * ce + alpha_mlm * mlm, ce, mlm

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        scale = gradients[0]
        gradient_ND, gradient_VD, gradient_V = ctx.saved_tensors
        return gradient_ND * scale, gradient_VD * scale, gradient_V * scale, *([None] * 7)


def head_losses(
    student_ND: torch.Tensor,
    student_projection: torch.nn.Linear,
    teacher_ND: torch.Tensor,
    teacher_projection: torch.nn.Linear,
    labels_N: torch.Tensor,
    *,
    temperature: float,
    alpha_ce: float,
    alpha_mlm: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`alpha_ce` L_ce + `alpha_mlm` L_mlm, differentiable, and both losses by themselves, for looking at.

    Takes what goes into both vocabulary projections, and labels that are −100 where a token was not masked. Matrix
    products run in autocast's type where that is on, soft-maxes in fp32 or better.
    """
    return _HeadLosses.apply(
        student_ND,
        student_projection.weight,
        student_projection.bias,
        teacher_ND,
        teacher_projection.weight,
        teacher_projection.bias,
        labels_N,
        temperature,
        alpha_ce,
        alpha_mlm,
    )
