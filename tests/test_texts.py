"""Texts and their labels: GLUE's files and the user's own are read as they stand, a fault is named with its line."""

import codecs
import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from edge_distil.errors import UserError
from edge_distil.tasks.texts import GLUE, TEXT, Example, TextTask, labels_of, read_examples, task_files

HEADERS = {
    "sst-2": "sentence label",
    "mrpc": "Quality|#1 ID|#2 ID|#1 String|#2 String",
    "sts-b": "index genre filename year old_index source1 source2 sentence1 sentence2 score",
    "qqp": "id qid1 qid2 question1 question2 is_duplicate",
    "mnli": "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse "
    "sentence1 sentence2 label1 gold_label",
    "qnli": "index question sentence label",
    "rte": "index sentence1 sentence2 label",
    "wnli": "index sentence1 sentence2 label",
}
LINES = {
    "cola": ("gj04|1||They drank it.", Example("1", "They drank it.", None, "1")),
    "sst-2": ("a fine film |0", Example("2", "a fine film ", None, "0")),
    "mrpc": ("1|17|18|It rose.|It grew.", Example("2", "It rose.", "It grew.", "1")),
    "sts-b": ("0|news|f|2012|1|none|none|It rose.|It grew.|3.800", Example("2", "It rose.", "It grew.", 3.8)),
    "qqp": ("5|11|12|Who?|Which?|1", Example("2", "Who?", "Which?", "1")),
    "mnli": ("0|1|2|fiction|( a )|( b )|(A)|(B)|It fell.|It moved.|neutral|entailment",
             Example("2", "It fell.", "It moved.", "entailment")),
    "qnli": ("7|Who?|She did.|not_entailment", Example("2", "Who?", "She did.", "not_entailment")),
    "rte": ("7|It fell.|It moved.|entailment", Example("2", "It fell.", "It moved.", "entailment")),
    "wnli": ("7|He saw it.|The cat saw it.|0", Example("2", "He saw it.", "The cat saw it.", "0")),
}  # fmt: skip


def tabs(line: str) -> str:
    """A line with bars, or blanks where it has no bars, for tabs."""
    return line.replace("|" if "|" in line else " ", "\t")


def glue_text(name: str, *lines: str) -> str:
    """A file of a GLUE task: its header, if it has one, and lines whose cells have bars between them."""
    header = [tabs(HEADERS[name])] if name in HEADERS else []
    return "".join(f"{line}\n" for line in [*header, *(line.replace("|", "\t") for line in lines)])


def written(path: Path, content: str | bytes) -> Path:
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def fault(path: Path, task: TextTask, labels: tuple[str, ...] | None = None) -> UserError:
    with pytest.raises(UserError) as caught:
        read_examples(path, task, labels=labels)
    assert caught.value.hint
    return caught.value


# GLUE


def test_glue_has_nine_tasks_with_their_labels_and_metrics() -> None:
    assert {name: (task.labels, task.metrics) for name, task in GLUE.items()} == {
        "cola": (("0", "1"), ("matthews",)),
        "sst-2": (("0", "1"), ("accuracy",)),
        "mrpc": (("0", "1"), ("accuracy", "f1")),
        "sts-b": (None, ("pearson", "spearman")),
        "qqp": (("0", "1"), ("accuracy", "f1")),
        "mnli": (("entailment", "neutral", "contradiction"), ("accuracy",)),
        "qnli": (("entailment", "not_entailment"), ("accuracy",)),
        "rte": (("entailment", "not_entailment"), ("accuracy",)),
        "wnli": (("0", "1"), ("accuracy",)),
    }
    assert [name for name, task in GLUE.items() if task.regression] == ["sts-b"]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("name", list(GLUE))
def test_a_task_is_read_from_glues_own_columns(tmp_path: Path, name: str, ending: str) -> None:
    line, example = LINES[name]
    path = written(tmp_path / "train.tsv", glue_text(name, line).replace("\n", ending))
    assert read_examples(path, GLUE[name]) == [example]


def test_columns_are_found_by_name_in_whatever_order_and_number(tmp_path: Path) -> None:
    # The dev files of MNLI have five labels of annotators before the one that counts.
    header = "gold_label|label1|label2|sentence2|sentence1"
    path = written(tmp_path / "dev.tsv", f"{header}\nneutral|entailment|-|B.|A.\n".replace("|", "\t"))
    assert read_examples(path, GLUE["mnli"]) == [Example("2", "A.", "B.", "neutral")]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    line, example = LINES["mrpc"]
    path = written(tmp_path / "train.tsv", codecs.BOM_UTF8 + glue_text("mrpc", line).encode())
    assert read_examples(path, GLUE["mrpc"]) == [example]


