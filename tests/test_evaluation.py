"""Scoring models and files of predictions on SQuAD questions."""

import json
from pathlib import Path
from typing import Any

import pytest

from edge_distil.errors import UserError
from edge_distil.qa import QuestionAnswerer
from edge_distil.tasks.evaluation import evaluate, evaluate_predictions, predict
from edge_distil.tasks.metrics import score_squad
from edge_distil.tasks.squad import Question


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_gold_answers_score_a_hundred_and_missing_ones_count_as_wrong(
    questions: list[Question], tmp_path: Path
) -> None:
    gold = {question.id: question.answers[0][0] for question in questions}
    assert evaluate_predictions(write(tmp_path / "all.json", gold), questions) == {
        "exact_match": 100.0,
        "f1": 100.0,
        "examples": len(questions),
        "missing": 0,
    }
    fewer = dict(list(gold.items())[3:])
    share = 100 * (len(questions) - 3) / len(questions)
    assert evaluate_predictions(write(tmp_path / "fewer.json", fewer), questions) == {
        "exact_match": pytest.approx(share),
        "f1": pytest.approx(share),
        "examples": len(questions),
        "missing": 3,
    }


UNANSWERABLE = [Question("q1", "Who?", "Ada Lor", (("Ada Lor", 0),)), Question("q2", "When?", "Ada Lor", ())]


@pytest.mark.parametrize(("answer", "score"), [("", 100.0), ("Ada", 50.0)])
def test_version_2_predictions_may_be_empty(tmp_path: Path, answer: str, score: float) -> None:
    path = write(tmp_path / "predictions.json", {"q1": "Ada Lor", "q2": answer})
    result = evaluate_predictions(path, UNANSWERABLE, version_2=True)
    assert (result["exact_match"], result["f1"]) == (score, score)


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        (["1912"], "is not a JSON object", "question id"),
        ({"q1": 1912}, "the prediction of 'q1' is not a text", "JSON string"),
        ({"q1": None}, "the prediction of 'q1' is not a text", "JSON string"),
        ({"q1": "Ada", "q9": "Ada"}, "the data has no question 'q9'", "the file it was made for"),
    ],
)
def test_a_fault_of_the_predictions_is_named(tmp_path: Path, value: Any, message: str, hint: str) -> None:
    path = write(tmp_path / "predictions.json", value)
    with pytest.raises(UserError) as caught:
        evaluate_predictions(path, UNANSWERABLE)
    assert caught.value.message == f"{path}: {message}"
    assert hint in caught.value.hint


def test_a_model_scores_as_the_file_of_its_predictions_does(
    distilbert_qa: Path, questions: list[Question], tmp_path: Path
) -> None:
    answerer = QuestionAnswerer.open(distilbert_qa)
    predictions = predict(answerer, questions, batch_size=5)
    assert list(predictions) == [question.id for question in questions]
    for question in questions:
        assert predictions[question.id] == answerer.ask(question.question, question.context)[0].text
    # One answer by chance right makes the comparison more than one of zeros.
    asked = [
        Question(q.id, q.question, q.context, ((predictions[q.id], 0),) if index == 0 else q.answers)
        for index, q in enumerate(questions)
    ]
    result = evaluate(answerer, asked)
    expected = evaluate_predictions(write(tmp_path / "predictions.json", predictions), asked)
    assert {name: result[name] for name in ("exact_match", "f1", "examples")} == score_squad(asked, predictions)
    assert result["exact_match"] == expected["exact_match"] >= 100 / len(asked)
    assert (result["runtime"], result["precision"]) == ("torch", "fp32")
    assert result["examples_per_second"] == pytest.approx(len(asked) / result["seconds"], rel=0.05)
