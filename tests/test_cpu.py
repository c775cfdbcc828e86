"""Attention and dropout for CPUs against the formulas written out, with the same random numbers."""

import copy

import pytest
import torch
from families import FAMILIES, masked_lm
from transformers import PreTrainedModel

from edge_distil import cpu

ROWS, HEADS, LENGTH, WIDTH = 3, 4, 21, 8
CHANCE = 0.3


def scores_inputs(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (ROWS, HEADS, LENGTH, WIDTH)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for _ in range(3)]


def pieces() -> torch.Tensor:
    """Every row in two pieces that do not see each other: [B, 1, L, L], True where to attend."""
    piece_BL = (torch.arange(LENGTH) >= torch.tensor([5, 11, 20])[:, None]).long()
    return (piece_BL[:, :, None] == piece_BL[:, None, :])[:, None]


def ours(inputs: list[torch.Tensor], mask: torch.Tensor | None, dropout: float) -> torch.Tensor:
    torch.manual_seed(7)
    return cpu.attention(torch.nn.Module(), *inputs, mask, scaling=None, dropout=dropout)[0]


def literal(inputs: list[torch.Tensor], mask: torch.Tensor | None, dropout: float) -> torch.Tensor:
    """The same by the formula, on whole matrices; the random numbers are drawn portion by portion, as ours are."""
    torch.manual_seed(7)
    query, key, value = inputs
    scores = query @ key.transpose(-1, -2) / WIDTH**0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    probabilities = scores.softmax(dim=-1)
    if dropout:
        kept = torch.empty(probabilities.shape, dtype=torch.float64)
        for row in range(ROWS):
            signs, scale = cpu._drop_signs(probabilities[row].shape, dropout)
            kept[row] = (signs >= 0).double() * scale
        probabilities = probabilities * kept
    return (probabilities @ value).transpose(1, 2)


@pytest.mark.parametrize("dropout", [0.0, CHANCE])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_and_its_gradient_are_those_of_the_formula(masked: bool, dropout: float) -> None:
    mask = pieces() if masked else None
    weight = torch.randn(ROWS, LENGTH, HEADS, WIDTH, generator=torch.Generator().manual_seed(2)).double()
    results = []
    for attend in (ours, literal):
        inputs = scores_inputs()
        output = attend(inputs, mask, dropout)
        (output * weight).sum().backward()
        results.append([output, *(tensor.grad for tensor in inputs)])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_a_long_row_is_worked_on_in_several_portions_with_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scores_inputs()
    ours(whole, None, 0.0).sum().backward()
    monkeypatch.setattr(cpu, "_SCORES", 2 * LENGTH**2)
    assert len(cpu._parts(ROWS, HEADS, LENGTH)) == 2 * ROWS
    # A chance too small to drop anything takes the way of dropout.
    portions = scores_inputs()
    ours(portions, None, 1e-9).sum().backward()
    for mine, theirs in zip(portions, whole, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dropout", [0.0, CHANCE])
def test_in_bf16_attention_stays_within_the_types_own_rounding(dropout: float) -> None:
    exact, rounded = scores_inputs(), scores_inputs(torch.bfloat16)
    for inputs in (exact, rounded):
        ours(inputs, pieces(), dropout).square().sum().backward()
    for reference, mine in zip(exact, rounded, strict=True):
        assert reference.grad is not None
        assert mine.grad is not None
        noise = (mine.grad.double() - reference.grad).norm() / reference.grad.norm()
        assert noise < 0.02  # bf16 keeps 8 bits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_zeroes_the_share_that_it_is_told_and_scales_the_rest(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    values = torch.ones(1_000_003, dtype=dtype, requires_grad=True)
    module = cpu.Dropout(0.1).train()
    output = module(values)
    share = (output == 0).double().mean().item()
    assert share == pytest.approx(0.1, abs=4 * (0.1 * 0.9 / 1e6) ** 0.5)
    assert output.unique().tolist() == [0.0, pytest.approx(1 / 0.9, rel=4e-3)]
    output.sum().backward()
    torch.testing.assert_close(values.grad, output)  # the same elements, the same scale
    neighbours = (output[1:] == 0) & (output[:-1] == 0)
    assert neighbours.double().mean().item() == pytest.approx(0.01, abs=5e-4)  # each by its own number
    assert module.eval()(values) is values
    assert not cpu.Dropout(1.0).train()(values).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prepared_model_is_the_same_model(family: str) -> None:
    model: PreTrainedModel = masked_lm(family).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    prepared = copy.deepcopy(model)
    cpu.prepare(prepared)
    assert prepared.state_dict().keys() == model.state_dict().keys()
    assert prepared.config.to_json_string() == model.config.to_json_string()
    ids_BL = torch.randint(5, 800, (2, 12), generator=torch.Generator().manual_seed(0))
    mask_BL = torch.ones_like(ids_BL)
    mask_BL[1, 9:] = 0
    with torch.no_grad():
        theirs, mine = (each(ids_BL, attention_mask=mask_BL).logits[mask_BL == 1] for each in (model, prepared))
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)
        prepared.train()
        assert (prepared(ids_BL, attention_mask=mask_BL).logits[mask_BL == 1] - theirs).abs().max() > 1e-3
    layers = [module for module in prepared.modules() if isinstance(module, torch.nn.Dropout)]
    assert layers
    assert all(type(module) is cpu.Dropout and module.p == 0.1 for module in layers)


@pytest.mark.parametrize("size", [0.01, 100.0, float("nan")])
def test_gradients_are_clipped_as_torch_does(size: float) -> None:
    models = []
    for clip in (cpu.clip_gradients, torch.nn.utils.clip_grad_norm_):
        torch.manual_seed(0)
        model = torch.nn.Linear(5, 3)
        unused = torch.nn.Parameter(torch.ones(2))  # has no gradient
        (model(torch.ones(2, 5)).square().sum() * size).backward()
        norm = clip([*model.parameters(), unused], 1.0)
        models.append([norm, *(parameter.grad for parameter in model.parameters())])
    for mine, theirs in zip(*models, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0 if size < 1 else 1e-6, atol=0, equal_nan=True)
