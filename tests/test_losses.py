"""The losses against a literal implementation of the paper's formulas in NumPy, and worked examples by hand.

Shapes: N real tokens, M masked tokens, V vocabulary, D hidden size.
"""

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from conftest import randomize
from tokenizers import Tokenizer
from torch.nn import functional as F

from edge_distil import starter
from edge_distil.corpus.masking import Masking, collate
from edge_distil.corpus.prepare import from_documents
from edge_distil.corpus.stream import Stream
from edge_distil.distillation import fused
from edge_distil.distillation.losses import soft_target_loss
from edge_distil.distillation.student import student_of
from edge_distil.distillation.trainer import Distillation, LossWeights
from edge_distil.errors import UserError
from edge_distil.models import load_model

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


def test_half_precision_logits_are_summed_in_fp32() -> None:
    student, teacher = (torch.tensor(random(64, 500, seed=seed)).bfloat16() for seed in (0, 1))
    ours = soft_target_loss(student, teacher, 2.0)
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(soft_target_loss(student.double(), teacher.double(), 2.0).item(), rel=1e-5)


# All losses on the vocabulary in one pass: N tokens, the first M of them masked


def linear(seed: int, dtype: torch.dtype = torch.float64) -> torch.nn.Linear:
    layer = torch.nn.Linear(D, V, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(random(V, D, seed=seed, scale=0.7)))
        layer.bias.copy_(torch.tensor(random(V, seed=seed + 1)))
    return layer


def head(masked: int, dtype: torch.dtype = torch.float64, **weights: float) -> dict[str, Any]:
    """Arguments of `head_losses`; by default all losses count."""
    counts = {"tokens": torch.tensor(N), "masked": torch.tensor(max(masked, 1))}
    weights = {"temperature": 2.0, "alpha_ce": 5.0, "alpha_mlm": 2.0, "alpha_mse": 0.25} | weights
    return {
        "student_ND": torch.tensor(random(N, D), dtype=dtype, requires_grad=True),
        "student_projection": linear(10, dtype),
        "labels_M": torch.arange(masked) % V,
        "weights": fused.HeadWeights(**counts, **weights),
        "teacher_ND": torch.tensor(random(N, D, seed=1), dtype=dtype),
        "teacher_projection": linear(20, dtype),
    }


def gradients(loss: torch.Tensor, given: dict[str, Any]) -> list[torch.Tensor]:
    student = given["student_projection"]
    return list(torch.autograd.grad(loss, [given["student_ND"], student.weight, student.bias]))


def composed(given: dict[str, Any]) -> torch.Tensor:
    """The same loss by autograd through whole logits, from the definitions alone."""
    weights, labels_M = given["weights"], given["labels_M"]
    student_NV = F.linear(given["student_ND"], given["student_projection"].weight, given["student_projection"].bias)
    teacher_NV = F.linear(given["teacher_ND"], given["teacher_projection"].weight, given["teacher_projection"].bias)
    temperature = weights.temperature
    t_NV = (teacher_NV / temperature).softmax(-1)
    ce = temperature**2 * (t_NV * (t_NV.log() - (student_NV / temperature).softmax(-1).log())).sum() / N
    mlm = -student_NV.softmax(-1).log()[torch.arange(len(labels_M)), labels_M].sum() / max(len(labels_M), 1)
    mse = ((student_NV - teacher_NV) ** 2).sum() / N
    return weights.alpha_ce * ce + weights.alpha_mlm * mlm + weights.alpha_mse * mse