def test_quotation_marks_and_rare_line_marks_are_text_in_glue(tmp_path: Path) -> None:
    texts = ['"open', 'he said "no"', 'closed"', "one\u2028two\x85three\x0cfour\rfive"]
    path = written(tmp_path / "train.tsv", glue_text("sst-2", *(f"{text}|1" for text in texts)))
    assert [example.text for example in read_examples(path, GLUE["sst-2"])] == texts


def test_only_qqp_leaves_out_broken_lines_and_says_how_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["1|2|3|Who is|Which?|0", "4|5|6|How", " come?|Why?|1", "7|8|9|What?||0", "10|11|12|a|b|c|0", "1|2|3|A|B|1"]
    path = written(tmp_path / "train.tsv", glue_text("qqp", *lines))
    notes: list[str] = []
    monkeypatch.setattr("edge_distil.tasks.texts.note", notes.append)
    assert [(example.id, example.text) for example in read_examples(path, GLUE["qqp"])] == [("2", "Who is"), ("7", "A")]
    assert notes == [f"{path}: left out 4 of 6 lines, broken as published, the first at line 3"]
    for name in GLUE.keys() - {"qqp"}:
        good = LINES[name][0]
        path = written(tmp_path / f"{name}.tsv", glue_text(name, good, f"{good}|more", good))
        line, columns = (2, 4) if name == "cola" else (3, good.count("|") + 1)
        assert (
            fault(path, GLUE[name]).message
            == f"{path}: line {line}: the number of columns is {columns + 1}, not {columns}"
        )


def test_a_qqp_file_without_broken_lines_is_read_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read_examples(written(tmp_path / "dev.tsv", glue_text("qqp", LINES["qqp"][0])), GLUE["qqp"])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", [name for name in GLUE if name != "cola"])
def test_a_test_file_without_labels_is_told_apart(tmp_path: Path, name: str) -> None:
    task = GLUE[name]
    names = [column for column in tabs(HEADERS[name]).split("\t") if column != task.label]
    path = written(tmp_path / "test.tsv", "\t".join(names) + "\n" + "\t".join("1" for _ in names) + "\n")
    caught = fault(path, task)
    assert caught.message == f"{path}: has no column {task.label!r}, its columns are {', '.join(names)}"
    assert "test files are published without labels" in caught.hint


def test_colas_test_file_has_other_columns(tmp_path: Path) -> None:
    path = written(tmp_path / "test.tsv", "index\tsentence\n0\tBill whistled.\n")
    caught = fault(path, GLUE["cola"])
    assert caught.message == f"{path}: line 1: the number of columns is 2, not 4"
    assert caught.hint.endswith("GLUE's test files have no labels")


@pytest.mark.parametrize("name", [name for name in GLUE if name != "cola"])
def test_a_text_column_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    task = GLUE[name]
    for column in {task.text, task.pair or task.text}:
        names = ["other" if name == column else name for name in tabs(HEADERS[name]).split("\t")]
        caught = fault(written(tmp_path / "train.tsv", "\t".join(names) + "\n"), task)
        assert f"has no column {column!r}" in caught.message
        assert "test files" not in caught.hint


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("sst-2", "good|2", "the label '2' is not one of the task's"),
        ("sst-2", "good|", "'label' is empty"),
        ("sst-2", " |1", "'sentence' is empty"),
        ("wnli", "0|A.| |1", "'sentence2' is empty"),
        ("rte", "0|A.|B.|neutral", "the label 'neutral' is not one of the task's"),
        ("sts-b", "0|a|b|c|d|e|f|A.|B.|five", "'score' is 'five', which is no number"),
        ("sts-b", "0|a|b|c|d|e|f|A.|B.|", "'score' is '', which is no number"),
        ("sts-b", "0|a|b|c|d|e|f|A.|B.|5.01", "the score 5.01 is not from 0 to 5"),
        ("sts-b", "0|a|b|c|d|e|f|A.|B.|-0.1", "the score -0.1 is not from 0 to 5"),
        ("sts-b", "0|a|b|c|d|e|f|A.|B.|nan", "the score nan is not from 0 to 5"),
    ],
)
def test_a_fault_in_a_glue_file_is_named_with_its_line(tmp_path: Path, name: str, line: str, message: str) -> None:
    path = written(tmp_path / "train.tsv", glue_text(name, LINES[name][0], line))
    assert fault(path, GLUE[name]).message == f"{path}: line 3: {message}"


