"""From span logits to answers with a probability, and how that is tuned to a model: `decoding.json` in its folder.

Shapes: Q questions, N candidates of a question, L tokens of a window, C of them of the context.
"""

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge_distil.checkpoints import read_json
from edge_distil.console import progress
from edge_distil.errors import UserError
from edge_distil.tasks.metrics import score_answer
from edge_distil.tasks.squad import Question, Window

if TYPE_CHECKING:
    from edge_distil.qa import QuestionAnswerer

DECODING = "decoding.json"
MAX_ANSWER_TOKENS = 30
N_BEST = 20
BINS = 10
# Beyond these a soft-max over some twenty spans is as good as one-hot, or as good as even.
_COLDEST, _HOTTEST = 0.05, 20.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A span of the context, with its probability among the best spans of all windows. Empty text: no answer."""

    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Spans:
    """The best spans of one context over all its windows, best first.

    `places` holds the first and one-past-last character of each of the N spans, `logits_N` their logits; `null_logit`
    is that of the empty answer.
    """

    context: str
    places: tuple[tuple[int, int], ...]
    logits_N: np.ndarray
    null_logit: float

    @property
    def null_margin(self) -> float:
        """By how much the empty answer's logit is above the best span's."""
        return self.null_logit - float(self.logits_N[0])


def best_spans(
    question_windows: Iterable[tuple[Window, np.ndarray, np.ndarray]],
    context: str,
    *,
    n_best: int = N_BEST,
    max_answer_tokens: int = MAX_ANSWER_TOKENS,
) -> Spans:
    """The `n_best` spans of a context by logit.

    Takes (window, start logits [L], end logits [L]) triples. A span's logit is its start logit plus its end logit; it
    starts and ends on context tokens, holds at most `max_answer_tokens`, and counts once with its best logit where
    windows overlap. The empty answer's logit is that of [CLS], the least over windows.
    """
    whole = _past_marks(context)
    spans: dict[tuple[int, int], float] = {}
    null_logit = np.inf
    for window, start_L, end_L in question_windows:
        start_C = np.asarray(start_L[window.context_start : window.context_end], dtype=np.float64)
        end_C = np.asarray(end_L[window.context_start : window.context_end], dtype=np.float64)
        starts, ends = window.offsets_C2[:, 0].tolist(), whole[window.offsets_C2[:, 1]].tolist()
        null_logit = min(null_logit, float(start_L[0]) + float(end_L[0]))
        for width in range(min(max_answer_tokens, len(start_C))):
            # All spans of width + 1 tokens at once; only the best of each width can be among the best of all.
            logits = start_C[: len(start_C) - width] + end_C[width:]
            kept = np.argsort(-logits, kind="stable")[:n_best]
            for first in kept:
                span = (starts[first], ends[first + width])
                logit = float(logits[first])
                if logit > spans.get(span, -np.inf):
                    spans[span] = logit
    # Ties go to the earlier, then the shorter span, so that the order never depends on the windows.
    ranked = sorted(spans.items(), key=lambda item: (-item[1], item[0]))[:n_best]
    return Spans(context, tuple(place for place, _ in ranked), np.array([logit for _, logit in ranked]), null_logit)


def _past_marks(context: str) -> np.ndarray:
    """Where a cut at each place of the context ends: there, or past the combining marks that follow it.

    An uncased tokeniser drops accents, so a mark that is a character of its own belongs to no token.
    """
    ends = np.arange(len(context) + 1)
    if not context.isascii():
        for place in reversed(range(len(context))):
            if unicodedata.category(context[place]).startswith("M"):
                ends[place] = ends[place + 1]
    return ends


@dataclass(frozen=True, slots=True)
class Decoding:
    """How the logits of one model become answers.

    `temperature` divides the logits before the soft-max. Where a question may have no answer, the empty one wins if its
    logit is above the best span's by more than `null_threshold`; None stands for 0, and for a model that was not tuned
    to such questions.
    """

    temperature: float = 1.0
    null_threshold: float | None = None

    @classmethod
    def load(cls, folder: Path) -> "Decoding":
        """What the `decoding.json` of a model folder says, the defaults where there is none.

        Raises `UserError` for a file with other fields, with what is no finite number, or a temperature of 0 or less.
        """
        path = folder / DECODING
        if not path.is_file():
            return cls()
        value = read_json(path)
        hint = 'write {"temperature": 1.0, "null_threshold": 0.0}, or remove the file'
        if not isinstance(value, dict):
            raise UserError(f"{path}: is not a JSON object", hint)
        unknown = sorted(value.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise UserError(f"{path}: unknown field {', '.join(map(repr, unknown))}", hint)
        numbers = {}
        for name, number in value.items():
            if name == "null_threshold" and number is None:
                continue
            is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
            if not is_number or not abs(number) <= sys.float_info.max:  # so written, it also holds for NaN
                raise UserError(f"{path}: field {name!r} is {number!r}, not a finite number", hint)
            numbers[name] = float(number)
        decoding = cls(**numbers)
        if decoding.temperature <= 0:
            raise UserError(f"{path}: a temperature of {decoding.temperature:g} is not above 0", hint)
        return decoding

    def save(self, folder: Path) -> None:
        """Write `decoding.json` into a model folder. Call it before the manifest is written, which lists it."""
        (folder / DECODING).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    def answers(self, spans: Spans, *, unanswerable: bool = False) -> list[Answer]:
        """The answers of one question, best first, with the empty one among them where `unanswerable`.

        Scores are the soft-max over all that are given, the empty answer's logit less `null_threshold`.
        """
        places, logits_N = self.candidates(spans, unanswerable=unanswerable)
        weights_N = np.exp(logits_N / self.temperature)
        scores_N = weights_N / weights_N.sum()
        return [
            Answer(spans.context[start:end], start, end, float(score))
            for (start, end), score in zip(places, scores_N, strict=True)
        ]

    def candidates(self, spans: Spans, *, unanswerable: bool = False) -> tuple[list[tuple[int, int]], np.ndarray]:
        """The places that `answers` ranks, best first, and their logits [N] less that of the first."""
        best = float(spans.logits_N[0])
        found = [(place, float(logit) - best) for place, logit in zip(spans.places, spans.logits_N, strict=True)]
        if unanswerable:
            found.append(((0, 0), spans.null_margin - (self.null_threshold or 0.0)))
            found.sort(key=lambda candidate: -candidate[1])  # stable: the empty answer wins no tie
        logits_N = np.array([logit for _, logit in found])
        return [place for place, _ in found], logits_N - logits_N[0]


def tune_null_threshold(questions: Sequence[Question], found: Mapping[str, Spans]) -> float:
    """The threshold on `Spans.null_margin` with the best F1 on questions some of which have no answer.

    The search of the official v2.0 script: from answering none of the Q questions to answering them all, those with the
    least margin first. Questions of one margin are answered together; of thresholds that score alike the least is
    taken. It stands halfway between two questions' margins, so that rounding moves neither over it, and 1 beyond them
    all where none or all are to be answered. `found` holds the spans by question id.
    """
    margins_Q = np.array([found[question.id].null_margin for question in questions])
    gains_Q = np.array([_f1_gain(question, found[question.id]) for question in questions])
    order_Q = np.argsort(margins_Q, kind="stable")
    margins_Q = margins_Q[order_Q]
    # After answering the first 0, 1, … Q of them. Rounded, as sums of thirds that are equal differ in the last digits.
    totals = np.round(np.concatenate(([0.0], np.cumsum(gains_Q[order_Q]))), 9)
    totals[1:-1][margins_Q[1:] == margins_Q[:-1]] = -np.inf
    answered = int(totals.argmax())
    around = np.concatenate(([margins_Q[0] - 2], margins_Q, [margins_Q[-1] + 2]))
    return float(around[answered : answered + 2].mean())


def _f1_gain(question: Question, spans: Spans) -> float:
    """What the F1 of a question gains from the best span in place of the empty answer, −1 to 1."""
    start, end = spans.places[0]
    _, with_answer = score_answer(spans.context[start:end], question, version_2=True)
    _, without = score_answer("", question, version_2=True)
    return with_answer - without


def fit_temperature(logits: Sequence[np.ndarray], right: Sequence[bool]) -> float:
    """The temperature of the soft-max under which the first candidate's probability is that of its being right.

    Minimises the mean negative log likelihood of `right`, Q times whether the first answer is, by temperature scaling
    (Guo et al., 2017, section 4.2) within 0.05 to 20. `logits` holds Q arrays [N], the first of each the greatest. A
    question of one candidate has probability 1 at any temperature and tells nothing; without others it is 1.
    """
    told = [(logits_N - logits_N[0], is_right) for logits_N, is_right in zip(logits, right, strict=True)]
    told = [(logits_N, is_right) for logits_N, is_right in told if len(logits_N) > 1]
    if not told:
        return 1.0
    others_QN = np.full((len(told), max(len(logits_N) for logits_N, _ in told) - 1), -np.inf)
    for row, (logits_N, _) in enumerate(told):
        others_QN[row, : len(logits_N) - 1] = logits_N[1:]
    right_Q = np.array([is_right for _, is_right in told])

    def loss(temperature: float) -> float:
        others_Q = np.logaddexp.reduce(others_QN / temperature, axis=1)
        total_Q = np.logaddexp(0.0, others_Q)
        return float(np.where(right_Q, total_Q, total_Q - others_Q).mean())

    low, high = _COLDEST, _HOTTEST
    for _ in range(4):  # each narrows the range sixteenfold, to 5e-5 of the value at last
        grid = np.geomspace(low, high, 33)
        best = int(np.argmin([loss(temperature) for temperature in grid]))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, 32)]
    # 1 where nothing is better: also where no temperature makes a difference.
    return min(1.0, round(float(grid[best]), 4), key=loss)


@dataclass(frozen=True, slots=True)
class Bin:
    """The answers with a score from `low` up to `high`: how many, their mean score, and the share that is right."""

    low: float
    high: float
    count: int
    score: float
    accuracy: float


def reliability(scores: Sequence[float], right: Sequence[bool]) -> list[Bin]:
    """Answers by their score, in ten bins of equal width; those without an answer are left out."""
    scores_Q, right_Q = np.asarray(scores), np.asarray(right)
    bins_Q = np.minimum((scores_Q * BINS).astype(int), BINS - 1)  # a score of 1 is in the last bin
    return [
        Bin(
            index / BINS,
            (index + 1) / BINS,
            int((bins_Q == index).sum()),
            float(scores_Q[bins_Q == index].mean()),
            float(right_Q[bins_Q == index].mean()),
        )
        for index in np.unique(bins_Q).tolist()
    ]


def calibration_error(scores: Sequence[float], right: Sequence[bool]) -> float:
    """Expected calibration error, 0 to 1 (Guo et al., 2017, equation 3): how far scores are from the shares right."""
    return sum(each.count * abs(each.accuracy - each.score) for each in reliability(scores, right)) / len(scores)


def tune(answerer: "QuestionAnswerer", questions: Sequence[Question], *, version_2: bool = False) -> Decoding:
    """The decoding that fits a model, from one run over questions that it was not trained on.

    With `version_2` the empty answer is among the candidates, and its threshold is tuned before the temperature; the
    threshold is None without. What the answerer's folder says, and its `unanswerable`, change nothing.
    """
    with progress("calibrating", len(questions)) as advance:
        found = answerer.spans(questions, progress=advance)
    decoding = Decoding(null_threshold=tune_null_threshold(questions, found) if version_2 else None)
    logits, right = [], []
    for question in questions:
        spans = found[question.id]
        ((start, end), *_), logits_N = decoding.candidates(spans, unanswerable=version_2)
        match, _ = score_answer(spans.context[start:end], question, version_2=version_2)
        logits.append(logits_N)
        right.append(match == 1)
    return replace(decoding, temperature=fit_temperature(logits, right))
