"""L_ce, L_mlm and L_mse in one pass over chunks of tokens.

At BERT's vocabulary the logits of a batch are the largest tensors of the whole step, and most of its time goes into
reading and writing them. Here neither model's [N, V] logits ever exist whole: the gradient is formed chunk by chunk
while the chunk's logits are at hand. The tests hold it against the formulas, written out in float64.

Shapes: N tokens, of which the first M are masked; V vocabulary; D hidden size.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

# So many logits a chunk. CPU: 32 MB in fp32, to stay near the cores. GPU: enough rows to keep its matrix units busy.
_CHUNK_LOGITS = {"cpu": 2**23, "cuda": 2**27}


@dataclass(frozen=True, slots=True)
class HeadWeights:
    """What each loss counts, at which temperature, and over how many tokens of the whole step its mean is taken.

    `tokens` and `masked` count every part of the step: all of its micro-batches, on all processes. So the parts' losses
    and gradients add up to those of the step, however it was cut.
    """

    tokens: torch.Tensor
    masked: torch.Tensor
    temperature: float = 1.0
    alpha_ce: float = 0.0
    alpha_mlm: float = 0.0
    alpha_mse: float = 0.0


class _HeadLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        student_ND: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor,
        teacher_ND: torch.Tensor | None,
        teacher_projection: torch.nn.Linear | None,
        labels_M: torch.Tensor,
        weights: HeadWeights,
    ) -> tuple[torch.Tensor, ...]:
        device = student_ND.device.type
        low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else student_ND.dtype
        wide = torch.promote_types(low, torch.float32)
        temperature = weights.temperature
        tokens, masked = weights.tokens.to(wide), weights.masked.to(wide)
        weight, bias = weight_VD.to(low), bias_V.to(low)
        if teacher_projection is not None:
            teacher_weight, teacher_bias = teacher_projection.weight.to(low), teacher_projection.bias.to(low)
        gradient_ND = torch.empty_like(student_ND)
        gradient_VD = None
        gradient_V = torch.zeros_like(bias_V)
        ce, mlm, mse = (torch.zeros((), dtype=wide, device=student_ND.device) for _ in range(3))
        size = max(_CHUNK_LOGITS.get(device, _CHUNK_LOGITS["cpu"]) // len(weight_VD), 1)
        with torch.autocast(device, enabled=False):
            for first in range(0, len(student_ND), size):
                rows = slice(first, first + size)
                hidden = student_ND[rows].to(low)
                logits = F.linear(hidden, weight, bias).to(wide)
                labels = labels_M[rows]
                if weights.alpha_mlm and len(labels):
                    hard = F.log_softmax(logits[: len(labels)], dim=-1)
                    mlm -= hard.gather(1, labels[:, None]).sum() / masked
                    # d mlm / d logits = (softmax(student) − one-hot label) / M, on the masked rows
                    hard = hard.exp_().scatter_add_(1, labels[:, None], -torch.ones_like(hard[:, :1]))
                    hard = hard.mul_(weights.alpha_mlm / masked)
                if teacher_projection is None or teacher_ND is None:
                    gradient = torch.zeros_like(logits)
                else:
                    soft_target = F.linear(teacher_ND[rows].to(low), teacher_weight, teacher_bias).to(wide)
                    if weights.alpha_mse:
                        # d mse / d logits = 2 (student − teacher) / N
                        gradient = logits - soft_target
                        mse += torch.dot(gradient.flatten(), gradient.flatten()) / tokens
                        gradient.mul_(2 * weights.alpha_mse / tokens)
                    if weights.alpha_ce:
                        soft_target = F.log_softmax(soft_target.div_(temperature), dim=-1)
                        soft = F.log_softmax(logits.div_(temperature), dim=-1)
                        del logits
                        target_probability = soft_target.exp()
                        difference = soft_target.sub_(soft).flatten()
                        ce += torch.dot(target_probability.flatten(), difference) * temperature**2 / tokens
                        # d ce / d logits = T (softmax(student / T) − softmax(teacher / T)) / N
                        soft_gradient = soft.exp_().sub_(target_probability)
                        soft_gradient.mul_(weights.alpha_ce * temperature / tokens)
                        gradient = gradient.add_(soft_gradient) if weights.alpha_mse else soft_gradient
                if weights.alpha_mlm and len(labels):
                    gradient[: len(labels)] += hard
                gradient_V += gradient.sum(dim=0)
                gradient = gradient.to(low)
                gradient_ND[rows] = gradient @ weight
                of_weight = gradient.T @ hidden
                # Added as it is: a copy in the weight's own type would be another [V, D] matrix.
                gradient_VD = of_weight.to(weight_VD.dtype) if gradient_VD is None else gradient_VD.add_(of_weight)
        if gradient_VD is None:
            gradient_VD = torch.zeros_like(weight_VD)
        ctx.gradients = gradient_ND, gradient_VD, gradient_V
        ctx.mark_non_differentiable(ce, mlm, mse)
        return weights.alpha_ce * ce + weights.alpha_mlm * mlm + weights.alpha_mse * mse, ce, mlm, mse

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        # In place: a second [V, D] matrix would cost its memory and a pass over it. So there is one backward pass only.
        of_inputs = [gradient.mul_(gradients[0]) for gradient in ctx.gradients]
        del ctx.gradients
        return *of_inputs, *([None] * 4)


def head_losses(
    student_ND: torch.Tensor,
    student_projection: torch.nn.Linear,
    labels_M: torch.Tensor,
    weights: HeadWeights,
    *,
    teacher_ND: torch.Tensor | None = None,
    teacher_projection: torch.nn.Linear | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The weighted sum of the losses on the vocabulary, differentiable, and each by itself, for looking at.

    Takes what goes into the vocabulary projections, the masked tokens first. L_ce is KL(teacher ‖ student) at
    temperature T, times T², over all N tokens; L_mlm the cross-entropy with the labels over the first M; L_mse the
    squared distance of the logits, summed over the vocabulary, over all N. A loss whose weight is 0 is not computed
    and not returned; without a teacher L_mlm alone is. Matrix products run in autocast's type where that is on,
    soft-maxes in fp32 or better.
    """
    loss, ce, mlm, mse = _HeadLosses.apply(
        student_ND,
        student_projection.weight,
        student_projection.bias,
        teacher_ND,
        teacher_projection,
        labels_M,
        weights,
    )
    parts = {"ce": (ce, weights.alpha_ce), "mlm": (mlm, weights.alpha_mlm), "mse": (mse, weights.alpha_mse)}
    return loss, {name: value for name, (value, weight) in parts.items() if weight}