def test_scores_from_0_to_5_are_read_as_numbers(tmp_path: Path) -> None:
    lines = [f"0|a|b|c|d|e|f|A.|B.|{score}" for score in ("0", "5.000", "2.5")]
    path = written(tmp_path / "train.tsv", glue_text("sts-b", *lines))
    assert [example.label for example in read_examples(path, GLUE["sts-b"])] == [0.0, 5.0, 2.5]


@pytest.mark.parametrize("inside", [False, True], ids=["its own folder", "the folder of all tasks"])
@pytest.mark.parametrize("name", list(GLUE))
def test_a_tasks_files_are_found_in_its_folder_and_in_the_folder_of_all(
    tmp_path: Path, name: str, inside: bool
) -> None:
    task = GLUE[name]
    assert task.folder
    folder = tmp_path / task.folder
    folder.mkdir()
    dev = ["dev_matched.tsv", "dev_mismatched.tsv"] if name == "mnli" else ["dev.tsv"]
    for file in ["train.tsv", *dev]:
        (folder / file).touch()
    expected = (folder / "train.tsv", [folder / file for file in dev])
    assert task_files(task, tmp_path if inside else folder) == expected
    for file in ["train.tsv", *dev]:
        (folder / file).rename(folder / "away")
        with pytest.raises(UserError) as caught:
            task_files(task, tmp_path)
        assert caught.value.message == f"{folder}: holds no {file}"
        assert task.folder in caught.value.hint
        (folder / "away").rename(folder / file)


def test_a_folder_that_is_none_and_a_task_without_folder_are_errors(tmp_path: Path) -> None:
    file = written(tmp_path / "train.tsv", "")
    for task, path, message in [
        (GLUE["rte"], file, f"{file}: is a file, not a folder"),
        (GLUE["rte"], tmp_path / "none", f"{tmp_path / 'none'}: no such folder"),
        (TEXT, tmp_path, "the task 'text' has no folder of its own"),
    ]:
        with pytest.raises(UserError) as caught:
            task_files(task, path)
        assert caught.value.message == message


# The user's own texts

OWN = [('Good, "very" good', "yes"), ("Bad:\nand\r\nlong", "no"), ("Ünïcode 😀", "yes")]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_json_lines_and_csv_give_the_same_texts_and_labels(tmp_path: Path, suffix: str) -> None:
    lines = [json.dumps({"text": text, "label": label}, ensure_ascii=label == "no") for text, label in OWN]
    path = written(tmp_path / f"train.jsonl{suffix}", "\n".join([lines[0], "", *lines[1:]]))
    assert read_examples(path, TEXT) == [
        Example(number, text, None, label) for number, (text, label) in zip(("1", "3", "4"), OWN, strict=True)
    ]
    rows = ["text,label", '"Good, ""very"" good",yes', "", '"Bad:\nand\r\nlong",no', "Ünïcode 😀,yes"]
    path = written(tmp_path / f"train.csv{suffix}", codecs.BOM_UTF8 + "\r\n".join(rows).encode())
    # The second text fills lines 4 to 6.
    assert read_examples(path, TEXT) == [
        Example(number, text, None, label) for number, (text, label) in zip(("2", "4", "7"), OWN, strict=True)
    ]


def test_a_pair_is_read_where_the_file_has_one(tmp_path: Path) -> None:
    json_lines = written(tmp_path / "a.jsonl", '{"label": 1, "text_pair": "B", "text": "A", "source": null}\n')
    table = written(tmp_path / "a.csv", "label, text_pair, text, source\n1,B,A,\n")
    assert read_examples(json_lines, TEXT) == [Example("1", "A", "B", "1")]
    assert read_examples(table, TEXT) == [Example("2", "A", "B", "1")]


