"""Runtimes give the library's own logits; answers do not depend on batching and stand where they say."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForQuestionAnswering

from edge_distil import qa
from edge_distil.checkpoints import MANIFEST, write_manifest
from edge_distil.errors import UserError
from edge_distil.qa import QuestionAnswerer, predict_windows
from edge_distil.runtimes import open_runtime
from edge_distil.runtimes.torch import TorchRuntime, token_type_ids
from edge_distil.tasks.decoding import DECODING, MAX_ANSWER_TOKENS, Answer, Decoding
from edge_distil.tasks.squad import Question, windows

SEP = 3


@pytest.mark.parametrize(
    ("ids", "types"),
    [
        ([2, 9, 9, 3, 7, 7, 3, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1, 1]),
        ([2, 9, 3, 7, 7, 7, 7, 7, 3], [0, 0, 0, 1, 1, 1, 1, 1, 1]),
        ([2, 9, 9, 9, 3, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 1, 1, 1]),
    ],
    ids=["pair", "no padding", "single"],
)
def test_token_types_change_after_the_first_separator(ids: list[int], types: list[int]) -> None:
    # Padding is masked, so its type has no effect.
    assert token_type_ids(torch.tensor([ids]), SEP).tolist() == [types]


def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two pairs of unlike length: ids, mask, and the token types by hand."""
    random = np.random.default_rng(0)
    ids = random.integers(5, 1000, size=(2, 40))
    ids[:, 0] = 2
    ids[0, 12], ids[0, 39], ids[1, 6], ids[1, 25] = SEP, SEP, SEP, SEP
    ids[1, 26:] = 0
    mask = (ids != 0).astype(np.int64)
    types = np.zeros_like(ids)
    types[0, 13:], types[1, 7:] = 1, 1
    return ids, mask, types


@pytest.mark.parametrize("fixture", ["bert_qa", "distilbert_qa"])
def test_the_torch_runtime_gives_the_librarys_logits(request: pytest.FixtureRequest, fixture: str) -> None:
    folder = request.getfixturevalue(fixture)
    ids, mask, types = batch()
    inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
    if fixture == "bert_qa":
        inputs["token_type_ids"] = torch.tensor(types)
    with torch.no_grad():
        expected = AutoModelForQuestionAnswering.from_pretrained(folder).eval()(**inputs)
    runtime = open_runtime(folder)
    ours = runtime(ids, mask)
    assert (runtime.name, runtime.precision, runtime.outputs) == ("torch", "fp32", ("start_logits", "end_logits"))
    real = mask.astype(bool)
    for name in runtime.outputs:
        assert ours[name].dtype == np.float32
        theirs = expected[name].numpy()
        assert theirs[real].std() > 0.01
        np.testing.assert_allclose(ours[name][real], theirs[real], rtol=1e-4, atol=1e-5)


def test_a_masked_lm_runtime_gives_logits_over_the_vocabulary(bert_mlm: Path) -> None:
    ids, mask, types = batch()
    runtime = open_runtime(bert_mlm, task="masked-lm")
    assert runtime.outputs == ("logits",)
    with torch.no_grad():
        expected = AutoModelForMaskedLM.from_pretrained(bert_mlm).eval()(
            torch.tensor(ids), attention_mask=torch.tensor(mask), token_type_ids=torch.tensor(types)
        )
    real = mask.astype(bool)
    np.testing.assert_allclose(runtime(ids, mask)["logits"][real], expected.logits.numpy()[real], rtol=1e-3, atol=1e-4)


def test_a_checkpoint_runs_in_no_other_precision(bert_qa: Path) -> None:
    with pytest.raises(UserError, match="a checkpoint runs in fp32, not int8") as caught:
        open_runtime(bert_qa, precision="int8")
    assert "export" in caught.value.hint


