"""The losses against a literal implementation of the paper's formulas in NumPy, and worked examples by hand.

Shapes: N real tokens, M masked tokens, V vocabulary, D hidden size.
"""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from edge_distil.distillation import fused
from edge_distil.distillation.losses import cosine_loss, masked_lm_loss, soft_target_loss

N, V, D = 11, 7, 5


def softmax(row_V: np.ndarray) -> np.ndarray:
    powers = np.exp(row_V)
    return powers / powers.sum()


def literal_ce(student_NV: np.ndarray, teacher_NV: np.ndarray, temperature: float) -> float:
    """T² times the mean of Σ t log(t / s), s and t the soft-maxes at temperature T."""
    total = 0.0
    for student_V, teacher_V in zip(student_NV, teacher_NV, strict=True):
        s, t = softmax(student_V / temperature), softmax(teacher_V / temperature)
        total += sum(t[v] * (math.log(t[v]) - math.log(s[v])) for v in range(len(t)))
    return temperature**2 * total / len(student_NV)


def literal_mlm(logits_MV: np.ndarray, labels_M: np.ndarray) -> float:
    return sum(-math.log(softmax(row)[label]) for row, label in zip(logits_MV, labels_M, strict=True)) / len(labels_M)


def literal_cos(student_ND: np.ndarray, teacher_ND: np.ndarray) -> float:
    rows = zip(student_ND, teacher_ND, strict=True)
    return float(np.mean([1 - s @ t / math.sqrt(s @ s) / math.sqrt(t @ t) for s, t in rows]))


def random(*shape: int, seed: int = 0, scale: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=scale, size=shape)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 8.0])
def test_the_soft_target_loss_is_the_formula(temperature: float) -> None:
    student_NV, teacher_NV = random(N, V), random(N, V, seed=1)
    ours = soft_target_loss(torch.tensor(student_NV), torch.tensor(teacher_NV), temperature)
    assert ours.dtype == torch.float64
    assert ours.item() == pytest.approx(literal_ce(student_NV, teacher_NV, temperature), rel=1e-12)


def test_the_soft_target_loss_by_hand() -> None:
    # Soft-maxes of 1/4, 3/4 and 1/2, 1/2: ½ ln 2 + ½ ln ⅔ = ½ ln 4/3. At T = 2 twice the logits give the same, times 4.
    student, teacher = torch.tensor([[0.0, math.log(3)]]), torch.zeros(1, 2)
    assert soft_target_loss(student, teacher, 1.0).item() == pytest.approx(math.log(4 / 3) / 2)
    assert soft_target_loss(2 * student, 2 * teacher, 2.0).item() == pytest.approx(2 * math.log(4 / 3))


def test_equal_logits_up_to_a_constant_have_no_soft_target_loss() -> None:
    logits_NV = torch.tensor(random(N, V))
    assert soft_target_loss(logits_NV, logits_NV + 3, 2.0).item() == pytest.approx(0, abs=1e-12)


def test_the_masked_lm_loss_is_the_formula() -> None:
    logits_MV, labels_M = random(N, V), np.arange(N) % V
    ours = masked_lm_loss(torch.tensor(logits_MV), torch.tensor(labels_M))
    assert ours.item() == pytest.approx(literal_mlm(logits_MV, labels_M), rel=1e-12)


def test_the_masked_lm_loss_by_hand() -> None:
    # Probabilities 3/4 and 1/4 of the labels.
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]])
    assert masked_lm_loss(logits, torch.tensor([1, 0])).item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)