def test_a_label_is_the_same_as_number_and_as_text(tmp_path: Path) -> None:
    lines = ['{"text": "A", "label": 1}', '{"text": "B", "label": "1"}', '{"text": "C", "label": " 1\\n"}']
    path = written(tmp_path / "a.jsonl", "\n".join(lines))
    assert [example.label for example in read_examples(path, TEXT)] == ["1", "1", "1"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "A", "label": "no"', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('["A", "no"]', "is not a JSON object"),
        ('{"txt": "A", "label": "no"}', "has no field 'text'"),
        ('{"text": "A"}', "has no field 'label'"),
        ('{"text": 7, "label": "no"}', "'text' is not text"),
        ('{"text": null, "label": "no"}', "'text' is not text"),
        ('{"text": " \\n", "label": "no"}', "'text' is empty"),
        ('{"text": "A", "text_pair": "", "label": "no"}', "'text_pair' is empty"),
        ('{"text": "\\ud83d", "label": "no"}', "'text' is not UTF-8 text"),
        ('{"text": "A", "label": " "}', "'label' is empty"),
        ('{"text": "A", "label": null}', "'label' is neither text nor a whole number"),
        ('{"text": "A", "label": true}', "'label' is neither text nor a whole number"),
        ('{"text": "A", "label": 0.5}', "'label' is neither text nor a whole number"),
        ('{"text": "A", "text_pair": "B", "label": "no"}', "has a 'text_pair', the lines before it have none"),
        (b'{"text": "caf\xe9", "label": "no"}', "is not UTF-8 text"),
    ],
    ids=str,
)
def test_a_fault_in_json_lines_is_named_with_its_line(tmp_path: Path, line: str | bytes, message: str) -> None:
    line = line.encode() if isinstance(line, str) else line
    path = written(tmp_path / "a.jsonl", b'{"text": "A", "label": "yes"}\n\n' + line + b"\n")
    assert fault(path, TEXT).message == f"{path}: line 3: {message}"


