"""A piece of a packed block has the hidden states that it would have alone, whatever else is in its block."""

import pytest
import torch
from families import FAMILIES, masked_lm
from transformers import PreTrainedModel

from edge_distil import cpu
from edge_distil.distillation.packed import packed_inputs

# The pieces of each row of a batch, by their lengths; what is left of 24 tokens is padding.
ROWS = ([7, 5, 12], [9, 11], [24], [1], [])
LENGTH = 24


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module", params=["eager", "sdpa", cpu.ATTENTION])
def model(request: pytest.FixtureRequest, family: str) -> PreTrainedModel:
    model = masked_lm(family)
    model.set_attn_implementation(request.param)
    return model


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(5, 800, shape, generator=torch.Generator().manual_seed(0))


def packed(rows: tuple[list[int], ...], pad_id: int) -> dict[str, torch.Tensor]:
    """What `packed_inputs` takes beside the model."""
    ids_BL = tokens(len(rows), LENGTH)
    piece_BL = torch.full((len(rows), LENGTH), -1)
    position_BL = torch.zeros((len(rows), LENGTH), dtype=torch.long)
    for row, lengths in enumerate(rows):
        for piece, length in enumerate(lengths):
            first = sum(lengths[:piece])
            piece_BL[row, first : first + length] = piece
            position_BL[row, first : first + length] = torch.arange(length)
    ids_BL[piece_BL < 0] = pad_id
    return {"input_ids_BL": ids_BL, "piece_ids_BL": piece_BL, "position_ids_BL": position_BL}


def alone(model: PreTrainedModel, ids_BL: torch.Tensor, rows: tuple[list[int], ...]) -> torch.Tensor:
    """The hidden states of all pieces in turn, [N, D], each run by the library in a batch of its own."""
    pieces = [
        piece for ids_L, lengths in zip(ids_BL, rows, strict=True) for piece in ids_L[: sum(lengths)].split(lengths)
    ]
    return torch.cat([model.base_model(piece[None]).last_hidden_state[0] for piece in pieces if len(piece)])


@torch.no_grad()
def test_packed_pieces_have_the_hidden_states_that_they_have_alone(model: PreTrainedModel) -> None:
    batch = packed(ROWS, model.config.pad_token_id)
    hidden_BLD = model.base_model(**packed_inputs(model, **batch)).last_hidden_state
    ours_ND = hidden_BLD[batch["piece_ids_BL"] >= 0]
    theirs_ND = alone(model, batch["input_ids_BL"], ROWS)
    torch.testing.assert_close(ours_ND, theirs_ND, rtol=0, atol=1e-5)
    # The tolerance means something: the same tokens in one another's sight differ by far more.
    mixed_ND = model.base_model(batch["input_ids_BL"]).last_hidden_state[batch["piece_ids_BL"] >= 0]
    assert (mixed_ND - theirs_ND).abs().max() > 0.1


def test_padding_gives_finite_states_and_gradients(model: PreTrainedModel) -> None:
    batch = packed(ROWS, model.config.pad_token_id)
    model.zero_grad()
    hidden_BLD = model.base_model(**packed_inputs(model, **batch)).last_hidden_state
    hidden_BLD[batch["piece_ids_BL"] >= 0].square().sum().backward()
    assert hidden_BLD.isfinite().all()
    gradients = [parameter.grad for parameter in model.base_model.parameters() if parameter.grad is not None]
    assert len(gradients) > 30
    assert all(gradient.isfinite().all() for gradient in gradients)


@torch.no_grad()
def test_what_stands_in_the_padding_changes_nothing(model: PreTrainedModel) -> None:
    batch = packed(ROWS, model.config.pad_token_id)
    real_BL = batch["piece_ids_BL"] >= 0
    other = batch | {"input_ids_BL": torch.where(real_BL, batch["input_ids_BL"], 700)}
    one, two = (model.base_model(**packed_inputs(model, **b)).last_hidden_state[real_BL] for b in (batch, other))
    assert torch.equal(one, two)


@torch.no_grad()
def test_whole_blocks_get_no_mask_and_are_encoded_as_the_library_does(model: PreTrainedModel) -> None:
    batch = packed(([LENGTH],) * 3, model.config.pad_token_id)
    inputs = packed_inputs(model, **batch)
    assert inputs.keys() == {"input_ids", "position_ids"}
    ours, theirs = (
        model.base_model(**kwargs).last_hidden_state for kwargs in (inputs, {"input_ids": batch["input_ids_BL"]})
    )
    assert torch.equal(ours, theirs)


@torch.no_grad()
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_bf16_stays_close_to_fp32(model: PreTrainedModel, weights: torch.dtype) -> None:
    """By autocast over fp32 weights, as a trainer does it, and with weights that are bf16 themselves."""
    batch = packed(ROWS, model.config.pad_token_id)
    real_BL = batch["piece_ids_BL"] >= 0
    exact_ND = model.base_model(**packed_inputs(model, **batch)).last_hidden_state[real_BL]
    family, attention = model.config.model_type, model.config._attn_implementation
    other = masked_lm(family).to(weights)
    other.set_attn_implementation(attention)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=weights == torch.float32):
        hidden_BLD = other.base_model(**packed_inputs(other, **batch)).last_hidden_state
    assert hidden_BLD.isfinite().all()
    error = (hidden_BLD[real_BL].float() - exact_ND).norm() / exact_ND.norm()
    assert error < 0.05


def test_roberta_counts_positions_from_behind_its_pad_id() -> None:
    model = masked_lm("roberta", pad_token_id=1)
    batch = packed(([2, 3],), 1)
    position_ids_BL = packed_inputs(model, **batch)["position_ids"]
    assert position_ids_BL[0, :5].tolist() == [2, 3, 2, 3, 4]


@torch.no_grad()
def test_the_last_usable_position_can_be_used(family: str) -> None:
    model = masked_lm(family)  # 96 usable positions, of any family
    ids_BL, piece_BL = tokens(1, 96), torch.zeros((1, 96), dtype=torch.long)
    inputs = packed_inputs(model, ids_BL, piece_BL, torch.arange(96)[None])
    embedded = {"bert": 95, "distilbert": 95, "roberta": 97}[family]
    assert inputs["position_ids"].max() == embedded == model.config.max_position_embeddings - 1
    assert model.base_model(**inputs).last_hidden_state.isfinite().all()


def test_an_attention_that_takes_no_such_mask_is_refused() -> None:
    model = masked_lm("bert")
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="flash_attention_2"):
        packed_inputs(model, **packed(ROWS, 0))
