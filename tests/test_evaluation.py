"""Scoring models and files of predictions on SQuAD questions."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_distil import cli
from edge_distil.errors import UserError
from edge_distil.qa import QuestionAnswerer
from edge_distil.tasks import evaluation
from edge_distil.tasks.decoding import Answer, Decoding, calibration_error
from edge_distil.tasks.evaluation import evaluate, evaluate_predictions, hardest_errors, predict
from edge_distil.tasks.metrics import exact_match, score_squad
from edge_distil.tasks.squad import Question


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_gold_answers_score_a_hundred_and_missing_ones_count_as_wrong_where_that_is_allowed(
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
    path = write(tmp_path / "fewer.json", fewer)
    with pytest.raises(UserError) as caught:
        evaluate_predictions(path, questions)
    first = questions[0].id
    assert caught.value.message == f"{path}: has no prediction for {first!r}, the first of 3 that are missing"
    assert "--allow-missing" in caught.value.hint
    assert evaluate_predictions(path, questions, allow_missing=True) == {
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


@pytest.mark.parametrize("again", ['"Ada"', '"Ada Lor"'])
def test_an_id_that_is_given_twice_is_named(tmp_path: Path, again: str) -> None:
    path = tmp_path / "predictions.json"
    path.write_text(f'{{"q1": "Ada Lor", "q2": "", "q1": {again}}}')
    with pytest.raises(UserError) as caught:
        evaluate_predictions(path, UNANSWERABLE, version_2=True)
    assert caught.value.message == f"{path}: 'q1' is given twice"


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        (["1912"], "is not a JSON object", '{"id": "answer", …}'),
        ({"q1": 1912}, "the prediction of 'q1' is not a text", "JSON string"),
        ({"q1": None}, "the prediction of 'q1' is not a text", "JSON string"),
        ({"q1": "Ada", "q9": "Ada"}, "the data has no id 'q9'", "the file it was made for"),
    ],
)
def test_a_fault_of_the_predictions_is_named(tmp_path: Path, value: Any, message: str, hint: str) -> None:
    path = write(tmp_path / "predictions.json", value)
    with pytest.raises(UserError) as caught:
        evaluate_predictions(path, UNANSWERABLE)
    assert caught.value.message == f"{path}: {message}"
    assert hint in caught.value.hint


@pytest.fixture
def asked(distilbert_qa: Path, questions: list[Question]) -> list[Question]:
    """One answer of the model's by chance right makes a comparison more than one of zeros."""
    best = QuestionAnswerer.open(distilbert_qa).ask(questions[0].question, questions[0].context)[0]
    first = Question(questions[0].id, questions[0].question, questions[0].context, ((best.text, best.start),))
    return [first, *questions[1:]]


def test_a_model_scores_as_the_file_of_its_predictions_does(
    distilbert_qa: Path, asked: list[Question], tmp_path: Path
) -> None:
    answerer = QuestionAnswerer.open(distilbert_qa)
    answers = predict(answerer, asked, batch_size=5)
    assert list(answers) == [question.id for question in asked]
    for question in asked:
        alone = answerer.ask(question.question, question.context)[0]
        assert answers[question.id].text == alone.text
        assert answers[question.id].score == pytest.approx(alone.score, abs=1e-4)
    path = tmp_path / "new" / "predictions.json"
    result = evaluate(answerer, asked, predictions_file=path)
    predictions = json.loads(path.read_text(encoding="utf-8"))
    assert predictions == {identifier: answer.text for identifier, answer in answers.items()}
    assert [entry.name for entry in path.parent.iterdir()] == ["predictions.json"]
    expected = evaluate_predictions(path, asked)
    assert {name: result[name] for name in ("exact_match", "f1", "examples")} == score_squad(asked, predictions)
    assert result["exact_match"] == expected["exact_match"] >= 100 / len(asked)
    assert (result["runtime"], result["precision"]) == ("torch", "fp32")
    assert result["examples_per_second"] == pytest.approx(len(asked) / result["seconds"], rel=0.05)
    assert result["calibration_error"] == pytest.approx(
        calibration_error(
            [answers[q.id].score for q in asked],
            [any(exact_match(predictions[q.id], gold) for gold, _ in q.answers) for q in asked],
        ),
        abs=1e-4,
    )


