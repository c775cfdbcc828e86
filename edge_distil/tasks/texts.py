"""Texts with a label or a score: the nine tasks of GLUE, texts of the user's own, and their files, each line checked.

GLUE: Wang et al., 2018; its files are read as they are published. A line's number counts from 1, the header included.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_distil.console import note
from edge_distil.errors import UserError

LEAST_SCORE, GREATEST_SCORE = 0.0, 5.0  # of STS-B

_WHOLE_NUMBER = re.compile(r"-?[0-9]+")
_SHOWN_LABELS = 20

# A line's number and its fields by name, None for a line that is left out.
_Rows = Iterator[tuple[int, dict[str, Any] | None]]


@dataclass(frozen=True, slots=True)
class TextTask:
    """What a task asks for, and where its files hold it.

    `text`, `pair` and `label` name columns or fields. `labels` are the classes in the order of the model's outputs,
    None with `regression` and where they are learnt from the data (`labels_of`). `metrics` are names that
    `text_metrics.score_texts` knows. `folder`, `train` and `dev` are GLUE's names of the task's files, `folder` None
    where the task is no part of it; `columns` names the columns of files that have no header. With `skips_broken_lines`
    lines that lack a column or a text are left out, as some do where the task is published; else they are a fault.
    """

    name: str
    text: str
    pair: str | None
    label: str
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...]
    folder: str | None = None
    train: str = "train.tsv"
    dev: tuple[str, ...] = ("dev.tsv",)
    columns: tuple[str, ...] = ()
    regression: bool = False
    skips_broken_lines: bool = False

    @property
    def required(self) -> tuple[str, ...]:
        """The columns or fields without which there is no example: all of them, but the pair only in GLUE."""
        return (self.text, *([self.pair] if self.folder and self.pair else []), self.label)


@dataclass(frozen=True, slots=True)
class Example:
    """One text or pair of texts. `id` is the number of the line where it begins, `label` a score with regression."""

    id: str
    text: str
    pair: str | None
    label: str | float


_BINARY = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")

GLUE: dict[str, TextTask] = {
    task.name: task
    for task in (
        TextTask(
            "cola", "sentence", None, "acceptable", _BINARY, ("matthews",), "CoLA",
            columns=("source", "acceptable", "star", "sentence"),
        ),
        TextTask("sst-2", "sentence", None, "label", _BINARY, ("accuracy",), "SST-2"),
        TextTask("mrpc", "#1 String", "#2 String", "Quality", _BINARY, ("accuracy", "f1"), "MRPC"),
        TextTask("sts-b", "sentence1", "sentence2", "score", None, ("pearson", "spearman"), "STS-B", regression=True),
        TextTask(
            "qqp", "question1", "question2", "is_duplicate", _BINARY, ("accuracy", "f1"), "QQP",
            skips_broken_lines=True,
        ),
        TextTask(
            "mnli", "sentence1", "sentence2", "gold_label", ("entailment", "neutral", "contradiction"), ("accuracy",),
            "MNLI", dev=("dev_matched.tsv", "dev_mismatched.tsv"),
        ),
        TextTask("qnli", "question", "sentence", "label", _ENTAILMENT, ("accuracy",), "QNLI"),
        TextTask("rte", "sentence1", "sentence2", "label", _ENTAILMENT, ("accuracy",), "RTE"),
        TextTask("wnli", "sentence1", "sentence2", "label", _BINARY, ("accuracy",), "WNLI"),
    )
}  # fmt: skip

TEXT = TextTask("text", "text", "text_pair", "label", None, ("accuracy",))


TEXT_TASKS = {**GLUE, TEXT.name: TEXT}


def set_name(path: Path) -> str:
    """What GLUE calls the examples of a dev file: "matched" for `dev_matched.tsv`, nothing for `dev.tsv`."""
    return path.name.split(".")[0].removeprefix("dev").removeprefix("_")


def task_files(task: TextTask, data: Path) -> tuple[Path, list[Path]]:
    """The training file and the dev files (two for MNLI) of a GLUE task, in its folder or in the folder of them all.

    Raises `UserError` for a task that is no part of GLUE, a path that is no folder and a file that is not there.
    """
    if task.folder is None:
        raise UserError(f"the task {task.name!r} has no folder of its own", "name its training file and its dev file")
    if not data.is_dir():
        problem = "is a file, not a folder" if data.exists() else "no such folder"
        raise UserError(f"{data}: {problem}", f"give GLUE's folder {task.folder}, or the one that holds it")
    folder = data / task.folder if (data / task.folder).is_dir() else data
    for name in (task.train, *task.dev):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder}: holds no {name}",
                f"give GLUE's folder {task.folder} with {', '.join((task.train, *task.dev))}, or the one that holds it",
            )
    return folder / task.train, [folder / name for name in task.dev]


def read_examples(path: Path, task: TextTask, *, labels: Sequence[str] | None = None) -> list[Example]:
    """The examples of a file, in order. GLUE's tasks are `.tsv`; `TEXT` is `.jsonl` or `.csv`; each may end in `.gz`.

    `labels` are those that may occur, by default the task's own; where neither says which, every label may. Says on
    stderr how many lines of QQP were left out as broken.

    Raises `UserError` that names the file and the line: a column or field that is missing, a wrong number of columns, a
    text that is empty, a label that is not one of `labels`, a score that is not a number from 0 to 5, a pair in some
    lines only, a line that is no UTF-8 or no JSON; and for a path that leads to no such file, a damaged archive and a
    file without any example.
    """
    read = _reader(path, task)
    allowed = task.labels if labels is None else labels
    examples: list[Example] = []
    broken: list[int] = []
    for number, row in read(path, task):
        if row is None:
            broken.append(number)
            continue
        at = f"{path}: line {number}"
        text = _text(row.get(task.text), task.text, at)
        pair = row.get(task.pair) if task.pair else None
        if pair is not None:
            pair = _text(pair, str(task.pair), at)
        # A field that is misspelt in some lines would go unseen otherwise, and half of the examples lack their half.
        if examples and (pair is None) != (examples[0].pair is None):
            has, have = ("no", "one") if pair is None else ("a", "none")
            raise UserError(
                f"{at}: has {has} {task.pair!r}, the lines before it have {have}", "pair every text or none"
            )
        read_label = _score if task.regression else _label
        examples.append(Example(str(number), text, pair, read_label(row.get(task.label), task.label, allowed, at)))
    if broken:
        total = len(broken) + len(examples)
        note(f"{path}: left out {len(broken):,} of {total:,} lines, broken as published, the first at line {broken[0]}")
    if not examples:
        raise UserError(f"{path}: holds no example", "give a file with at least one line of text and its label")
    return examples


def labels_of(examples: Iterable[Example], source: str) -> tuple[str, ...]:
    """The labels that occur, sorted: by value where all are whole numbers, else by character.

    Raises `UserError` where there are fewer than two, from which nothing can be learnt.
    """
    found = {str(example.label) for example in examples}
    if len(found) < 2:
        raise UserError(
            f"{source}: every label is {', '.join(map(repr, found))}", "give examples of at least two labels to learn"
        )
    if all(_WHOLE_NUMBER.fullmatch(label) for label in found):
        return tuple(sorted(found, key=lambda label: (int(label), label)))
    return tuple(sorted(found))


def _reader(path: Path, task: TextTask) -> Callable[[Path, TextTask], _Rows]:
    """How to read a file, by its name. Raises `UserError` unless it is a file of a kind that the task reads."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder", "give a file, not a folder")
    if not path.exists():
        raise UserError(f"{path}: no such file", "check the path")
    readers = {".tsv": _tsv} if task.folder else {".jsonl": _json_lines, ".csv": _csv}
    inner = Path(path.stem) if path.suffix.lower() == ".gz" else path
    if inner.suffix.lower() not in readers:
        kinds = " or ".join(readers)
        raise UserError(f"{path}: is not a kind of file that task {task.name!r} reads", f"give {kinds}, or that as .gz")
    return readers[inner.suffix.lower()]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines with their ends, without a byte-order mark. A line ends at \\n alone: texts hold other marks."""
    try:
        with _open(path) as stream:
            for number, line in enumerate(stream, 1):
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError:
                    raise UserError(f"{path}: line {number}: is not UTF-8 text", "save the file as UTF-8") from None
                yield number, text
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise UserError(f"{path}: is damaged or cut short", "make or fetch the .gz file again") from None


def _open(path: Path) -> io.BufferedIOBase:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def _tsv(path: Path, task: TextTask) -> _Rows:
    """Rows of cells between tabs. A quotation mark is a character like others there, and a line break ends a row."""
    columns: Sequence[str] = task.columns
    for number, line in _lines(path):
        cells = line.removesuffix("\n").removesuffix("\r").split("\t")
        if not columns:
            columns = cells
            _check_header(columns, task, path)
        elif task.skips_broken_lines and (len(cells) != len(columns) or not all(cell.strip() for cell in cells)):
            yield number, None
        elif len(cells) != len(columns):
            hint = f"put one tab between each column and the next: {', '.join(columns)}"
            if task.columns and number == 1:
                hint = f"give a train or a dev file, with {', '.join(columns)}: GLUE's test files have no labels"
            raise UserError(f"{path}: line {number}: the number of columns is {len(cells)}, not {len(columns)}", hint)
        else:
            yield number, dict(zip(columns, cells, strict=True))


def _csv(path: Path, task: TextTask) -> _Rows:
    """Rows of cells between commas. A cell in double quotes may hold commas and line breaks."""
    reader = csv.reader((line for _, line in _lines(path)), strict=True)
    columns: list[str] = []
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as fault:
            raise UserError(
                f"{path}: line {number}: is not CSV: {fault}",
                "put text with commas or line breaks in double quotes, double those inside it, and close every one",
            ) from None
        if not cells:
            continue
        if not columns:
            columns = [cell.strip() for cell in cells]
            _check_header(columns, task, path)
        elif len(cells) != len(columns):
            raise UserError(
                f"{path}: line {number}: the number of columns is {len(cells)}, not {len(columns)}",
                f"the columns are {', '.join(columns)}; put text that holds a comma in double quotes",
            )
        else:
            yield number, dict(zip(columns, cells, strict=True))


def _json_lines(path: Path, task: TextTask) -> _Rows:
    """Objects, one a line, blank lines passed over."""
    layout = f'write one object a line: {{"{task.text}": "…", "{task.label}": "…"}}'
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise UserError(f"{path}: line {number}: is not JSON", layout) from None
        if not isinstance(row, dict):
            raise UserError(f"{path}: line {number}: is not a JSON object", layout)
        for name in task.required:
            if name not in row:
                raise UserError(f"{path}: line {number}: has no field {name!r}", layout)
        yield number, row


def _check_header(columns: Sequence[str], task: TextTask, path: Path) -> None:
    for name in task.required:
        if name not in columns:
            hint = f"begin the file with a line that names its columns: {', '.join(task.required)}"
            if task.folder and name == task.label:
                hint = "GLUE's test files are published without labels: give a train or a dev file"
            raise UserError(f"{path}: has no column {name!r}, its columns are {', '.join(columns)}", hint)


def _text(value: Any, name: str, at: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{at}: {name!r} is not text", "put text in double quotes")
    if not value.strip():
        raise UserError(f"{at}: {name!r} is empty", "give some text, or remove the line")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell and no text can hold
        raise UserError(f"{at}: {name!r} is not UTF-8 text", "write characters as they are, not as \\u…") from None
    return value


def _label(value: Any, name: str, allowed: Sequence[str] | None, at: str) -> str:
    # true and false are whole numbers to Python, and would become labels that no other file spells alike.
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise UserError(f"{at}: {name!r} is neither text nor a whole number", 'write labels as "good" or as 1')
    label = _text(str(value), name, at).strip()
    if allowed is not None and label not in allowed:
        more = f" and {len(allowed) - _SHOWN_LABELS:,} more" if len(allowed) > _SHOWN_LABELS else ""
        raise UserError(
            f"{at}: the label {label!r} is not one of the task's",
            f"these are: {', '.join(allowed[:_SHOWN_LABELS])}{more}",
        )
    return label


def _score(value: Any, name: str, allowed: Sequence[str] | None, at: str) -> float:
    try:
        score = float(value)
    except (TypeError, ValueError):
        raise UserError(f"{at}: {name!r} is {value!r}, which is no number", "give a score from 0 to 5") from None
    if not LEAST_SCORE <= score <= GREATEST_SCORE:
        raise UserError(f"{at}: the score {value} is not from 0 to 5", "give a score from 0 to 5")
    return score
