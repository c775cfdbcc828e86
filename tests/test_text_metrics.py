"""Metrics of texts against scikit-learn's and SciPy's, against values worked out by hand, and where those give none."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from edge_distil.errors import UserError
from edge_distil.tasks.text_metrics import accuracy, f1, macro_score, matthews, pearson, score_texts, spearman
from edge_distil.tasks.texts import GLUE, TEXT

METRICS = [accuracy, f1, matthews, pearson, spearman]
# 3 hits, 1 false alarm, 2 misses, 4 rightly left.
GOLD = [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]
PREDICTED = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]


def test_classification_metrics_are_those_worked_out_by_hand() -> None:
    assert accuracy(GOLD, PREDICTED) == pytest.approx(70)
    assert f1(GOLD, PREDICTED) == pytest.approx(100 * 2 * 3 / (2 * 3 + 1 + 2))  # precision 3/4, recall 3/5
    assert matthews(GOLD, PREDICTED) == pytest.approx(100 * (3 * 4 - 1 * 2) / np.sqrt(4 * 5 * 5 * 6))


def test_correlations_are_those_worked_out_by_hand() -> None:
    # Deviations −1, 0, 1 and −1, −1, 2: 3 / √(2 · 6). Ranks 1, 2, 3 and 1.5, 1.5, 3: 1.5 / √(2 · 1.5).
    assert pearson([0, 1, 2], [0, 0, 3]) == pytest.approx(100 * np.sqrt(3) / 2)
    assert spearman([0, 1, 2], [0, 0, 3]) == pytest.approx(100 * np.sqrt(3) / 2)
    assert pearson([0, 1, 5], [2, 1, -3]) == pytest.approx(-100)
    # In order, but not in proportion: deviations −1.5, −0.5, 0.5, 1.5 and −87.5, −72.5, −7.5, 167.5.
    assert spearman([1, 2, 3, 4], [1, 16, 81, 256]) == pytest.approx(100)
    assert pearson([1, 2, 3, 4], [1, 16, 81, 256]) == pytest.approx(100 * 415 / np.sqrt(5 * 41025))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("seed", range(20))
def test_classification_metrics_are_scikit_learns(seed: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    gold, predicted = random.integers(classes, size=(2, int(random.integers(4, 400))))
    assert accuracy(gold, predicted) == pytest.approx(100 * accuracy_score(gold, predicted))
    ones = gold == 1, predicted == 1
    assert f1(gold, predicted) == pytest.approx(100 * f1_score(*ones, zero_division=0))
    assert matthews(gold, predicted) == pytest.approx(100 * matthews_corrcoef(*ones))


@pytest.mark.parametrize("kind", ["apart", "tied", "near", "float32"])
@pytest.mark.parametrize("seed", range(10))
def test_correlations_are_scipys(seed: int, kind: str) -> None:
    random = np.random.default_rng(seed)
    gold, predicted = random.normal(size=(2, int(random.integers(4, 400))))
    if kind == "tied":
        gold, predicted = gold.round(), (gold + predicted).round()
    elif kind == "near":
        predicted = 1000 + gold + predicted / 100
    elif kind == "float32":
        predicted = (gold + predicted).astype(np.float32)
    assert pearson(gold, predicted) == pytest.approx(100 * pearsonr(gold, predicted.astype(np.float64))[0], abs=1e-6)
    assert spearman(gold, predicted) == pytest.approx(100 * spearmanr(gold, predicted)[0], abs=1e-6)


@pytest.mark.parametrize("constant", [0.1, 0.0, 1.0, 1e9 / 3])
def test_predictions_that_never_vary_have_no_correlation(constant: float) -> None:
    gold = np.random.default_rng(0).normal(size=37)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric in (pearson, spearman):
            assert metric(gold, np.full(37, constant)) == 0
            assert metric(np.full(37, constant), gold) == 0


@pytest.mark.parametrize("predicted", [0, 1])
def test_one_label_for_everything_scores_as_in_scikit_learn(predicted: int) -> None:
    constant = [predicted] * len(GOLD)
    assert matthews(GOLD, constant) == matthews(constant, GOLD) == 0
    assert f1(GOLD, constant) == pytest.approx(100 * f1_score(GOLD, constant, zero_division=0))
    assert f1([0, 0], [0, 0]) == 0


@pytest.mark.parametrize("metric", METRICS)
def test_a_perfect_prediction_is_100(metric: Callable[..., float]) -> None:
    assert metric(GOLD, GOLD) == pytest.approx(100)
    assert metric(np.array(GOLD), np.array(GOLD)) == pytest.approx(100)


@pytest.mark.parametrize("metric", METRICS)
def test_shapes_that_numpy_would_stretch_are_refused(metric: Callable[..., float]) -> None:
    for gold, predicted in [
        (GOLD, [1]),
        (np.zeros(3), np.zeros((3, 1))),
        (np.zeros((3, 1)), np.zeros((3, 1))),
        ([], []),
    ]:
        with pytest.raises(ValueError, match="not two rows of one length"):
            metric(gold, predicted)


def test_matthews_counts_do_not_overflow() -> None:
    gold = np.zeros(400_000, dtype=np.int8)
    gold[::2] = 1
    predicted = gold.copy()
    predicted[:100_000] = 0
    assert matthews(gold, predicted) == pytest.approx(100 * matthews_corrcoef(gold, predicted))


def test_a_tasks_score_is_the_mean_of_its_metrics() -> None:
    match, overlap, correlation = accuracy(GOLD, PREDICTED), f1(GOLD, PREDICTED), matthews(GOLD, PREDICTED)
    assert score_texts(GLUE["cola"], GOLD, PREDICTED) == {"matthews": correlation, "score": correlation, "examples": 10}
    for name in ("mrpc", "qqp"):
        assert score_texts(GLUE[name], GOLD, PREDICTED) == {
            "accuracy": match,
            "f1": overlap,
            "score": pytest.approx((match + overlap) / 2),
            "examples": 10,
        }
    for task in [GLUE[name] for name in ("sst-2", "mnli", "qnli", "rte", "wnli")] + [TEXT]:
        assert score_texts(task, GOLD, PREDICTED) == {"accuracy": match, "score": match, "examples": 10}
    # Deviations −1, 0, 1 and −2, −1, 3: 5 / √(2 · 14). Ranks are in order.
    assert score_texts(GLUE["sts-b"], np.array([0.0, 1.0, 2.0]), np.array([-2.0, -1.0, 3.0])) == {
        "pearson": pytest.approx(100 * 5 / np.sqrt(28)),
        "spearman": pytest.approx(100),
        "score": pytest.approx(50 * 5 / np.sqrt(28) + 50),
        "examples": 3,
    }


def test_predictions_that_are_no_numbers_have_no_score() -> None:
    with pytest.raises(UserError, match=r"^task 'sts-b': 2 of 3 predictions are not finite numbers$"):
        score_texts(GLUE["sts-b"], [0.0, 1.0, 2.0], [0.0, np.nan, np.inf])


def test_the_macro_score_is_that_of_the_papers_table() -> None:
    # Sanh et al., 2019, Table 1, DistilBERT.
    row = {"cola": 51.3, "mnli": 82.2, "mrpc": 87.5, "qnli": 89.2, "qqp": 88.5, "rte": 59.9, "sst-2": 91.3}
    row |= {"sts-b": 86.9, "wnli": 56.3}
    assert row.keys() == GLUE.keys()
    assert macro_score(row) == pytest.approx(77.0, abs=0.05)
    assert macro_score({"rte": 50.0, "wnli": 60.0}) == 55


@pytest.mark.parametrize("scores", [{}, {"mnli": 80.0, "mnli-mm": 81.0}])
def test_a_macro_score_of_nothing_or_of_no_task_is_refused(scores: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="give one for each task"):
        macro_score(scores)