def test_the_hardest_errors_are_the_wrong_answers_of_the_highest_score() -> None:
    golds = {"a": ("tower",), "b": ("bridge", "stone bridge", "bridge"), "c": (), "d": ("1912",), "e": ("Ambry",)}
    given = {"a": ("The tower.", 0.99), "b": ("tower", 0.4), "c": ("bridge", 0.7), "d": ("1915", 0.4), "e": ("", 0.1)}
    asked = [Question(key, f"{key}?", "", tuple((text, 0) for text in texts)) for key, texts in golds.items()]
    answers = {key: Answer(text, 0, len(text), score) for key, (text, score) in given.items()}
    errors = hardest_errors(asked, answers, 3, version_2=True)
    assert [error["id"] for error in errors] == ["c", "b", "d"]
    assert errors[1] == {
        "id": "b",
        "question": "b?",
        "gold": ["bridge", "stone bridge"],
        "answer": "tower",
        "score": 0.4,
    }
    assert len(hardest_errors(asked, answers, 99, version_2=True)) == 4
    right = [asked[0], Question("e", "e?", "", ())]
    assert hardest_errors(right, answers, 99, version_2=True) == []


# The command


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process; gives its status, its output and the line after `error:`."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["edge-distil", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        captured = capsys.readouterr()
        error = captured.err.splitlines()[-2].removeprefix("error: ") if exit.value.code else ""
        return exit.value.code or 0, captured.out, error  # type: ignore[return-value]

    return run


Run = Callable[..., tuple[int, str, str]]


def test_the_command_writes_predictions_errors_and_a_plot(
    run: Run, distilbert_qa: Path, squad_file: Path, questions: list[Question], tmp_path: Path
) -> None:
    predictions, picture = tmp_path / "predictions.json", tmp_path / "reliability.png"
    arguments = ["evaluate", distilbert_qa, "--data", squad_file, "--errors", 2]
    written = ["--write-predictions", predictions, "--reliability", picture]
    status, out, _ = run(*arguments, *written, "--json")
    result = json.loads(out)
    assert status == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert 0 <= result["calibration_error"] <= 1
    assert len(result["errors"]) == 2
    for error in result["errors"]:
        assert error["answer"] == json.loads(predictions.read_text(encoding="utf-8"))[error["id"]]
        assert 0 < error["score"] <= 1
    assert json.loads(run("evaluate", "--data", squad_file, "--predictions", predictions, "--json")[1]) == {
        **{name: result[name] for name in ("exact_match", "f1", "examples")},
        "missing": 0,
    }
    shown = run(*arguments)[1]
    assert f"calibration error {result['calibration_error']:.3f}" in shown
    for error in result["errors"]:
        assert f"Q: {error['question']}  ({error['id']})\ngold: {' | '.join(error['gold'])}\nanswer: " in shown


