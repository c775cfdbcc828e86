"""Accuracy, F1 and correlations as GLUE counts them, and the score over its tasks. All are out of 100.

Each takes N gold and N predicted values, both [N], and raises ValueError for other shapes, which numpy would stretch to
fit. A measure that divides by zero where all predictions are alike is 0 there: such a model has learnt nothing.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from edge_distil.errors import UserError
from edge_distil.tasks.texts import GLUE, TextTask


def accuracy(gold: ArrayLike, predicted: ArrayLike) -> float:
    """How many of 100 labels are right."""
    gold_N, predicted_N = _arrays(gold, predicted)
    return 100 * float((gold_N == predicted_N).mean())


def f1(gold: ArrayLike, predicted: ArrayLike) -> float:
    """Harmonic mean of the precision and the recall of label index 1; 0 where no such label is given or predicted."""
    hits, false_alarms, misses, _ = _counts(gold, predicted)
    return 100 * 2 * hits / (2 * hits + false_alarms + misses) if hits else 0.0


def matthews(gold: ArrayLike, predicted: ArrayLike) -> float:
    """Matthews' correlation of label index 1 against all others, −100 to 100; 0 where either side never varies."""
    hits, false_alarms, misses, rest = _counts(gold, predicted)
    product = (hits + false_alarms) * (hits + misses) * (rest + false_alarms) * (rest + misses)
    return 100 * (hits * rest - false_alarms * misses) / math.sqrt(product) if product else 0.0


def pearson(gold: ArrayLike, predicted: ArrayLike) -> float:
    """Correlation of the values, −100 to 100; 0 where gold or predicted never varies."""
    gold_N, predicted_N = (np.asarray(values, dtype=np.float64) for values in _arrays(gold, predicted))
    # Not the variance: rounding leaves the values of a constant a little off their mean.
    if np.ptp(gold_N) == 0 or np.ptp(predicted_N) == 0:
        return 0.0
    gold_N, predicted_N = gold_N - gold_N.mean(), predicted_N - predicted_N.mean()
    cosine = gold_N @ predicted_N / (np.linalg.norm(gold_N) * np.linalg.norm(predicted_N))
    return 100 * float(np.clip(cosine, -1, 1))


def spearman(gold: ArrayLike, predicted: ArrayLike) -> float:
    """Correlation of the ranks, −100 to 100, equal values sharing the mean of their ranks."""
    gold_N, predicted_N = _arrays(gold, predicted)
    return pearson(_ranks(gold_N), _ranks(predicted_N))


_METRICS = {"accuracy": accuracy, "f1": f1, "matthews": matthews, "pearson": pearson, "spearman": spearman}


def score_texts(
    task: TextTask, gold: Sequence[float] | np.ndarray, predicted: Sequence[float] | np.ndarray
) -> dict[str, float]:
    """The task's metrics by name, their mean as `score`, and the number of `examples`.

    `gold` and `predicted` [N] are label indices, with regression scores. The mean is GLUE's convention: MRPC and QQP
    count the mean of accuracy and F1, STS-B that of both correlations, the others their only metric. Raises `UserError`
    for predictions that are no finite numbers, which would have a rank like others.
    """
    if broken := int(np.count_nonzero(~np.isfinite(predicted))):
        raise UserError(
            f"task {task.name!r}: {broken:,} of {len(predicted):,} predictions are not finite numbers",
            "the model's training diverged: train it again with a lower learning rate",
        )
    scores = {name: _METRICS[name](gold, predicted) for name in task.metrics}
    return {**scores, "score": sum(scores.values()) / len(scores), "examples": len(gold)}


def macro_score(scores: Mapping[str, float]) -> float:
    """The mean of tasks' scores, by their names in `GLUE`; over all nine it is the `score` of the paper's Table 1.

    MNLI counts once: give the mean of its matched and its mismatched dev set, or the one that is meant, as "mnli".
    Raises ValueError for no score and for a name that is no task, by which a task could count twice.
    """
    if not scores or not scores.keys() <= GLUE.keys():
        raise ValueError(f"scores of {sorted(scores)}: give one for each task, of {', '.join(GLUE)}")
    return sum(scores.values()) / len(scores)


def _arrays(gold: ArrayLike, predicted: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    gold_N, predicted_N = np.asarray(gold), np.asarray(predicted)
    if gold_N.ndim != 1 or gold_N.shape != predicted_N.shape or not len(gold_N):
        raise ValueError(f"gold {gold_N.shape} and predicted {predicted_N.shape} are not two rows of one length")
    return gold_N, predicted_N


def _counts(gold: ArrayLike, predicted: ArrayLike) -> tuple[int, int, int, int]:
    """How often 1 is predicted rightly and wrongly, and not predicted wrongly and rightly."""
    gold_N, predicted_N = (values == 1 for values in _arrays(gold, predicted))
    both, gold_alone, predicted_alone = gold_N & predicted_N, gold_N & ~predicted_N, ~gold_N & predicted_N
    hits, misses, false_alarms = (int(np.count_nonzero(cases)) for cases in (both, gold_alone, predicted_alone))
    return hits, false_alarms, misses, len(gold_N) - hits - false_alarms - misses


def _ranks(values_N: np.ndarray) -> np.ndarray:
    """Ranks from 1; the k-th of the distinct values takes the mean of the ranks that its `count` copies fill."""
    _, inverse_N, count = np.unique(values_N, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[inverse_N]
