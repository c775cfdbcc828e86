"""Exact match and F1 as SQuAD's official scripts count them, v1.1 and v2.0."""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

from edge_distil.tasks.squad import Question

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation, without articles, blanks folded: the official scripts' order."""
    kept = "".join(character for character in text.lower() if character not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", kept).split())


def exact_match(prediction: str, gold: str) -> float:
    """1.0 when both are equal after normalising, else 0.0."""
    return float(normalize_answer(prediction) == normalize_answer(gold))


def f1(prediction: str, gold: str, *, version_2: bool = False) -> float:
    """Harmonic mean of the precision and the recall of words.

    Where nothing is left of an answer after normalising ("the"), the v1.1 script gives 0; v2.0's gives 1 when nothing
    is left of either.
    """
    predicted_words, gold_words = normalize_answer(prediction).split(), normalize_answer(gold).split()
    if version_2 and not (predicted_words and gold_words):
        return float(predicted_words == gold_words)
    shared = sum((Counter(predicted_words) & Counter(gold_words)).values())
    return 2 * shared / (len(predicted_words) + len(gold_words)) if shared else 0.0


def score_answer(prediction: str, question: Question, *, version_2: bool = False) -> tuple[float, float]:
    """Exact match and F1 of one answer, each the best over the question's gold answers.

    With `version_2`, gold answers of which normalising leaves nothing are dropped, and a question without any has the
    empty answer for its gold.
    """
    golds = [text for text, _ in question.answers if not version_2 or normalize_answer(text)] or [""]
    return (
        max(exact_match(prediction, gold) for gold in golds),
        max(f1(prediction, gold, version_2=version_2) for gold in golds),
    )


def score_squad(
    questions: Sequence[Question], predictions: Mapping[str, str], *, version_2: bool = False
) -> dict[str, float]:
    """`exact_match` and `f1` (0 to 100, the best over each question's gold answers) and the number of `examples`.

    A question without a prediction counts as wrong. With `version_2`, the same three of the questions with an answer,
    `has_answer_…`, and of those without, `no_answer_…`; as in the official script, not where there are none of them.
    """
    scores = [
        score_answer(predictions[question.id], question, version_2=version_2)
        if question.id in predictions
        else (0.0, 0.0)
        for question in questions
    ]
    result = _means("", scores)
    if version_2:
        answerable = [score for score, question in zip(scores, questions, strict=True) if question.answers]
        unanswerable = [score for score, question in zip(scores, questions, strict=True) if not question.answers]
        result |= _means("has_answer_", answerable) | _means("no_answer_", unanswerable)
    return result


def _means(prefix: str, scores: Sequence[tuple[float, float]]) -> dict[str, float]:
    if not scores:
        return {}
    count = len(scores)
    matches, overlaps = (100 * sum(column) / count for column in zip(*scores, strict=True))
    return {f"{prefix}exact_match": matches, f"{prefix}f1": overlaps, f"{prefix}examples": count}