@pytest.mark.parametrize("option", ["--write-predictions", "--reliability"])
def test_a_file_that_exists_is_refused_before_anything_is_asked_and_replaced_where_that_is_wanted(
    run: Run,
    distilbert_qa: Path,
    squad_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"mine")
    arguments = ["evaluate", distilbert_qa, "--data", squad_file, option, target]
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "predict", lambda *_, **__: pytest.fail("it was asked"))
        assert run(*arguments)[2] == f"{target}: exists already"
        assert run(*arguments[:-1], tmp_path)[2] == f"{tmp_path}: is a folder"
        assert run(*arguments[:-1], target / "below")[2].startswith(f"{target / 'below'}: cannot be created")
    assert target.read_bytes() == b"mine"
    assert run(*arguments, "--overwrite")[0] == 0
    assert target.read_bytes() != b"mine"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failure_while_a_file_is_written_leaves_the_earlier_one(
    distilbert_qa: Path, questions: list[Question], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "plot.png"
    target.write_bytes(b"mine")

    def half(_: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edge_distil.report.reliability.plot", half)
    with pytest.raises(OSError, match="No space left"):
        evaluate(QuestionAnswerer.open(distilbert_qa), questions[:2], reliability_file=target, overwrite=True)
    assert target.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [target]


@pytest.fixture
def version_2_file(squad: dict[str, Any], tmp_path: Path) -> Path:
    """The starter's questions, every second one without its answer."""
    document = json.loads(json.dumps(squad))
    qas = [qa for article in document["data"] for paragraph in article["paragraphs"] for qa in paragraph["qas"]]
    for qa in qas[::2]:
        qa["answers"] = []
    return write(tmp_path / "dev-v2.0.json", document)


def test_a_threshold_decides_between_all_answers_and_none(run: Run, distilbert_qa: Path, version_2_file: Path) -> None:
    arguments = ["evaluate", distilbert_qa, "--data", version_2_file, "--squad-v2", "--json", "--null-threshold"]
    never, always = (json.loads(run(*arguments, value)[1]) for value in ("1e6", "-1e6"))
    assert (never["no_answer_exact_match"], never["no_answer_f1"]) == (0, 0)
    assert (always["no_answer_exact_match"], always["no_answer_f1"]) == (100, 100)
    assert (always["has_answer_exact_match"], always["has_answer_f1"]) == (0, 0)
    assert always["has_answer_examples"] + always["no_answer_examples"] == always["examples"]
    assert always["exact_match"] == pytest.approx(100 * always["no_answer_examples"] / always["examples"])
    shown = run(*arguments[:-2], "--null-threshold", "-1e6")[1].splitlines()
    assert shown[1].startswith("  with an answer: exact match 0.00, F1 0.00 on ")
    assert shown[2].startswith("  without one: exact match 100.00, F1 100.00 on ")


def test_the_threshold_of_the_folder_holds_where_none_is_given(
    run: Run, distilbert_qa: Path, version_2_file: Path, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(distilbert_qa)
    Decoding(null_threshold=-1e6).save(folder)
    arguments = ["evaluate", folder, "--data", version_2_file, "--squad-v2", "--json"]
    assert json.loads(run(*arguments)[1])["no_answer_f1"] == 100
    assert json.loads(run(*arguments, "--null-threshold", "1e6")[1])["no_answer_f1"] == 0


def test_ask_may_find_no_answer_where_the_folder_or_the_user_has_a_threshold(
    run: Run, distilbert_qa: Path, tmp_path: Path, copy_of: Callable[[Path], Path]
) -> None:
    folder, passage = copy_of(distilbert_qa), tmp_path / "passage.txt"
    passage.write_text("Ada Lor built the bridge.")
    arguments = ["ask", folder, "Who built it?", "--context", passage]
    assert json.loads(run(*arguments, "--json")[1])["answers"][0]["text"] != ""
    assert run(*arguments, "--null-threshold", "-1e6")[1].startswith("no answer  (")
    Decoding(null_threshold=-1e6).save(folder)
    answer = json.loads(run(*arguments, "--json")[1])["answers"][0]
    assert (answer["text"], answer["start"], answer["end"]) == ("", 0, 0)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--null-threshold", "1"], "--null-threshold needs --squad-v2"),
        (["--null-threshold", "nan", "--squad-v2"], "--null-threshold nan: is no finite number"),
        (["--predictions", "p.json", "--errors", "3"], "--errors and --predictions do not go together"),
        (
            ["--predictions", "p.json", "--null-threshold", "0", "--squad-v2"],
            "--null-threshold and --predictions do not go together",
        ),
        (["--predictions", "p.json", "--reliability", "r.png"], "--reliability and --predictions do not go together"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_do_not_go_together_are_named(
    run: Run, squad_file: Path, arguments: list[str], error: str
) -> None:
    assert run("evaluate", "--data", squad_file, *arguments)[2] == error


def test_missing_predictions_are_allowed_on_demand(run: Run, squad_file: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "predictions.json", {})
    arguments = ["evaluate", "--data", squad_file, "--predictions", path]
    assert run(*arguments)[2].startswith(f"{path}: has no prediction for ")
    assert "  missing predictions: " in run(*arguments, "--allow-missing")[1]
