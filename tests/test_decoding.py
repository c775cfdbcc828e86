"""Logits to answers, held against a search over all spans; thresholds and temperatures, against every other choice."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from edge_distil.checkpoints import read_manifest
from edge_distil.errors import UserError
from edge_distil.qa import QuestionAnswerer
from edge_distil.report.reliability import plot
from edge_distil.tasks.decoding import (
    DECODING,
    Bin,
    Decoding,
    Spans,
    best_spans,
    calibration_error,
    fit_temperature,
    reliability,
    tune,
    tune_null_threshold,
)
from edge_distil.tasks.metrics import score_squad
from edge_distil.tasks.squad import Question, Window, windows
from exporters import export, gate

# Spans


def brute_force(
    triples: list[tuple[Window, np.ndarray, np.ndarray]], n_best: int, max_answer_tokens: int
) -> list[tuple[float, int, int]]:
    """Every span of every window, best first."""
    best: dict[tuple[int, int], float] = {}
    for window, start_L, end_L in triples:
        for i in range(window.context_start, window.context_end):
            for j in range(i, min(i + max_answer_tokens, window.context_end)):
                span = (
                    int(window.offsets_C2[i - window.context_start, 0]),
                    int(window.offsets_C2[j - window.context_start, 1]),
                )
                best[span] = max(best.get(span, -np.inf), float(start_L[i]) + float(end_L[j]))
    return sorted(((logit, *span) for span, logit in best.items()), key=lambda row: (-row[0], row[1:]))[:n_best]


def random_logits(prepared: list[Window], seed: int) -> list[tuple[Window, np.ndarray, np.ndarray]]:
    # Large ones at [CLS], the question and [SEP] too: a decoder that looked there would be seen.
    random = np.random.default_rng(seed)
    return [(window, *random.normal(scale=3, size=(2, len(window.input_ids))).astype("f4")) for window in prepared]


@pytest.mark.parametrize(("n_best", "max_answer_tokens"), [(20, 30), (5, 3), (1, 1), (400, 7)])
@pytest.mark.parametrize("seed", range(3))
def test_the_best_spans_are_those_of_a_search_over_all_spans(
    questions: list[Question], tokenizer: Tokenizer, seed: int, n_best: int, max_answer_tokens: int
) -> None:
    context = questions[0].context
    triples = random_logits(windows(questions[:1], tokenizer, max_length=64, doc_stride=16), seed)
    assert len(triples) > 2
    spans = best_spans(triples, context, n_best=n_best, max_answer_tokens=max_answer_tokens)
    expected = brute_force(triples, n_best, max_answer_tokens)
    assert list(spans.places) == [(start, end) for _, start, end in expected]
    assert spans.logits_N.tolist() == [logit for logit, _, _ in expected]
    found = Decoding().answers(spans)
    assert all(answer.text == context[answer.start : answer.end] != "" for answer in found)
    weights = np.exp(spans.logits_N)
    np.testing.assert_allclose([answer.score for answer in found], weights / weights.sum(), rtol=1e-9)


def two_tokens(
    start: list[float], end: list[float], offsets: tuple[tuple[int, int], tuple[int, int]] = ((0, 3), (4, 10))
) -> tuple[Window, np.ndarray, np.ndarray]:
    """[CLS] q [SEP] the bridge [SEP], with logits for each."""
    return Window(0, [2, 9, 3, 10, 11, 3], 3, np.array(offsets)), np.array(start), np.array(end)


@pytest.mark.parametrize(("temperature", "scores"), [(1.0, [6 / 10, 3 / 10, 1 / 10]), (0.5, [36 / 46, 9 / 46, 1 / 46])])
def test_scores_are_the_soft_max_over_the_spans_by_hand(temperature: float, scores: list[float]) -> None:
    # the: 0 + 0; the bridge: 0 + ln 3; bridge: ln 2 + ln 3; "bridge the" is no span. Weights 1, 3 and 6, or squared.
    logits = two_tokens([9, 9, 9, 0, np.log(2), 9], [9, 9, 9, 0, np.log(3), 9])
    found = Decoding(temperature).answers(best_spans([logits], "The bridge"))
    assert [(answer.text, answer.start, answer.end) for answer in found] == [
        ("bridge", 4, 10),
        ("The bridge", 0, 10),
        ("The", 0, 3),
    ]
    assert [answer.score for answer in found] == pytest.approx(scores)


def test_overlapping_windows_count_a_span_once_with_its_best_logit() -> None:
    low = two_tokens([0] * 6, [0] * 6)
    high = two_tokens([0, 0, 0, 1, 0, 0], [0, 0, 0, 1, 0, 0])
    for order in ([low, high], [high, low]):
        spans = best_spans(order, "The bridge")
        assert spans.places == ((0, 3), (0, 10), (4, 10))
        assert spans.logits_N.tolist() == [2, 1, 0]


def test_equal_logits_go_to_the_earlier_then_the_shorter_span() -> None:
    assert best_spans([two_tokens([0] * 6, [0] * 6)], "The bridge").places == ((0, 3), (0, 10), (4, 10))


@pytest.mark.parametrize(("other_null", "rank"), [(9.0, 0), (2.0, 1), (-9.0, 3)])
def test_the_empty_answer_takes_its_rank_by_the_least_cls_logit_of_the_windows(other_null: float, rank: int) -> None:
    # "The bridge" has 2 + 3, "bridge" −1.5 + 3, "The" 2 − 3; [CLS] has 8 in one window and `other_null` in the other.
    logits_start = [4.0, 0, 0, 2.0, -1.5, 0]
    logits_end = [4.0, 0, 0, -3.0, 3.0, 0]
    one = two_tokens(logits_start, logits_end)
    two = two_tokens([other_null / 2, *logits_start[1:]], [other_null / 2, *logits_end[1:]])
    null = min(8.0, other_null)
    spans = best_spans([one, two], "The bridge")
    assert spans.null_logit == null
    found = Decoding().answers(spans, unanswerable=True)
    assert [answer.text for answer in found].index("") == rank
    assert (found[rank].start, found[rank].end) == (0, 0)
    weights = np.exp([5.0, 1.5, -1.0, null])
    assert found[rank].score == pytest.approx(np.exp(null) / weights.sum())
    assert sum(answer.score for answer in found) == pytest.approx(1)
    assert all(answer.text for answer in Decoding().answers(spans))


def spans_of(logits: list[float], null_logit: float, context: str = "abcdefgh") -> Spans:
    """Letters of the context, one a span."""
    return Spans(context, tuple((i, i + 1) for i in range(len(logits))), np.array(logits), null_logit)


@pytest.mark.parametrize(
    ("null_threshold", "first"), [(None, ""), (0.0, ""), (1.49, ""), (1.5, "a"), (2.0, "a"), (-9.0, "")]
)
@pytest.mark.parametrize("temperature", [1.0, 0.1, 7.0])
def test_the_empty_answer_wins_where_its_margin_is_above_the_threshold_at_any_temperature(
    null_threshold: float | None, first: str, temperature: float
) -> None:
    decoding = Decoding(temperature, null_threshold)
    found = decoding.answers(spans_of([3.0, 1.0], 4.5), unanswerable=True)
    assert found[0].text == first
    # Its weight is that of its logit less the threshold: 1.5 above the best span's, as far as nothing moves it.
    weights = np.exp(np.array([1.5 - (null_threshold or 0.0), 0.0, -2.0]) / temperature)
    assert {answer.text: answer.score for answer in found} == pytest.approx(
        dict(zip(["", "a", "b"], weights / weights.sum(), strict=True))
    )
    assert [answer.text for answer in decoding.answers(spans_of([3.0, 1.0], 4.5))] == ["a", "b"]


def test_logits_however_large_give_scores_that_are_numbers() -> None:
    scores = [answer.score for answer in Decoding(0.05).answers(spans_of([9e4, -9e4], 2e5), unanswerable=True)]
    assert scores == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "answer",
    ["cafe\u0301", "nai\u0308ve", "❤\ufe0f", "👍🏽", "👩\u200d👩\u200d👧", "Ü\u0323ber", "กี่", "İstanbul", "東京"],
    ids=["accent at the end", "inside", "heart", "thumb", "family", "two marks", "Thai", "dotted I", "CJK"],
)
def test_accents_and_emoji_are_cut_whole_from_the_text_as_given(tokenizer: Tokenizer, answer: str) -> None:
    context = f"The {answer}, {answer} \u00a0of the bridge\r\n"
    question = Question("q", "What?", context, ())
    (window,) = windows([question], tokenizer)
    for start in (match.start() for match in re.finditer(re.escape(answer), context)):
        inside = (window.offsets_C2[:, 1] > start) & (window.offsets_C2[:, 0] < start + len(answer))
        first, last = window.context_start + np.flatnonzero(inside)[[0, -1]]
        start_L, end_L = np.zeros((2, len(window.input_ids)))
        start_L[first] = end_L[last] = 9
        found = Decoding().answers(best_spans([(window, start_L, end_L)], context))
        assert (found[0].text, found[0].start) == (answer, start)
        assert all(0 <= each.start < each.end <= len(context) for each in found)


@pytest.mark.parametrize("seed", range(3))
def test_spans_never_leave_the_context_nor_grow_beyond_the_answer_length(tokenizer: Tokenizer, seed: int) -> None:
    context = "cafe\u0301 👍🏽\u00a0 bridge\t東京\u3000of \u200bthe tower, 1912-1915 e\u0301" * 4
    question = Question("q", "What stands where the bridge stood?", context, ())
    prepared = windows([question], tokenizer, max_length=32, doc_stride=7)
    tokens = tokenizer.encode(context, add_special_tokens=False).offsets
    spans = best_spans(random_logits(prepared, seed), context, n_best=500, max_answer_tokens=4)
    assert len(spans.places) > 100
    for start, end in spans.places:
        assert 0 <= start < end <= len(context)
        assert context[start:end] == context[start:end].strip()
        assert 1 <= sum(start <= first < end for first, _ in tokens) <= 4


# decoding.json


def test_what_was_saved_is_loaded_and_no_file_means_the_defaults(tmp_path: Path) -> None:
    assert Decoding.load(tmp_path) == Decoding() == Decoding(1.0, None)
    for decoding in (Decoding(), Decoding(1.7, -0.25), Decoding(0.3, 0.1 + 0.2)):
        decoding.save(tmp_path)
        assert Decoding.load(tmp_path) == decoding
    (tmp_path / DECODING).write_text('{"null_threshold": 2}')
    assert Decoding.load(tmp_path) == Decoding(1.0, 2.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not valid JSON"),
        ("[1.0]", "is not a JSON object"),
        ('{"temprature": 2}', "unknown field 'temprature'"),
        ('{"temperature": "2"}', "field 'temperature' is '2', not a finite number"),
        ('{"temperature": null}', "field 'temperature' is None, not a finite number"),
        ('{"temperature": true}', "field 'temperature' is True, not a finite number"),
        ('{"null_threshold": NaN}', "field 'null_threshold' is nan, not a finite number"),
        ('{"null_threshold": -Infinity}', "field 'null_threshold' is -inf, not a finite number"),
        (f'{{"null_threshold": 1{"0" * 400}}}', "field 'null_threshold' is 1000"),
        ('{"temperature": 0}', "a temperature of 0 is not above 0"),
        ('{"temperature": -1}', "a temperature of -1 is not above 0"),
    ],
)
def test_a_broken_file_is_named_with_its_fault(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / DECODING).write_text(text)
    with pytest.raises(UserError) as caught:
        Decoding.load(tmp_path)
    assert caught.value.message.startswith(f"{tmp_path / DECODING}: {message}")
    assert caught.value.hint


@pytest.mark.parametrize("format", ["onnx", "coreml"])
def test_an_export_has_its_checkpoints_decoding(
    distilbert_qa: Path, questions: list[Question], tmp_path: Path, copy_of: Callable[[Path], Path], format: str
) -> None:
    checkpoint, output = copy_of(distilbert_qa), tmp_path / "out"
    Decoding(0.05, -1.5).save(checkpoint)
    export(checkpoint, output, format=format, questions=questions[:2], max_length=64, max_drop=100)  # type: ignore[arg-type]
    assert Decoding.load(output) == Decoding(0.05, -1.5)
    assert DECODING in read_manifest(output)["files"]  # type: ignore[index]


class ByToken:
    """A runtime whose start and end logits are those given for each token, 0 for all others."""

    name, precision, outputs = "by token", "fp32", ("start_logits", "end_logits")
    lengths = batch_size = None

    def __init__(self, folder: Path, logits: dict[int, float]) -> None:
        self.folder, self.logits = folder, logits

    def __call__(self, input_ids_BL: np.ndarray, attention_mask_BL: np.ndarray) -> dict[str, np.ndarray]:
        logits_BL = np.vectorize(lambda token: self.logits.get(token, 0.0))(input_ids_BL).astype(np.float32)
        return {"start_logits": logits_BL, "end_logits": logits_BL}


def test_a_cold_temperature_makes_the_gate_of_exports_no_stricter(
    bert_qa: Path, tokenizer: Tokenizer, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(bert_qa)
    Decoding(0.05).save(folder)
    bridge, river = (tokenizer.token_to_id(word) for word in ("bridge", "river"))
    # Two answers change places by half of what rounding may do to a logit.
    reference, artifact = (
        ByToken(folder, {bridge: 5, river: 5.00004}),
        ByToken(folder, {bridge: 5.00004, river: 5}),
    )
    context = "A bridge and then, well beyond any answer's length, " + "the " * 30 + "river"
    asked = [Question("q", "What?", context, ())]
    court = gate.judge(reference, asked, task="question-answering", max_length=384, max_drop=1.0)
    measured = gate.check_outputs(court, {"fp32": artifact})
    assert measured["fp32"]["same_answers"] == 100
    assert QuestionAnswerer(reference).ask("What?", context)[0].text == "river"
    assert QuestionAnswerer(artifact).ask("What?", context)[0].text == "bridge"


def test_a_checkpoint_with_a_broken_decoding_is_not_exported(
    distilbert_qa: Path, questions: list[Question], tmp_path: Path, copy_of: Callable[[Path], Path]
) -> None:
    checkpoint = copy_of(distilbert_qa)
    (checkpoint / DECODING).write_text("{")
    with pytest.raises(UserError, match=r"decoding\.json: is not valid JSON"):
        export(checkpoint, tmp_path / "out", format="onnx", questions=questions[:2], max_length=64)
    assert list(tmp_path.iterdir()) == [checkpoint]


# The threshold


def random_dev_set(seed: int, count: int) -> tuple[list[Question], dict[str, Spans]]:
    """Questions about letters, some without an answer, with margins few enough that many are equal."""
    random = np.random.default_rng(seed)
    asked, found = [], {}
    for index in range(count):
        context = "stone bridge of Ambry, the"
        kind = random.integers(4)
        golds = [(("stone bridge", 0),), (("bridge", 6), ("stone bridge of", 0)), (), (("Ambry", 16),)][kind]
        asked.append(Question(str(index), "?", context, golds))
        place = [(0, 12), (6, 12), (16, 21), (23, 26)][random.integers(4)]
        found[str(index)] = Spans(context, (place,), np.array([0.0]), float(random.integers(-6, 7)) / 2)
    return asked, found


def f1_at(asked: list[Question], found: dict[str, Spans], threshold: float) -> float:
    decoding = Decoding(null_threshold=threshold)
    predictions = {key: decoding.answers(spans, unanswerable=True)[0].text for key, spans in found.items()}
    return score_squad(asked, predictions, version_2=True)["f1"]


@pytest.mark.parametrize("count", [1, 2, 9, 60])
@pytest.mark.parametrize("seed", range(8))
def test_no_threshold_scores_better_than_the_tuned_one_and_no_lower_one_as_well(seed: int, count: int) -> None:
    asked, found = random_dev_set(seed, count)
    tuned = tune_null_threshold(asked, found)
    others = {threshold: f1_at(asked, found, threshold) for threshold in np.arange(-5, 5, 0.25).tolist()}
    best = max(others.values())
    assert f1_at(asked, found, tuned) == pytest.approx(best)
    lowest = min(threshold for threshold, score in others.items() if score == pytest.approx(best))
    assert f1_at(asked, found, lowest) == pytest.approx(best)
    # Thresholds between the same two margins are one choice: it is the first such gap that is taken.
    margins = [spans.null_margin for spans in found.values()]
    assert sum(margin > tuned for margin in margins) == sum(margin > lowest for margin in margins)
    assert min(abs(margin - tuned) for margin in margins) >= 0.25
    assert tuned == tune_null_threshold(asked[::-1], found)


def best_threshold_of_the_v2_script(
    margins: dict[str, float], scores: dict[str, float], has_answer: dict[str, bool], predictions: dict[str, str]
) -> tuple[float, float]:
    """The official search, from its definition: the best mean F1, and the threshold; margins must be distinct."""
    current = sum(not answer for answer in has_answer.values())
    best, threshold = float(current), -np.inf
    for identifier in sorted(margins, key=lambda key: margins[key]):
        if has_answer[identifier]:
            current += scores[identifier]
        elif predictions[identifier]:
            current -= 1
        if current > best:
            best, threshold = current, margins[identifier]
    return best / len(scores), threshold


@pytest.mark.parametrize("seed", range(20))
def test_the_threshold_parts_the_questions_as_the_official_search_does(seed: int) -> None:
    asked, found = random_dev_set(seed, 30)
    # An answer of which normalising leaves nothing is no answer to us, one to the script's search: left out here.
    asked = [question for question in asked if found[question.id].places[0] != (23, 26)]
    noise = np.random.default_rng(seed).uniform(size=len(asked))
    found = {
        q.id: replace(found[q.id], null_logit=found[q.id].null_logit + n) for q, n in zip(asked, noise, strict=True)
    }
    predictions = {key: spans.context[slice(*spans.places[0])] for key, spans in found.items()}
    scores = {q.id: score_squad([q], predictions, version_2=True)["f1"] / 100 for q in asked}
    margins = {key: spans.null_margin for key, spans in found.items()}
    best, threshold = best_threshold_of_the_v2_script(
        margins, scores, {q.id: bool(q.answers) for q in asked}, predictions
    )
    tuned = tune_null_threshold(asked, found)
    assert f1_at(asked, found, tuned) == pytest.approx(100 * best)
    assert {key for key in found if margins[key] > tuned} == {key for key in found if margins[key] > threshold}


# The temperature


@pytest.mark.parametrize(("right", "temperature"), [(3, 2 / np.log(3)), (2, 20.0), (1, 20.0), (4, 0.05)])
def test_the_temperature_makes_the_score_the_share_of_right_answers(right: int, temperature: float) -> None:
    # Of four questions, each of two candidates with logits 2 apart: 1 / (1 + e^(−2 / T)) = 3/4 at T = 2 / ln 3. A share
    # of a half or less, and one of all, are out of reach: the end of the range comes closest.
    fitted = fit_temperature([np.array([5.0, 3.0])] * 4, [index < right for index in range(4)])
    assert fitted == pytest.approx(temperature, rel=1e-3)


def test_a_temperature_under_which_outcomes_were_drawn_is_found_again() -> None:
    random = np.random.default_rng(1)
    logits = [np.sort(random.normal(scale=4, size=int(size)))[::-1] for size in random.integers(2, 21, size=4000)]
    shares = [1 / np.exp((logits_N - logits_N[0]) / 2.5).sum() for logits_N in logits]
    right = (random.uniform(size=4000) < shares).tolist()
    fitted = fit_temperature(logits, right)
    assert fitted == pytest.approx(2.5, rel=0.1)

    def loss(temperature: float) -> float:
        scores = np.array([1 / np.exp((logits_N - logits_N[0]) / temperature).sum() for logits_N in logits])
        return float(-np.log(np.where(right, scores, 1 - scores)).mean())

    assert loss(fitted) <= min(loss(other) for other in np.geomspace(0.5, 10, 200)) + 1e-7
    scores = [1 / np.exp((logits_N - logits_N[0]) / fitted).sum() for logits_N in logits]
    plain = [1 / np.exp(logits_N - logits_N[0]).sum() for logits_N in logits]
    assert calibration_error(scores, right) < 0.03 < calibration_error(plain, right)


@pytest.mark.parametrize(
    ("logits", "right"),
    [([[4.0], [2.0]], [True, False]), ([[1.0, 1.0], [1.0, 1.0, 1.0]], [True, False])],
    ids=["one candidate", "equal candidates"],
)
def test_where_no_temperature_makes_a_difference_it_is_1(logits: list[list[float]], right: list[bool]) -> None:
    assert fit_temperature([np.array(each) for each in logits], right) == 1.0


def test_bins_and_their_error_are_those_worked_out_by_hand(tmp_path: Path) -> None:
    scores, right = [0.0, 0.05, 0.1, 0.95, 1.0, 1.0], [False, True, True, True, True, False]
    bins = reliability(scores, right)
    assert bins == [
        Bin(0.0, 0.1, 2, pytest.approx(0.025), 0.5),
        Bin(0.1, 0.2, 1, 0.1, 1.0),
        Bin(0.9, 1.0, 3, pytest.approx(2.95 / 3), pytest.approx(2 / 3)),
    ]
    # (2 × 0.475 + 1 × 0.9 + 3 × 0.95 / 3) / 6
    assert calibration_error(scores, right) == pytest.approx((0.95 + 0.9 + 0.95) / 6)
    assert calibration_error([1.0, 0.0], [True, False]) == 0
    plot(bins, tmp_path / "plot.partial")
    assert (tmp_path / "plot.partial").read_bytes().startswith(b"\x89PNG")


# Both


def mixed(answerer: QuestionAnswerer, questions: list[Question]) -> list[Question]:
    """The model's own answers as gold for some questions, none for others, others' for the rest."""
    asked = []
    for index, question in enumerate(questions):
        best = answerer.ask(question.question, question.context)[0]
        golds = [((best.text, best.start),), (), question.answers][index % 3]
        asked.append(replace(question, answers=golds))
    return asked


def test_tuning_a_model_makes_its_scores_no_worse_and_changes_no_answer_of_version_1(
    bert_qa: Path, questions: list[Question], copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(bert_qa)
    plain = QuestionAnswerer.open(folder)
    asked = [question for question in mixed(plain, questions) if question.answers]
    tuned = tune(plain, asked)
    assert tuned.null_threshold is None
    assert tuned.temperature != 1
    tuned.save(folder)
    before, after = plain.ask_all(asked), QuestionAnswerer.open(folder).ask_all(asked)

    def loss(answers: dict[str, list]) -> float:
        scores = [(answers[q.id][0].score, answers[q.id][0].text == q.answers[0][0]) for q in asked]
        return -float(np.mean([np.log(score if right else 1 - score) for score, right in scores]))

    for question in asked:
        assert [(a.start, a.end) for a in before[question.id]] == [(a.start, a.end) for a in after[question.id]]
    assert loss(after) < loss(before)
    # What the folder says now has no part in the next tuning.
    assert tune(QuestionAnswerer.open(folder, precision="fp32"), asked) == tuned


def test_tuning_for_version_2_finds_the_threshold_that_its_answers_score_best_with(
    bert_qa: Path, questions: list[Question], copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(bert_qa)
    asked = mixed(QuestionAnswerer.open(folder), questions)
    tuned = tune(QuestionAnswerer.open(folder), asked, version_2=True)
    assert tuned.null_threshold is not None
    tuned.save(folder)
    answerer = QuestionAnswerer.open(folder)
    answerer.unanswerable = True

    def f1(decoding: Decoding) -> float:
        answerer.decoding = decoding
        best = {key: ranked[0].text for key, ranked in answerer.ask_all(asked).items()}
        return score_squad(asked, best, version_2=True)["f1"]

    margins = sorted(spans.null_margin for spans in answerer.spans(asked).values())
    assert answerer.decoding == tuned
    assert f1(tuned) == pytest.approx(max(f1(Decoding(null_threshold=margin)) for margin in [margins[0] - 1, *margins]))