def logits(given: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    of_student = given["student_projection"](given["student_ND"])
    of_teacher = given["teacher_projection"](given["teacher_ND"])
    return of_student.detach().numpy(), of_teacher.detach().numpy()


@pytest.mark.parametrize("masked", [4, 0, N])
@pytest.mark.parametrize("chunk_tokens", [1, 4, N, 1000])
def test_the_fused_losses_and_gradients_equal_the_literal_ones(
    monkeypatch: pytest.MonkeyPatch, masked: int, chunk_tokens: int
) -> None:
    monkeypatch.setattr(fused, "_CHUNK_LOGITS", {"cpu": chunk_tokens * V})
    given = head(masked)
    loss, parts = fused.head_losses(**given)
    student_NV, teacher_NV = logits(given)
    labels_M = given["labels_M"].numpy()
    assert parts["ce"].item() == pytest.approx(literal_ce(student_NV, teacher_NV, 2.0), rel=1e-10)
    expected = literal_mlm(student_NV[:masked], labels_M) if masked else 0.0
    assert parts["mlm"].item() == pytest.approx(expected, rel=1e-10)
    assert parts["mse"].item() == pytest.approx(((student_NV - teacher_NV) ** 2).sum() / N, rel=1e-10)
    whole = 5 * parts["ce"] + 2 * parts["mlm"] + 0.25 * parts["mse"]
    assert loss.item() == pytest.approx(whole.item(), rel=1e-12)
    for ours, theirs in zip(gradients(loss, given), gradients(composed(given), given), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("off", ["alpha_ce", "alpha_mlm", "alpha_mse"])
def test_a_loss_of_weight_0_is_neither_computed_nor_returned(off: str) -> None:
    given = head(4, **{off: 0.0})
    loss, parts = fused.head_losses(**given)
    assert parts.keys() == {"ce", "mlm", "mse"} - {off.removeprefix("alpha_")}
    for ours, theirs in zip(gradients(loss, given), gradients(composed(given), given), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_without_a_teacher_the_masked_lm_loss_is_left() -> None:
    given = head(N, alpha_ce=0.0, alpha_mse=0.0)
    expected = composed(given)
    loss, parts = fused.head_losses(**{**given, "teacher_ND": None, "teacher_projection": None})
    assert parts.keys() == {"mlm"}
    for ours, theirs in zip(gradients(loss, given), gradients(expected, given), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_the_losses_of_two_parts_add_up_to_those_of_the_whole() -> None:
    given = head(4)
    whole = fused.head_losses(**given)[0]
    total = torch.zeros((), dtype=torch.float64)
    for rows, labels in ((slice(0, 3), slice(0, 3)), (slice(3, N), slice(3, 4))):
        part = {name: given[name][rows] for name in ("student_ND", "teacher_ND")}
        total = total + fused.head_losses(**{**given, **part, "labels_M": given["labels_M"][labels]})[0]
    assert total.item() == pytest.approx(whole.item(), rel=1e-12)
    for ours, theirs in zip(gradients(total, given), gradients(whole, given), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_the_fused_gradient_follows_what_comes_after_it() -> None:
    given = head(2)
    single, scaled = (fused.head_losses(**given)[0] for _ in range(2))
    for once, thrice in zip(gradients(single, given), gradients(3 * scaled, given), strict=True):
        torch.testing.assert_close(thrice, 3 * once)


def test_the_parts_that_are_only_looked_at_and_the_teacher_have_no_gradient() -> None:
    given = head(2)
    loss, parts = fused.head_losses(**given)
    loss.backward()
    assert not any(part.requires_grad for part in parts.values())
    assert given["teacher_projection"].weight.grad is None
    assert given["teacher_projection"].bias.grad is None


def test_the_fused_losses_under_bf16_autocast_are_close_and_summed_in_fp32() -> None:
    given = head(3, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, parts = fused.head_losses(**given)
    exact = head(3)
    assert {value.dtype for value in (loss, *parts.values())} == {torch.float32}
    assert loss.item() == pytest.approx(composed(exact).item(), rel=0.02)
    for ours, theirs in zip(gradients(loss, given), gradients(composed(exact), exact), strict=True):
        assert ours.dtype == torch.float32
        assert (ours.double() - theirs).norm() < 0.03 * theirs.norm()


# The whole step: student and teacher models on a batch of packed blocks


def literal_step(module: Distillation, batch: dict[str, torch.Tensor], ce_on: str) -> float:
    """The paper's loss of one batch, document by document, from the models' own logits and hidden states."""
    student, teacher = module.model, module._teacher[0]
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ("s", "t", "hs", "ht")}
    place: list[int] = []
    length = batch["input_ids"].shape[1]
    for row, (ids_L, pieces_L) in enumerate(zip(batch["input_ids"], batch["piece_ids"], strict=True)):
        for piece in range(int(pieces_L.max()) + 1):
            at = torch.nonzero(pieces_L == piece).squeeze(1)
            with torch.no_grad():
                outputs = [m(ids_L[at][None], output_hidden_states=True) for m in (student, teacher)]
            for name, output in zip(("s", "t"), outputs, strict=True):
                rows[name] += list(output.logits[0].numpy())
                rows[f"h{name}"] += list(output.hidden_states[-1][0].numpy())
            place += (row * length + at).tolist()
    masked = batch["order"][: len(batch["labels"])].tolist()
    at_masked = [place.index(position) for position in masked]
    s_NV, t_NV, hs_ND, ht_ND = (np.array(rows[name]) for name in ("s", "t", "hs", "ht"))
    of_ce = at_masked if ce_on == "masked" else range(len(place))
    ce = literal_ce(s_NV[of_ce], t_NV[of_ce], 2.0)
    mse = float(((s_NV[of_ce] - t_NV[of_ce]) ** 2).sum() / len(of_ce))
    mlm = literal_mlm(s_NV[at_masked], batch["labels"].numpy())
    return 5 * ce + 2 * mlm + literal_cos(hs_ND, ht_ND) + 0.1 * mse


@pytest.mark.parametrize("ce_on", ["all", "masked"])
def test_the_loss_of_a_step_is_the_papers(
    tokenizer: Tokenizer, bert_mlm: Path, ce_on: Literal["all", "masked"]
) -> None:
    teacher = load_model(bert_mlm, "masked-lm").double()
    student = randomize(student_of(teacher)).double()
    weights = LossWeights(alpha_mse=0.1, ce_on=ce_on)
    module = Distillation(student, teacher, weights).eval()
    blocks = from_documents(starter.corpus("test", documents=6), tokenizer, 64)
    stream = Stream(blocks, Masking(tokenizer, blocks.token_counts), items=3, seed=0)
    batch = collate([stream[item] for item in range(3)])
    outputs = module(**batch, tokens=torch.tensor(len(batch["order"])), masked=torch.tensor(len(batch["labels"])))
    assert outputs["loss"].item() == pytest.approx(literal_step(module, batch, ce_on), rel=1e-9)


@pytest.mark.parametrize("ce_on", ["all", "masked"])
def test_the_gradient_is_the_same_however_the_step_is_cut(
    tokenizer: Tokenizer, bert_mlm: Path, ce_on: Literal["all", "masked"]
) -> None:
    teacher = load_model(bert_mlm, "masked-lm")
    module = Distillation(randomize(student_of(teacher)), teacher, LossWeights(alpha_mse=0.1, ce_on=ce_on)).eval()
    blocks = from_documents(starter.corpus("test", documents=12), tokenizer, 64)
    # Parts with very different numbers of masked tokens, and one with none.
    items = [
        Masking(tokenizer, probability=probability)(blocks[index], np.random.default_rng(index))
        for index, probability in enumerate((0.05, 0.15, 0.4, 0.0))
    ]
    whole = collate(items)
    counts = {"tokens": torch.tensor(len(whole["order"])), "masked": torch.tensor(len(whole["labels"]))}
    found = []
    for parts in ([items], [items[:1], items[1:]], [[item] for item in items]):
        module.zero_grad()
        for part in parts:
            module(**collate(part), **counts)["loss"].backward()
        found.append(torch.cat([w.grad.flatten() for w in module.model.parameters() if w.grad is not None]))
    for cut in found[1:]:
        assert (cut - found[0]).norm() < 1e-6 * found[0].norm()


def test_a_step_without_any_loss_is_refused() -> None:
    with pytest.raises(UserError, match="all weights of the losses are 0"):
        LossWeights(alpha_ce=0, alpha_mlm=0, alpha_cos=0)
