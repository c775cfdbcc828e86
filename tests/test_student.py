"""The student starts as the teacher's embeddings, head and every second layer, and sees what the teacher sees."""

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, DistilBertForMaskedLM

from edge_distil.distillation.pretraining import before_projection
from edge_distil.distillation.student import student_of, teacher_layers
from edge_distil.errors import UserError
from edge_distil.models import load_model

# A part of BERT's layer, and of DistilBERT's, as both papers' code names them.
PARTS = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}


@pytest.fixture(scope="module")
def teacher(bert_mlm: Path) -> BertForMaskedLM:
    return load_model(bert_mlm, "masked-lm")


@pytest.fixture(scope="module")
def student(teacher: BertForMaskedLM) -> DistilBertForMaskedLM:
    return student_of(teacher).eval()


@pytest.mark.parametrize(
    ("count", "chosen"),
    [(12, [0, 2, 4, 7, 9, 11]), (6, [0, 2, 5]), (5, [0, 4]), (4, [0, 3]), (3, [0]), (2, [0])],
)
def test_half_of_the_layers_are_chosen_from_first_to_last(count: int, chosen: list[int]) -> None:
    assert teacher_layers(count) == chosen


def test_a_single_layer_cannot_be_halved() -> None:
    with pytest.raises(UserError, match="the teacher has 1 layer") as caught:
        teacher_layers(1)
    assert "two layers or more" in caught.value.hint


@pytest.mark.parametrize(("mine", "theirs"), [(0, 0), (1, 3)])
def test_each_layer_holds_the_weights_of_its_teacher_layer(
    teacher: BertForMaskedLM, student: DistilBertForMaskedLM, mine: int, theirs: int
) -> None:
    ours, source = (
        student.distilbert.transformer.layer[mine].state_dict(),
        teacher.bert.encoder.layer[theirs].state_dict(),
    )
    expected = {
        f"{to}.{kind}": source[f"{origin}.{kind}"] for origin, to in PARTS.items() for kind in ("weight", "bias")
    }
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(ours[name], value), name


@pytest.fixture(scope="module")
def ids_BL() -> torch.Tensor:
    return torch.randint(5, 1000, (3, 100), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_the_embeddings_of_plain_text_are_the_teachers(
    teacher: BertForMaskedLM, student: DistilBertForMaskedLM, ids_BL: torch.Tensor
) -> None:
    torch.testing.assert_close(
        student.distilbert.embeddings(ids_BL), teacher.bert.embeddings(ids_BL), rtol=1e-6, atol=1e-6
    )


@torch.no_grad()
def test_the_first_layer_and_the_head_compute_what_the_teachers_do(
    teacher: BertForMaskedLM, student: DistilBertForMaskedLM, ids_BL: torch.Tensor
) -> None:
    mask_BL = torch.ones_like(ids_BL)
    mask_BL[1, 60:] = 0
    ours, theirs = (
        model.base_model(ids_BL, attention_mask=mask_BL, output_hidden_states=True).hidden_states[1][mask_BL.bool()]
        for model in (student, teacher)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    logits = [model.get_output_embeddings()(before_projection(model, theirs)) for model in (student, teacher)]
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-5, atol=1e-5)
    # `before_projection` and the projection are all that a head does.
    torch.testing.assert_close(logits[1], teacher.cls(theirs))


def test_the_output_projection_is_tied_to_the_word_embeddings(student: DistilBertForMaskedLM) -> None:
    assert student.vocab_projector.weight is student.distilbert.embeddings.word_embeddings.weight


def test_the_student_shares_no_memory_with_its_teacher(teacher: BertForMaskedLM) -> None:
    student = student_of(teacher)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1)
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_student_has_half_the_layers_no_token_types_and_no_pooler(
    teacher: BertForMaskedLM, student: DistilBertForMaskedLM
) -> None:
    # Four square projections, two of the feed-forward layer, two norms, each with its bias; D = 32, F = 64.
    layer = 4 * (32 * 32 + 32) + (32 * 64 + 64) + (64 * 32 + 32) + 2 * (2 * 32)
    vocabulary = teacher.config.vocab_size
    embeddings = vocabulary * 32 + 384 * 32 + 2 * 32
    head = 32 * 32 + 32 + 2 * 32 + vocabulary
    assert sum(p.numel() for p in student.parameters()) == 2 * layer + embeddings + head
    assert sum(p.numel() for p in teacher.parameters()) == 4 * layer + embeddings + 2 * 32 + head
    assert student.config.n_layers == 2
    assert not [name for name in student.state_dict() if "token_type" in name or "pooler" in name]


def test_a_teacher_with_another_activation_is_refused(teacher: BertForMaskedLM) -> None:
    config = BertConfig(**teacher.config.to_dict() | {"hidden_act": "relu"})
    with pytest.raises(UserError, match="hidden_act is 'relu'") as caught:
        student_of(BertForMaskedLM(config))
    assert "GELU" in caught.value.hint