def test_an_artifact_that_cannot_be_run_is_named_by_its_kind(bert_qa: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(bert_qa)
    write_manifest(
        folder, kind="coreml", task="question-answering", command="export", config={}, inputs={}, measured={}
    )
    with pytest.raises(UserError, match=f"{folder}: holds no Core ML package"):
        open_runtime(folder)
    (folder / MANIFEST).unlink()
    assert open_runtime(folder).name == "torch"


@pytest.fixture(scope="module")
def answerer(bert_qa: Path) -> QuestionAnswerer:
    return QuestionAnswerer.open(bert_qa)


@pytest.fixture(scope="module")
def short(bert_qa: Path) -> QuestionAnswerer:
    """Many windows for each question."""
    return QuestionAnswerer(open_runtime(bert_qa), max_length=64, doc_stride=24)


def test_every_window_gets_its_own_logits_whatever_the_batch(
    short: QuestionAnswerer, questions: list[Question]
) -> None:
    prepared = windows(questions[:4], short.tokenizer, max_length=64, doc_stride=24)
    seen = []
    for index, start_L, end_L in predict_windows(short.runtime, prepared, 0, batch_size=5):
        ids = np.array([prepared[index].input_ids])
        alone = short.runtime(ids, np.ones_like(ids))
        np.testing.assert_allclose(start_L, alone["start_logits"][0], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(end_L, alone["end_logits"][0], rtol=1e-3, atol=1e-4)
        seen.append(index)
    assert sorted(seen) == list(range(len(prepared)))


def close(one: list[Answer], other: list[Answer]) -> bool:
    """Best answers alike; further down, scores apart by less than rounding may change places."""
    return (one[0].text, one[0].start, one[0].end) == (other[0].text, other[0].start, other[0].end) and np.allclose(
        [answer.score for answer in one], [answer.score for answer in other], atol=1e-4
    )


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_answers_do_not_depend_on_the_batch(
    short: QuestionAnswerer, questions: list[Question], batch_size: int
) -> None:
    asked = questions[:6]
    together = short.ask_all(asked, batch_size=batch_size)
    assert list(together) == [question.id for question in asked]
    for question in asked:
        alone = short.ask(question.question, question.context, n_best=20)
        assert close(together[question.id], alone)


def test_answers_stand_where_they_say_best_first(short: QuestionAnswerer, questions: list[Question]) -> None:
    answers = short.ask_all(questions)
    for question in questions:
        ranked = answers[question.id]
        assert len(ranked) == 20
        assert all(answer.text == question.context[answer.start : answer.end] != "" for answer in ranked)
        scores = [answer.score for answer in ranked]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1)


def test_asking_for_n_best_gives_so_many(answerer: QuestionAnswerer, questions: list[Question]) -> None:
    question = questions[0]
    three = answerer.ask(question.question, question.context, n_best=3)
    assert len(three) == 3
    assert answerer.ask(question.question, question.context) == three[:1]


def test_an_empty_answer_is_among_the_ranked_where_questions_may_be_unanswerable(
    bert_qa: Path, questions: list[Question]
) -> None:
    runtime = open_runtime(bert_qa)
    question = questions[0]
    ranked = QuestionAnswerer(runtime, unanswerable=True).ask(question.question, question.context, n_best=21)
    assert [(answer.start, answer.end) for answer in ranked if not answer.text] == [(0, 0)]
    assert sum(answer.score for answer in ranked) == pytest.approx(1)


def test_progress_counts_every_question_once_in_all(short: QuestionAnswerer, questions: list[Question]) -> None:
    steps: list[float] = []
    short.ask_all(questions[:3], progress=steps.append)
    assert len(steps) == len(windows(questions[:3], short.tokenizer, max_length=64, doc_stride=24)) > 6
    assert sum(steps) == pytest.approx(3)


def test_answers_do_not_depend_on_how_many_questions_are_taken_at_a_time(
    short: QuestionAnswerer, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = short.ask_all(questions[:7])
    monkeypatch.setattr(qa, "_AT_ONCE", 2)
    apart = short.ask_all(questions[:7])
    assert list(apart) == list(together) == [question.id for question in questions[:7]]
    for identifier, answers in together.items():
        assert [(a.text, a.start) for a in apart[identifier]] == [(a.text, a.start) for a in answers]


class Oracle:
    """A runtime that knows which tokens answer: highest logits at the positions of one word."""

    name, precision, outputs = "oracle", "fp32", ("start_logits", "end_logits")
    lengths: tuple[int, ...] | None = None
    batch_size: int | None = None

    def __init__(self, folder: Path, token_id: int, lengths: tuple[int, ...] | None = None) -> None:
        self.folder, self.token_id, self.lengths = folder, token_id, lengths
        self.shapes: set[tuple[int, ...]] = set()

    def __call__(self, input_ids_BL: np.ndarray, attention_mask_BL: np.ndarray) -> dict[str, np.ndarray]:
        self.shapes.add(input_ids_BL.shape)
        logits = np.where(input_ids_BL == self.token_id, 10.0, 0.0).astype(np.float32)
        return {"start_logits": logits, "end_logits": logits}


@pytest.mark.parametrize("lengths", [None, (32,), (24, 32)])
def test_an_answer_in_the_last_window_is_found_at_its_place(bert_qa: Path, lengths: tuple[int, ...] | None) -> None:
    context = "The bridge. " * 60 + "👍🏽 A river!"
    open_tokenizer = QuestionAnswerer.open(bert_qa).tokenizer
    runtime = Oracle(bert_qa, open_tokenizer.token_to_id("river"), lengths)
    answerer = QuestionAnswerer(runtime, max_length=48, doc_stride=8)
    best = answerer.ask("What stands there?", context)[0]
    assert (best.text, best.start, best.end) == ("river", context.index("river"), context.index("river") + 5)
    assert best.score > 0.9
    if lengths:
        assert {length for _, length in runtime.shapes} <= set(lengths)


def test_an_answer_is_found_in_twenty_thousand_words_wherever_it_stands(bert_qa: Path) -> None:
    tokenizer = QuestionAnswerer.open(bert_qa).tokenizer
    answerer = QuestionAnswerer(Oracle(bert_qa, tokenizer.token_to_id("river")))
    for place in (0, 9_876, 19_999):
        words = ["bridge"] * 20_000
        words[place] = "River"
        context = " ".join(words)
        best = answerer.ask("What stands there?", context)[0]
        assert (best.text, best.start) == ("River", 7 * place)
        assert context[best.start : best.end] == best.text


class Spanning(Oracle):
    """As `Oracle`, for a span: it begins at one word and ends at another."""

    def __init__(self, folder: Path, first_id: int, last_id: int) -> None:
        super().__init__(folder, first_id)
        self.last_id = last_id

    def __call__(self, input_ids_BL: np.ndarray, attention_mask_BL: np.ndarray) -> dict[str, np.ndarray]:
        starts = super().__call__(input_ids_BL, attention_mask_BL)["start_logits"]
        return {"start_logits": starts, "end_logits": np.where(input_ids_BL == self.last_id, 10.0, 0.0)}


@pytest.mark.parametrize("before", range(20, 44))
def test_an_answer_across_a_windows_edge_is_found_in_the_next_window(bert_qa: Path, before: int) -> None:
    # Windows of 48 tokens, 4 + 3 of them for the question, begin 8 tokens apart: each place in them is tried.
    tokenizer = QuestionAnswerer.open(bert_qa).tokenizer
    runtime = Spanning(bert_qa, *(tokenizer.token_to_id(word) for word in ("stone", "river")))
    context = f"{'the ' * before}Stone, the River! {'the ' * 60}"
    best = QuestionAnswerer(runtime, max_length=48, doc_stride=8).ask("What is there?", context)[0]
    assert best.text == "Stone, the River"
    assert best.start == 4 * before


@pytest.mark.parametrize("between", [MAX_ANSWER_TOKENS - 2, MAX_ANSWER_TOKENS - 1])
def test_an_answer_has_at_most_thirty_tokens(bert_qa: Path, between: int) -> None:
    tokenizer = QuestionAnswerer.open(bert_qa).tokenizer
    runtime = Spanning(bert_qa, *(tokenizer.token_to_id(word) for word in ("stone", "river")))
    best = QuestionAnswerer(runtime).ask("What is there?", f"A stone {'the ' * between}river.")[0]
    assert (best.text.endswith("river") and best.text.startswith("stone")) == (between + 2 <= 30)


def test_the_decoding_of_the_folder_is_used_unless_another_is_given(
    bert_qa: Path, questions: list[Question], copy_of: Callable[[Path], Path]
) -> None:
    folder, question = copy_of(bert_qa), questions[0]
    plain = QuestionAnswerer.open(folder).ask(question.question, question.context, n_best=20)
    Decoding(temperature=3.0, null_threshold=-1e6).save(folder)
    answerer = QuestionAnswerer(open_runtime(folder))
    found = answerer.ask(question.question, question.context, n_best=20)
    assert [answer.text for answer in found] == [answer.text for answer in plain]
    weights = np.array([answer.score for answer in plain]) ** (1 / 3)
    np.testing.assert_allclose([answer.score for answer in found], weights / weights.sum(), rtol=1e-6)
    answerer.unanswerable = True
    assert answerer.ask(question.question, question.context)[0].text == ""
    other = QuestionAnswerer(open_runtime(folder), decoding=Decoding())
    assert other.ask(question.question, question.context, n_best=20) == plain


def test_a_broken_decoding_is_an_error_when_the_model_is_opened(bert_qa: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(bert_qa)
    (folder / DECODING).write_text('{"temperature": 0}')
    with pytest.raises(UserError, match=r"decoding\.json: a temperature of 0 is not above 0"):
        QuestionAnswerer(open_runtime(folder))


def test_loading_a_runtime_without_the_head_points_at_finetune(bert_mlm: Path) -> None:
    with pytest.raises(UserError, match="has no question-answering head") as caught:
        TorchRuntime.load(bert_mlm, task="question-answering")
    assert f"edge-distil finetune --task squad --model {bert_mlm}" in caught.value.hint