def test_no_masked_token_is_no_loss_and_no_gradient() -> None:
    logits_MV = torch.zeros(0, V, requires_grad=True)
    loss = masked_lm_loss(logits_MV, torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert logits_MV.grad is not None


def test_the_cosine_loss_is_the_formula() -> None:
    student_ND, teacher_ND = random(N, D), random(N, D, seed=1)
    ours = cosine_loss(torch.tensor(student_ND), torch.tensor(teacher_ND)).item()
    assert ours == pytest.approx(literal_cos(student_ND, teacher_ND), rel=1e-12)


def test_the_cosine_loss_by_hand() -> None:
    # Angles of 45°, 180° and 0°, whatever the lengths.
    student = torch.tensor([[3.0, 0.0], [0.0, 1.0], [2.0, 1.0]])
    teacher = torch.tensor([[1.0, 1.0], [0.0, -5.0], [4.0, 2.0]])
    assert cosine_loss(student, teacher).item() == pytest.approx(((1 - math.sqrt(0.5)) + 2 + 0) / 3)


@pytest.mark.parametrize("loss", [lambda x, y: soft_target_loss(x, y, 2.0), cosine_loss])
def test_half_precision_inputs_are_summed_in_fp32(loss) -> None:
    student, teacher = (torch.tensor(random(64, 500, seed=seed)).bfloat16() for seed in (0, 1))
    ours = loss(student, teacher)
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(loss(student.double(), teacher.double()).item(), rel=1e-5)


# Both vocabulary projections and both losses in one pass


def linear(seed: int, dtype: torch.dtype = torch.float64) -> torch.nn.Linear:
    layer = torch.nn.Linear(D, V, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(random(V, D, seed=seed, scale=0.7)))
        layer.bias.copy_(torch.tensor(random(V, seed=seed + 1)))
    return layer


def inputs(masked: list[int], dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor | torch.nn.Linear]:
    labels_N = torch.full((N,), -100)
    for position in masked:
        labels_N[position] = position % V
    return {
        "student_ND": torch.tensor(random(N, D), dtype=dtype, requires_grad=True),
        "student_projection": linear(10, dtype),
        "teacher_ND": torch.tensor(random(N, D, seed=1), dtype=dtype),
        "teacher_projection": linear(20, dtype),
        "labels_N": labels_N,
    }


WEIGHTS = {"temperature": 2.0, "alpha_ce": 5.0, "alpha_mlm": 2.0}


def gradients(loss: torch.Tensor, given: dict) -> list[torch.Tensor]:
    student = given["student_projection"]
    return list(torch.autograd.grad(loss, [given["student_ND"], student.weight, student.bias]))


def composed(given: dict) -> torch.Tensor:
    """The same loss by autograd through whole logits, from the definition alone."""
    student_NV = F.linear(given["student_ND"], given["student_projection"].weight, given["student_projection"].bias)
    teacher_NV = F.linear(given["teacher_ND"], given["teacher_projection"].weight, given["teacher_projection"].bias)
    t_NV = (teacher_NV / 2).softmax(-1)
    ce = 4 * (t_NV * (t_NV.log() - (student_NV / 2).softmax(-1).log())).sum() / N
    masked_N = given["labels_N"] != -100
    labels_M = given["labels_N"][masked_N]
    mlm = -student_NV[masked_N].softmax(-1).log()[torch.arange(len(labels_M)), labels_M].sum() / max(len(labels_M), 1)
    return 5 * ce + 2 * mlm


@pytest.mark.parametrize("masked", [[0, 3, 4, 10], [], list(range(N))], ids=["some", "none", "all"])
@pytest.mark.parametrize("chunk_tokens", [1, 4, N, 1000])
def test_the_fused_losses_and_gradients_equal_the_composed_ones(
    monkeypatch: pytest.MonkeyPatch, masked: list[int], chunk_tokens: int
) -> None:
    monkeypatch.setattr(fused, "_CHUNK_LOGITS", chunk_tokens * V)
    given = inputs(masked)
    loss, ce, mlm = fused.head_losses(**given, **WEIGHTS)
    student_NV = given["student_projection"](given["student_ND"]).detach().numpy()
    teacher_NV = given["teacher_projection"](given["teacher_ND"]).detach().numpy()
    assert ce.item() == pytest.approx(literal_ce(student_NV, teacher_NV, 2.0), rel=1e-10)
    expected = literal_mlm(student_NV[masked], np.array(masked) % V) if masked else 0.0
    assert mlm.item() == pytest.approx(expected, rel=1e-10)
    assert loss.item() == pytest.approx(5 * ce.item() + 2 * mlm.item(), rel=1e-12)
    for ours, theirs in zip(gradients(loss, given), gradients(composed(given), given), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_the_fused_gradient_follows_what_comes_after_it() -> None:
    given = inputs([1, 2])
    (single, *_), (scaled, *_) = (fused.head_losses(**given, **WEIGHTS) for _ in range(2))
    for once, thrice in zip(gradients(single, given), gradients(3 * scaled, given), strict=True):
        torch.testing.assert_close(thrice, 3 * once)


def test_the_parts_that_are_only_looked_at_and_the_teacher_have_no_gradient() -> None:
    given = inputs([1, 2])
    loss, ce, mlm = fused.head_losses(**given, **WEIGHTS)
    loss.backward()
    assert not ce.requires_grad
    assert not mlm.requires_grad
    assert given["teacher_projection"].weight.grad is None
    assert given["teacher_projection"].bias.grad is None


def test_the_fused_losses_under_bf16_autocast_are_close_and_summed_in_fp32() -> None:
    given = inputs([0, 3, 4], torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, ce, mlm = fused.head_losses(**given, **WEIGHTS)
    exact = inputs([0, 3, 4])
    assert {part.dtype for part in (loss, ce, mlm)} == {torch.float32}
    assert loss.item() == pytest.approx(composed(exact).item(), rel=0.02)
    for ours, theirs in zip(gradients(loss, given), gradients(composed(exact), exact), strict=True):
        assert ours.dtype == torch.float32
        assert (ours.double() - theirs).norm() < 0.03 * theirs.norm()
