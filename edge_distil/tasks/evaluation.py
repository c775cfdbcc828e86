"""Scoring a checkpoint, an exported artifact, or a file of predictions on SQuAD questions."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_distil.checkpoints import read_json
from edge_distil.console import progress
from edge_distil.errors import UserError
from edge_distil.qa import QuestionAnswerer
from edge_distil.tasks.decoding import Answer, calibration_error, reliability
from edge_distil.tasks.metrics import score_answer, score_squad
from edge_distil.tasks.squad import Question


def predict(answerer: QuestionAnswerer, questions: Sequence[Question], *, batch_size: int = 16) -> dict[str, Answer]:
    """The best answer to every question, by question id, with a progress bar."""
    with progress("answering", len(questions)) as advance:
        answers = answerer.ask_all(questions, batch_size=batch_size, progress=advance)
    return {identifier: ranked[0] for identifier, ranked in answers.items()}


def evaluate(
    answerer: QuestionAnswerer,
    questions: Sequence[Question],
    *,
    batch_size: int = 16,
    version_2: bool = False,
    errors: int = 0,
    predictions_file: Path | None = None,
    reliability_file: Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Ask a model every question, and score its answers.

    Returns the figures of `score_squad`, `calibration_error` (0 to 1, of the score as the probability of an exact
    match), `runtime`, `precision`, `seconds`, `examples_per_second`, and with `errors` so many of `hardest_errors`.
    Writes the answers to `predictions_file` in SQuAD's official format, and a plot of accuracy against score to
    `reliability_file`, a PNG. Raises `UserError` before it asks anything when such a file exists and `overwrite` is
    off.
    """
    for path in (predictions_file, reliability_file):
        if path:
            _check_file(path, overwrite)
    begun = time.monotonic()
    answers = predict(answerer, questions, batch_size=batch_size)
    seconds = time.monotonic() - begun
    texts = {identifier: answer.text for identifier, answer in answers.items()}
    scores = [answers[question.id].score for question in questions]
    right = [score_answer(texts[question.id], question, version_2=version_2)[0] == 1 for question in questions]
    if predictions_file:
        with _whole_file(predictions_file) as path:
            path.write_text(json.dumps(texts, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
    if reliability_file:
        from edge_distil.report.reliability import plot

        with _whole_file(reliability_file) as path:
            plot(reliability(scores, right), path)
    return {
        **score_squad(questions, texts, version_2=version_2),
        "calibration_error": calibration_error(scores, right),
        "runtime": answerer.runtime.name,
        "precision": answerer.runtime.precision,
        "seconds": round(seconds, 3),
        "examples_per_second": round(len(questions) / seconds, 1),
        **({"errors": hardest_errors(questions, answers, errors, version_2=version_2)} if errors else {}),
    }


def hardest_errors(
    questions: Sequence[Question], answers: Mapping[str, Answer], count: int, *, version_2: bool = False
) -> list[dict[str, Any]]:
    """At most `count` answers that match no gold one, the most certain first; of equal ones the earlier question.

    Each has `id`, `question`, `gold` (the distinct texts), `answer` and `score`.
    """
    wrong = [q for q in questions if score_answer(answers[q.id].text, q, version_2=version_2)[0] == 0]
    wrong.sort(key=lambda question: -answers[question.id].score)
    return [
        {
            "id": question.id,
            "question": question.question,
            "gold": list(dict.fromkeys(text for text, _ in question.answers)),
            "answer": answers[question.id].text,
            "score": answers[question.id].score,
        }
        for question in wrong[:count]
    ]


def evaluate_predictions(
    path: Path, questions: Sequence[Question], *, version_2: bool = False, allow_missing: bool = False
) -> dict[str, Any]:
    """Score a file in SQuAD's official prediction format, a JSON object from question id to answer text.

    `missing` is how many questions it leaves out; they count as wrong. Raises `UserError` for a file of another form,
    for an id that is given twice or that the questions do not have, and, without `allow_missing`, for questions that
    are left out.
    """
    predictions = read_json(path)
    if not isinstance(predictions, dict):
        raise UserError(f"{path}: is not a JSON object", 'write {"question id": "answer text", …}')
    _refuse_repeated_ids(path)
    not_text = next((key for key, value in predictions.items() if not isinstance(value, str)), None)
    if not_text is not None:
        raise UserError(f"{path}: the prediction of {not_text!r} is not a text", "give the answer as a JSON string")
    known = {question.id for question in questions}
    unknown = next((key for key in predictions if key not in known), None)
    if unknown is not None:
        raise UserError(f"{path}: the data has no question {unknown!r}", "score it against the file it was made for")
    missing = [question.id for question in questions if question.id not in predictions]
    if missing and not allow_missing:
        raise UserError(
            f"{path}: has no prediction for {missing[0]!r}, the first of {len(missing)} that are missing",
            "answer every question, or add --allow-missing to count them as wrong",
        )
    return {**score_squad(questions, predictions, version_2=version_2), "missing": len(missing)}


def _refuse_repeated_ids(path: Path) -> None:
    """Of a key that an object has twice, JSON readers keep one value in silence."""

    def check(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise UserError(f"{path}: the id {key!r} is given twice", "keep one prediction for each question")
            seen.add(key)

    json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=check)


def _check_file(target: Path, overwrite: bool) -> None:
    """Refuse a file that a result would replace."""
    if target.is_dir():
        raise UserError(f"{target}: is a folder", "give the name of a file")
    if target.exists() and not overwrite:
        raise UserError(f"{target}: exists already", "add --overwrite to replace it, or give another file")
    ancestor = next(parent for parent in target.absolute().parents if parent.exists())
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK):
        raise UserError(f"{target}: cannot be created, {ancestor} is not writable", "choose another place")


@contextmanager
def _whole_file(target: Path) -> Iterator[Path]:
    """A path beside `target` for its content, which becomes `target` when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.parent / f".{target.name}.partial-{os.getpid()}"
    try:
        yield staging
        with staging.open("rb") as file:
            os.fsync(file.fileno())
        staging.replace(target)
    finally:
        staging.unlink(missing_ok=True)
