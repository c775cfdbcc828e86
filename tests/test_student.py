"""The student starts as the teacher's embeddings, head and every second layer, and sees what the teacher sees."""

import copy
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from families import FAMILIES, byte_level, masked_lm, wordpiece
from transformers import BertConfig, BertForMaskedLM, DistilBertForMaskedLM, PreTrainedModel, RobertaForMaskedLM

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


@pytest.mark.parametrize("count", range(4, 25))
def test_the_chosen_layers_are_spaced_as_evenly_as_whole_numbers_can_be(count: int) -> None:
    chosen = teacher_layers(count)
    gaps = {after - before for before, after in pairwise(chosen)}
    assert (len(chosen), chosen[0], chosen[-1]) == (count // 2, 0, count - 1)
    assert max(gaps) - min(gaps) <= 1


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


@torch.no_grad()
def test_without_folding_the_token_type_is_dropped(teacher: BertForMaskedLM, ids_BL: torch.Tensor) -> None:
    """As in the published recipe: the student's embeddings are the teacher's without their third summand."""
    student = student_of(teacher, fold_token_types=False).eval()
    without = copy.deepcopy(teacher)
    without.bert.embeddings.token_type_embeddings.weight.zero_()
    ours, theirs = student.distilbert.embeddings(ids_BL), without.bert.embeddings(ids_BL)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    assert (ours - teacher.bert.embeddings(ids_BL)).abs().max() > 0.1


def same_layer(student: PreTrainedModel, mine: int, teacher: PreTrainedModel, theirs: int) -> bool:
    """Whether two layers hold the same numbers, whatever their names."""
    if student.config.model_type == "roberta":
        ours, source = (
            student.roberta.encoder.layer[mine].state_dict(),
            teacher.roberta.encoder.layer[theirs].state_dict(),
        )
        return all(torch.equal(ours[name], source[name]) for name in source)
    ours, source = student.distilbert.transformer.layer[mine], teacher.bert.encoder.layer[theirs]
    return all(
        torch.equal(ours.get_submodule(to).weight, source.get_submodule(origin).weight) for origin, to in PARTS.items()
    )


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("layers", [[3], [0, 1], [1, 2, 4], [0, 1, 2, 3, 4]])
def test_the_layers_can_be_named(family: str, layers: list[int]) -> None:
    teacher = masked_lm(family, layers=5)
    student = student_of(teacher, layers=layers)
    assert student.config.num_hidden_layers == len(layers)
    for mine, theirs in enumerate(layers):
        assert [same_layer(student, mine, teacher, other) for other in range(5)] == [o == theirs for o in range(5)]


@pytest.mark.parametrize("init", ["teacher", "random"])
@pytest.mark.parametrize(
    ("layers", "named"), [([], "(none)"), ([0, 4], "0, 4"), ([-1], "-1"), ([1, 1], "1, 1"), ([2, 0], "2, 0")]
)
def test_layers_that_are_none_of_the_teachers_are_refused(
    teacher: BertForMaskedLM, init: str, layers: list[int], named: str
) -> None:
    with pytest.raises(UserError) as caught:
        student_of(teacher, init=init, layers=layers)  # type: ignore[arg-type]
    assert caught.value.message == f"layers {named}: are not some of 0 to 3 in order"
    assert caught.value.hint == "give --layers numbers from 0 to 3, each once and ascending"


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize(("layers", "count"), [(None, 2), ([0, 1, 3], 3)])
def test_a_random_student_is_what_the_library_makes_of_its_configuration(
    family: str, layers: list[int] | None, count: int
) -> None:
    teacher = masked_lm(family)
    torch.manual_seed(3)
    student = student_of(teacher, init="random", layers=layers)
    torch.manual_seed(3)
    fresh = type(student)(student.config)
    assert student.config.num_hidden_layers == count
    for name, value in fresh.state_dict().items():
        assert torch.equal(student.state_dict()[name], value), name
    words = student.get_input_embeddings().weight
    assert words.std().item() == pytest.approx(0.02, rel=0.05)
    assert not torch.equal(words, teacher.get_input_embeddings().weight)


def test_a_student_is_made_of_every_depth_from_2_to_24() -> None:
    for count in range(2, 25):
        teacher = masked_lm("bert", layers=count)
        student = student_of(teacher)
        for mine, theirs in enumerate(teacher_layers(count)):
            assert same_layer(student, mine, teacher, theirs)
        assert student.config.n_layers == count // 2


def test_a_roberta_gives_a_roberta_that_differs_in_its_depth_alone() -> None:
    teacher = masked_lm("roberta", layers=5)
    student = student_of(teacher, fold_token_types=True)
    assert isinstance(student, RobertaForMaskedLM)
    ours, theirs = student.config.to_dict(), teacher.config.to_dict()
    assert {name for name in theirs if ours[name] != theirs[name]} == {"num_hidden_layers"}
    outside = {name: value for name, value in teacher.state_dict().items() if ".layer." not in name}
    assert len(outside) > 8
    for name, value in outside.items():
        assert torch.equal(student.state_dict()[name], value), name
    assert [same_layer(student, mine, teacher, theirs) for mine, theirs in ((0, 0), (1, 4))] == [True, True]
    assert student.lm_head.decoder.weight is student.roberta.embeddings.word_embeddings.weight
    assert student.lm_head.decoder.weight.data_ptr() != teacher.lm_head.decoder.weight.data_ptr()


@torch.no_grad()
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_student_of_all_the_layers_computes_what_its_teacher_does(family: str) -> None:
    teacher = masked_lm(family, layers=3)
    student = student_of(teacher, layers=[0, 1, 2]).eval()
    ids_BL = torch.randint(5, 800, (2, 50), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(student(ids_BL).logits, teacher(ids_BL).logits, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_head_in_two_parts_is_the_librarys_head(family: str, dtype: torch.dtype) -> None:
    model = masked_lm(family).to(dtype)
    ids_BL = torch.randint(5, 800, (2, 50), generator=torch.Generator().manual_seed(0))
    hidden_BLD = model.base_model(ids_BL).last_hidden_state
    logits_BLV = model.get_output_embeddings()(before_projection(model, hidden_BLD))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    torch.testing.assert_close(logits_BLV, model(ids_BL).logits, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_saved_student_loads_again(family: str, tmp_path: Path) -> None:
    student = student_of(masked_lm(family))
    student.save_pretrained(tmp_path)
    (byte_level() if family == "roberta" else wordpiece()).save(str(tmp_path / "tokenizer.json"))
    loaded = load_model(tmp_path, "masked-lm")
    assert type(loaded) is type(student)
    for name, value in student.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_a_teacher_whose_projection_is_its_own_keeps_it() -> None:
    teacher = masked_lm("bert", tie_word_embeddings=False)
    student = student_of(teacher)
    assert torch.equal(student.vocab_projector.weight, teacher.cls.predictions.decoder.weight)
    assert torch.equal(
        student.distilbert.embeddings.word_embeddings.weight, teacher.bert.embeddings.word_embeddings.weight
    )
    assert not torch.equal(student.vocab_projector.weight, student.distilbert.embeddings.word_embeddings.weight)


def test_a_distilbert_is_no_teacher() -> None:
    with pytest.raises(UserError, match="a 'distilbert' model cannot be the teacher") as caught:
        student_of(masked_lm("distilbert"))
    assert caught.value.hint == "give a BERT or RoBERTa teacher"


def test_a_teacher_with_another_activation_is_refused(teacher: BertForMaskedLM) -> None:
    config = BertConfig(**teacher.config.to_dict() | {"hidden_act": "relu"})
    with pytest.raises(UserError, match="hidden_act is 'relu'") as caught:
        student_of(BertForMaskedLM(config))
    assert "GELU" in caught.value.hint
