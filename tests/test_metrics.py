"""Exact match and F1 worked out by hand after the rules of the official SQuAD scripts."""

import pytest

from edge_distil.tasks.metrics import exact_match, f1, normalize_answer, score_squad
from edge_distil.tasks.squad import Question


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Bridge", "bridge"),
        ("An A-Team, the\tbest!", "ateam best"),
        ("theatre and anthem", "theatre and anthem"),
        ("U.S. $5.00", "us 500"),
        ("Café – “quoted”", "café – “quoted”"),
        ("a an the", ""),
        ("\u00a0one\n two ", "one two"),
        ("T.h.e bridge", "bridge"),
    ],
)
def test_an_answer_is_normalised_in_the_official_order(text: str, normal: str) -> None:
    assert normalize_answer(text) == normal


@pytest.mark.parametrize(
    ("prediction", "gold", "match", "overlap"),
    [
        ("The Bridge!", "bridge", 1, 1),
        ("stone bridge", "bridge", 0, 2 / 3),  # precision 1/2, recall 1
        ("old stone bridge", "stone bridge of Ambry", 0, 4 / 7),  # 2 shared of 3 and 4
        ("new new york", "new york york", 0, 2 / 3),  # repeated words are shared as often as both have them
        ("bridge stone", "stone bridge", 0, 1),
        ("tower", "bridge", 0, 0),
        ("", "bridge", 0, 0),
        ("1,912", "1912", 1, 1),
    ],
)
@pytest.mark.parametrize("version_2", [False, True])
def test_exact_match_and_f1_are_those_worked_out_by_hand(
    prediction: str, gold: str, match: float, overlap: float, version_2: bool
) -> None:
    assert exact_match(prediction, gold) == match
    assert f1(prediction, gold, version_2=version_2) == pytest.approx(overlap)


@pytest.mark.parametrize(
    ("prediction", "gold", "version_1_1", "version_2"),
    [("the", "a", 0, 1), ("", "", 0, 1), ("the", "bridge", 0, 0), ("bridge", "", 0, 0)],
)
def test_an_answer_of_which_nothing_is_left_scores_as_in_each_official_script(
    prediction: str, gold: str, version_1_1: float, version_2: float
) -> None:
    assert f1(prediction, gold) == version_1_1
    assert f1(prediction, gold, version_2=True) == version_2


def question(identifier: str, *golds: str) -> Question:
    return Question(identifier, "?", " ".join(golds), tuple((gold, 0) for gold in golds))


def test_each_question_takes_its_best_gold_and_a_missing_prediction_is_wrong() -> None:
    questions = [
        question("one", "stone bridge", "the bridge"),
        question("two", "stone bridge", "tower of Ambry"),
        question("three", "1912"),
        question("missing", "1912"),
    ]
    predictions = {"one": "bridge", "two": "stone", "three": "1915"}
    # Exact: 1 of 4. F1: 1, max(2/3, 0), 0, 0 over 4.
    assert score_squad(questions, predictions) == {
        "exact_match": pytest.approx(25),
        "f1": pytest.approx(100 * (1 + 2 / 3) / 4),
        "examples": 4,
    }


@pytest.mark.parametrize(
    ("golds", "prediction", "version_2", "match", "overlap"),
    [
        ((), "", True, 100, 100),
        ((), "bridge", True, 0, 0),
        (("bridge",), "", True, 0, 0),
        (("the", "bridge"), "", True, 0, 0),  # an article is no gold answer in v2.0
        (("the",), "", True, 100, 100),
        (("the",), "", False, 100, 0),  # as v1.1 has it: equal, with no word in common
    ],
)
def test_the_empty_answer_scores_as_in_each_official_script(
    golds: tuple[str, ...], prediction: str, version_2: bool, match: float, overlap: float
) -> None:
    assert score_squad([question("q", *golds)], {"q": prediction}, version_2=version_2) == {
        "exact_match": match,
        "f1": overlap,
        "examples": 1,
    }
