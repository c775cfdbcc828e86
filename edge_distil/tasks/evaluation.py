"""Scoring a checkpoint, an exported artifact, or a file of predictions, on SQuAD questions or on texts with labels."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_distil.checkpoints import check_file, new_file, read_json
from edge_distil.console import progress
from edge_distil.errors import UserError
from edge_distil.models import labels_of_model
from edge_distil.qa import QuestionAnswerer
from edge_distil.runtimes import Runtime
from edge_distil.tasks.classification import decide, encode, predict_texts
from edge_distil.tasks.decoding import Answer, calibration_error, reliability
from edge_distil.tasks.metrics import score_answer, score_squad
from edge_distil.tasks.squad import Question
from edge_distil.tasks.text_metrics import score_texts
from edge_distil.tasks.texts import Example, TextTask
from edge_distil.tokenization import load_tokenizer


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
    _check_files(predictions_file, reliability_file, overwrite)
    begun = time.monotonic()
    answers = predict(answerer, questions, batch_size=batch_size)
    seconds = time.monotonic() - begun
    texts = {identifier: answer.text for identifier, answer in answers.items()}
    scores = [answers[question.id].score for question in questions]
    right = [score_answer(texts[question.id], question, version_2=version_2)[0] == 1 for question in questions]
    _write_files(texts, scores, right, predictions_file, reliability_file)
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
    """Score a file of answers. `missing` is how many questions it leaves out; they count as wrong.

    Raises `UserError` as `read_predictions` does.
    """
    predictions = read_predictions(path, [question.id for question in questions], allow_missing=allow_missing)
    missing = len(questions) - len(predictions)
    return {**score_squad(questions, predictions, version_2=version_2), "missing": missing}


def read_predictions(path: Path, ids: Sequence[str], *, allow_missing: bool = False) -> dict[str, str]:
    """A file in SQuAD's official prediction format, a JSON object from the id of an example to a text.

    Raises `UserError` for a file of another form, for an id that is given twice or that is not among `ids`, and,
    without `allow_missing`, for ids that are left out.
    """
    predictions = read_json(path, unique_keys=True)
    if not isinstance(predictions, dict):
        raise UserError(f"{path}: is not a JSON object", 'write {"id": "answer", …}')
    not_text = next((key for key, value in predictions.items() if not isinstance(value, str)), None)
    if not_text is not None:
        raise UserError(f"{path}: the prediction of {not_text!r} is not a text", "give the answer as a JSON string")
    known = set(ids)
    unknown = next((key for key in predictions if key not in known), None)
    if unknown is not None:
        raise UserError(f"{path}: the data has no id {unknown!r}", "score it against the file it was made for")
    missing = [identifier for identifier in ids if identifier not in predictions]
    if missing and not allow_missing:
        raise UserError(
            f"{path}: has no prediction for {missing[0]!r}, the first of {len(missing)} that are missing",
            "answer every one; for SQuAD --allow-missing counts them as wrong",
        )
    return predictions


def labels_for(task: TextTask, config: Mapping[str, Any], where: Path) -> list[str] | None:
    """The labels of a model in the order of its logits, None for a regression; those of the task, in any order.

    Raises `UserError` for a model of another task.
    """
    labels = labels_of_model(config)
    if labels and task.labels and labels == [f"LABEL_{index}" for index in range(len(task.labels))]:
        return list(task.labels)  # the library's names for classes without one
    is_other = (labels is None) != task.regression or (task.labels and sorted(labels or ()) != sorted(task.labels))
    if is_other:
        gives = "a score" if labels is None else ", ".join(labels)
        wants = "a score" if task.regression else ", ".join(task.labels or ("labels",))
        raise UserError(
            f"{where}: gives {gives}, and {task.name} asks for {wants}",
            f"give a model that was fine-tuned for it: edge-distil finetune --task {task.name}",
        )
    return labels


def evaluate_texts(
    runtime: Runtime,
    task: TextTask,
    sets: Mapping[str, Sequence[Example]],
    *,
    max_length: int,
    batch_size: int = 32,
    errors: int = 0,
    predictions_file: Path | None = None,
    reliability_file: Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Run a text classifier or a regression on the examples of one or more named sets, and score it.

    Returns the figures of `score_sets`, `calibration_error` (0 to 1, of the greatest probability; not for a
    regression), `runtime`, `precision`, `seconds`, `examples_per_second`, and with `errors` so many that are wrong: the
    most certain first, of a regression the furthest off. Files are written, and errors raised, as in `evaluate`.
    """
    _check_files(predictions_file, reliability_file, overwrite)
    labels = labels_for(task, read_json(runtime.folder / "config.json"), runtime.folder)
    if labels is None and reliability_file:
        raise UserError("a score has no probability that could be plotted", "leave --reliability out")
    examples = [example for each in sets.values() for example in each]
    names = ids_of(sets)
    begun = time.monotonic()
    longest = min(max_length, runtime.lengths[-1]) if runtime.lengths else max_length
    logits_NC = predict_texts(runtime, encode(examples, load_tokenizer(runtime.folder), longest), batch_size=batch_size)
    seconds = time.monotonic() - begun
    predicted = decide(logits_NC, labels)
    if labels is None:
        wrongness = [abs(value - float(example.label)) for value, example in zip(predicted, examples, strict=True)]
        scores, right = [], [False] * len(examples)
        shown = {name: str(value) for name, value in zip(names, predicted, strict=True)}
    else:
        weights_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
        scores = wrongness = (1 / weights_NC.sum(axis=1)).tolist()
        right = [label == example.label for label, example in zip(predicted, examples, strict=True)]
        shown = dict(zip(names, predicted, strict=True))
    _write_files(shown, scores, right, predictions_file, reliability_file)
    wrong = sorted((index for index, fine in enumerate(right) if not fine), key=lambda index: -wrongness[index])
    listed = [
        {
            "id": names[index],
            "text": examples[index].text,
            **({"text_pair": examples[index].pair} if examples[index].pair is not None else {}),
            "gold": examples[index].label,
            "answer": predicted[index],
            **({"score": scores[index]} if scores else {}),
        }
        for index in wrong[:errors]
    ]
    return {
        **score_sets(task, sets, predicted),
        **({"calibration_error": calibration_error(scores, right)} if scores else {}),
        "runtime": runtime.name,
        "precision": runtime.precision,
        "seconds": round(seconds, 3),
        "examples_per_second": round(len(examples) / seconds, 1),
        **({"errors": listed} if errors else {}),
    }


