"""The loss to soft targets, as a plain function of tensors; N rows, V classes."""

import torch
from torch.nn import functional as F


def at_least_fp32(values: torch.Tensor) -> torch.Tensor:
    """Half-precision values in fp32; wider ones as they are, so that tests can run in fp64."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def soft_target_loss(student_NV: torch.Tensor, teacher_NV: torch.Tensor, temperature: float) -> torch.Tensor:
    """L_ce: KL(teacher ‖ student) of the soft-maxes at temperature T, mean over tokens, times T².

    It differs from the cross-entropy by the teacher's entropy, which has no gradient; T² keeps the gradient's size
    independent of T (Hinton et al., 2015, section 2). Takes logits, computes in fp32 or better.
    """
    student_log_NV = F.log_softmax(at_least_fp32(student_NV) / temperature, dim=-1)
    teacher_log_NV = F.log_softmax(at_least_fp32(teacher_NV) / temperature, dim=-1)
    return F.kl_div(student_log_NV, teacher_log_NV, reduction="batchmean", log_target=True) * temperature**2
