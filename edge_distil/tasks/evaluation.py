"""Scoring a checkpoint, an exported artifact, or a file of predictions on SQuAD questions."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_distil.checkpoints import read_json
from edge_distil.console import progress
from edge_distil.errors import UserError
from edge_distil.qa import QuestionAnswerer
from edge_distil.tasks.metrics import score_squad
from edge_distil.tasks.squad import Question


def predict(answerer: QuestionAnswerer, questions: Sequence[Question], *, batch_size: int = 16) -> dict[str, str]:
    """The best answer to every question, by question id, with a progress bar."""
    with progress("answering", len(questions)) as advance:
        answers = answerer.ask_all(questions, batch_size=batch_size, progress=advance)
    return {identifier: ranked[0].text for identifier, ranked in answers.items()}


def evaluate(
    answerer: QuestionAnswerer, questions: Sequence[Question], *, batch_size: int = 16, version_2: bool = False
) -> dict[str, Any]:
    """`exact_match` and `f1` (0 to 100), `examples`, `examples_per_second`, `runtime`, `precision`, `seconds`."""
    begun = time.monotonic()
    predictions = predict(answerer, questions, batch_size=batch_size)
    seconds = time.monotonic() - begun
    return {
        **score_squad(questions, predictions, version_2=version_2),
        "runtime": answerer.runtime.name,
        "precision": answerer.runtime.precision,
        "seconds": round(seconds, 3),
        "examples_per_second": round(len(questions) / seconds, 1),
    }


def evaluate_predictions(path: Path, questions: Sequence[Question], *, version_2: bool = False) -> dict[str, Any]:
    """Score a file in SQuAD's official prediction format, a JSON object from question id to answer text.

    Questions that it leaves out count as wrong and are counted in `missing`. Raises `UserError` for a file of another
    form and for ids that the questions do not have.
    """
    predictions = read_json(path)
    if not isinstance(predictions, dict):
        raise UserError(f"{path}: is not a JSON object", 'write {"question id": "answer text", …}')
    not_text = next((key for key, value in predictions.items() if not isinstance(value, str)), None)
    if not_text is not None:
        raise UserError(f"{path}: the prediction of {not_text!r} is not a text", "give the answer as a JSON string")
    known = {question.id for question in questions}
    unknown = next((key for key in predictions if key not in known), None)
    if unknown is not None:
        raise UserError(f"{path}: the data has no question {unknown!r}", "score it against the file it was made for")
    return {**score_squad(questions, predictions, version_2=version_2), "missing": len(known - predictions.keys())}
