"""The three losses of DistilBERT (Sanh et al., 2019, section 2), as plain functions of tensors.

Shapes: N real tokens, M masked tokens, V vocabulary, D hidden size.
"""

import torch
from torch.nn import functional as F


def _fp32(values: torch.Tensor) -> torch.Tensor:
    """Half-precision values in fp32; wider ones as they are, so that tests can run in fp64."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def soft_target_loss(student_NV: torch.Tensor, teacher_NV: torch.Tensor, temperature: float) -> torch.Tensor:
    """L_ce: KL(teacher ‖ student) of the soft-maxes at temperature T, mean over tokens, times T².

    It differs from the cross-entropy by the teacher's entropy, which has no gradient; T² keeps the gradient's size
    independent of T (Hinton et al., 2015, section 2). Takes logits, computes in fp32 or better.
    """
    student_log_NV = F.log_softmax(_fp32(student_NV) / temperature, dim=-1)
    teacher_log_NV = F.log_softmax(_fp32(teacher_NV) / temperature, dim=-1)
    return F.kl_div(student_log_NV, teacher_log_NV, reduction="batchmean", log_target=True) * temperature**2


def masked_lm_loss(logits_MV: torch.Tensor, labels_M: torch.Tensor) -> torch.Tensor:
    """L_mlm: cross-entropy with the masked tokens, mean over them; 0 where a batch happens to mask none."""
    if labels_M.numel() == 0:
        return logits_MV.sum() * 0.0
    return F.cross_entropy(_fp32(logits_MV), labels_M)


def cosine_loss(student_ND: torch.Tensor, teacher_ND: torch.Tensor) -> torch.Tensor:
    """L_cos: 1 − cosine of the angle between student and teacher hidden states, mean over tokens."""
    return (1 - F.cosine_similarity(_fp32(student_ND), _fp32(teacher_ND), dim=-1)).mean()