def evaluate_text_predictions(path: Path, task: TextTask, sets: Mapping[str, Sequence[Example]]) -> dict[str, Any]:
    """Score a file of labels or scores by the examples' ids, as `evaluate_texts` writes it.

    Raises `UserError` as `read_predictions` does, for a label that the task does not have and for a score that is no
    number.
    """
    names = ids_of(sets)
    found = read_predictions(path, names)
    predicted: list[Any] = [found[name] for name in names]
    if task.regression:
        for row, name in enumerate(names):
            try:
                predicted[row] = float(predicted[row])
            except ValueError:
                raise UserError(
                    f"{path}: the prediction of {name!r}, {predicted[row]!r}, is no number", "give a score"
                ) from None
    elif task.labels and not set(predicted) <= set(task.labels):
        name = next(name for name in names if found[name] not in task.labels)
        raise UserError(
            f"{path}: the prediction of {name!r} is {found[name]!r}", f"the labels are: {', '.join(task.labels)}"
        )
    return score_sets(task, sets, predicted)


def ids_of(sets: Mapping[str, Sequence[Example]]) -> list[str]:
    """The ids of all examples; with the name of their set before it where there is more than one."""
    return [f"{name}/{each.id}" if len(sets) > 1 else each.id for name, examples in sets.items() for each in examples]


def score_sets(task: TextTask, sets: Mapping[str, Sequence[Example]], predicted: Sequence[Any]) -> dict[str, float]:
    """The task's metrics, their mean as `score` (0 to 100), and the number of `examples`.

    Of several sets, as MNLI has two, each metric carries its set's name behind its own, and `score` is the mean of the
    sets'. `predicted` holds labels, or numbers for a regression, of all examples in order.
    """
    found: dict[str, dict[str, float]] = {}
    first = 0
    for name, examples in sets.items():
        here = predicted[first : first + len(examples)]
        first += len(examples)
        gold = [example.label for example in examples]
        if not task.regression:
            # Metrics of two classes are about the second; labels learnt from the data are scored by accuracy alone.
            order = {label: index for index, label in enumerate(task.labels or sorted({*map(str, gold), *here}))}
            gold, here = [order[str(label)] for label in gold], [order[label] for label in here]
        found[name] = score_texts(task, gold, here)  # type: ignore[arg-type]
    if len(found) == 1:
        return next(iter(found.values()))
    return {
        **{f"{metric}_{name}": each[metric] for name, each in found.items() for metric in task.metrics},
        "score": sum(each["score"] for each in found.values()) / len(found),
        "examples": sum(each["examples"] for each in found.values()),
    }


def _check_files(predictions_file: Path | None, reliability_file: Path | None, overwrite: bool) -> None:
    for path in (predictions_file, reliability_file):
        if path:
            check_file(path, overwrite)


def _write_files(
    texts: Mapping[str, str],
    scores: Sequence[float],
    right: Sequence[bool],
    predictions_file: Path | None,
    reliability_file: Path | None,
) -> None:
    if predictions_file:
        with new_file(predictions_file) as path:
            path.write_text(json.dumps(texts, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
    if reliability_file:
        from edge_distil.report.reliability import plot

        with new_file(reliability_file) as path:
            plot(reliability(scores, right), path)