def test_a_pair_that_is_missing_from_one_line_is_named(tmp_path: Path) -> None:
    lines = ['{"text": "A", "text_pair": "B", "label": 1}', '{"text": "A", "textpair": "B", "label": 0}']
    path = written(tmp_path / "a.jsonl", "\n".join(lines))
    assert fault(path, TEXT).message == f"{path}: line 2: has no 'text_pair', the lines before it have one"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('text,label\n"a\nb",yes\nA,B,no\n', "line 4: the number of columns is 3, not 2"),
        ('text,label\n"a\nb",yes\nA\n', "line 4: the number of columns is 1, not 2"),
        ('text,label\n"a\nb",yes\n,no\n', "line 4: 'text' is empty"),
        ('text,label\n"a\nb",yes\nA,\n', "line 4: 'label' is empty"),
        ('text,label\n"a\nb",yes\n"A,no\nB,no\n', "line 4: is not CSV: unexpected end of data"),
        ('text,label\n"a\nb",yes\n"A" or,no\n', "line 4: is not CSV: ',' expected after '\"'"),
        ('text,label\n"a\nb",yes\n"' + "A" * 200_000 + '",no\n', "line 4: is not CSV: field larger than field limit"),
        (b'text,label\n"a\nb",yes\ncaf\xe9,no\n', "line 4: is not UTF-8 text"),
        ("text;label\nA;no\n", "has no column 'text', its columns are text;label"),
        ("text,labels\nA,no\n", "has no column 'label', its columns are text, labels"),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_a_fault_in_csv_is_named_with_the_line_where_its_row_begins(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    path = written(tmp_path / "a.csv", content)
    assert fault(path, TEXT).message.startswith(f"{path}: {message}")


def test_a_label_that_training_did_not_have_is_named_with_those_it_had(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "text,label\nA,yes\nB,maybe\n")
    caught = fault(path, TEXT, ("no", "yes"))
    assert caught.message == f"{path}: line 3: the label 'maybe' is not one of the task's"
    assert caught.hint == "these are: no, yes"
    many = tuple(str(number) for number in range(1, 1025))
    assert fault(path, TEXT, many).hint == f"these are: {', '.join(many[:20])} and 1,004 more"
    assert len(read_examples(path, TEXT, labels=("maybe", "no", "yes"))) == 2


def labelled(*labels: str) -> list[Example]:
    return [Example(str(number), "A", None, label) for number, label in enumerate(labels)]


def test_labels_are_learnt_once_each_and_whole_numbers_sort_by_value() -> None:
    assert labels_of(labelled("10", "9", "-1", "9"), "a.csv") == ("-1", "9", "10")
    assert labels_of(labelled("yes", "no", "yes", "Maybe"), "a.csv") == ("Maybe", "no", "yes")
    assert labels_of(labelled("10", "9", "other"), "a.csv") == ("10", "9", "other")
    # One value in several spellings: an output for each, in an order that no run changes.
    same = tuple("0" * zeros + "1" for zeros in range(9, -1, -1))
    assert labels_of(labelled(*same), "a.csv") == labels_of(labelled(*reversed(same)), "a.csv") == same
    with pytest.raises(UserError, match=r"^a.csv: every label is 'yes'$"):
        labels_of(labelled("yes", "yes"), "a.csv")


# Files


@pytest.mark.parametrize(
    ("name", "task"), [("a.tsv", GLUE["rte"]), ("a.jsonl", TEXT), ("a.csv", TEXT), ("a.csv.gz", TEXT)]
)
def test_a_file_that_is_missing_empty_or_a_folder_is_an_error(tmp_path: Path, name: str, task: TextTask) -> None:
    path = tmp_path / name
    assert fault(path, task).message == f"{path}: no such file"
    assert fault(written(path, "\n" if task is TEXT else ""), task).message == f"{path}: holds no example"
    path.unlink()
    path.mkdir()
    assert fault(path, task).message == f"{path}: is a folder"


def test_a_header_alone_is_no_example(tmp_path: Path) -> None:
    for path, task in [
        (written(tmp_path / "a.csv", "text,label\n"), TEXT),
        (written(tmp_path / "a.tsv", glue_text("qqp")), GLUE["qqp"]),
    ]:
        assert fault(path, task).message == f"{path}: holds no example"


@pytest.mark.parametrize("name", ["a.txt", "a.tsv", "a.gz", "a.jsonl.zst", "a"])
def test_a_file_of_another_kind_is_an_error_that_says_which_are_read(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, "text,label\nA,no\n")
    caught = fault(path, TEXT)
    assert caught.message == f"{path}: is not a kind of file that task 'text' reads"
    assert caught.hint == "give .jsonl or .csv, or that as .gz"
    own = written(tmp_path / "own.csv", "text,label\nA,no\n")
    assert fault(own, GLUE["sst-2"]).hint == "give .tsv, or that as .gz"


@pytest.mark.parametrize("damage", ["cut", "changed", "not gzip"])
@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.gz", "a.tsv.gz"])
def test_a_damaged_archive_is_an_error(tmp_path: Path, name: str, damage: str) -> None:
    task = GLUE["sst-2"] if "tsv" in name else TEXT
    lines = {
        "a.jsonl.gz": "".join(json.dumps({"text": f"A {number}", "label": 1}) + "\n" for number in range(1000)),
        "a.csv.gz": "text,label\n" + "".join(f"A {number},1\n" for number in range(1000)),
        "a.tsv.gz": glue_text("sst-2", *(f"A {number}|1" for number in range(1000))),
    }
    path = written(tmp_path / name, lines[name])
    assert len(read_examples(path, task)) == 1000
    whole = path.read_bytes()
    # The last eight bytes of an archive are its checksum and its length.
    damaged = {"cut": whole[:-20], "changed": whole[:-8] + bytes(4) + whole[-4:], "not gzip": lines[name].encode()}
    path.write_bytes(damaged[damage])
    assert fault(path, task).message == f"{path}: is damaged or cut short"


# Real files

ROOT = Path(__file__).parents[1]
COUNTS = {
    "cola": (8551, 1043),
    "sst-2": (6920, 872),
    "mrpc": (3576, 500),
    "sts-b": (5749, 1500),
    "rte": (2490, 277),
    "wnli": (635, 71),
}


@pytest.fixture(scope="module")
def data() -> Path:
    """Published data beside the checkout; it is no part of the repository."""
    for folder in (ROOT / "data", ROOT.parent / "shared" / "data"):
        if (folder / "glue").is_dir() and (folder / "movie-reviews").is_dir():
            return folder
    pytest.skip("no folder data with glue and movie-reviews beside the checkout")


@pytest.mark.parametrize("name", list(COUNTS))
def test_published_glue_files_are_read_whole(data: Path, name: str) -> None:
    task = GLUE[name]
    train, (dev,) = task_files(task, data / "glue")
    read = read_examples(train, task), read_examples(dev, task)
    assert tuple(map(len, read)) == COUNTS[name]
    assert all((example.pair is None) == (task.pair is None) for examples in read for example in examples)
    if not task.regression:
        assert all({example.label for example in examples} == set(task.labels or ()) for examples in read)


def test_published_film_reviews_are_read_whole(data: Path) -> None:
    train = read_examples(data / "movie-reviews" / "train.jsonl.gz", TEXT)
    labels = labels_of(train, "train")
    test = read_examples(data / "movie-reviews" / "test.jsonl.gz", TEXT, labels=labels)
    assert Counter(example.label for example in train) == {"0": 815, "1": 785}
    assert Counter(example.label for example in test) == {"0": 185, "1": 215}
