"""`finetune` and `evaluate` for texts with labels, for GLUE, and for SQuAD with dev data, on miniature files."""

import csv
import gzip
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import run_command
from scipy import stats
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from edge_distil import stages, training
from edge_distil.checkpoints import read_manifest
from edge_distil.models import load_model
from edge_distil.qa import QuestionAnswerer
from edge_distil.runtimes import open_runtime
from edge_distil.runtimes import torch as torch_runtime
from edge_distil.tasks import finetuning
from edge_distil.tasks.decoding import Decoding, tune
from edge_distil.tasks.squad import read_squad
from edge_distil.tasks.texts import GLUE

# Each task's folder, columns and labels; the published files of some have more columns.
COLUMNS: dict[str, tuple[str, str, list[str]]] = {
    "cola": ("CoLA", "", ["1", "0"]),
    "sst-2": ("SST-2", "sentence label", ["0", "1"]),
    "mrpc": ("MRPC", "Quality|#1 ID|#2 ID|#1 String|#2 String", ["1", "0"]),
    "sts-b": ("STS-B", "index genre sentence1 sentence2 score", ["0.000", "5.000", "2.500", "3.8"]),
    "qqp": ("QQP", "id qid1 qid2 question1 question2 is_duplicate", ["0", "1"]),
    "mnli": ("MNLI", "index sentence1 sentence2 label1 gold_label", ["neutral", "entailment", "contradiction"]),
    "qnli": ("QNLI", "index question sentence label", ["not_entailment", "entailment"]),
    "rte": ("RTE", "index sentence1 sentence2 label", ["not_entailment", "entailment"]),
    "wnli": ("WNLI", "index sentence1 sentence2 label", ["1", "0"]),
}  # fmt: skip
SMALL = ["--max-steps", 2, "--batch-size", 2, "--max-length", 32, "--learning-rate", 0.01]
FIGURES = ("accuracy", "f1", "matthews", "pearson", "spearman", "score", "examples")
TRAIN, DEV = 6, 9

Example = tuple[str, str, str]


@pytest.fixture(scope="module", autouse=True)
def _fp32() -> Iterator[None]:
    """The same arithmetic on every machine."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for module in (training, torch_runtime, finetuning):
            monkeypatch.setattr(module, "supports_bf16", lambda: False)
        yield


def rows(name: str, count: int, first: int) -> list[Example]:
    """Text, pair and label of so many examples, all different."""
    words = ["bridge", "tower", "stone", "river", "who", "built", "north"]
    labels = COLUMNS[name][2]
    return [
        (
            f"the {words[n % 7]} was old and {words[n * 3 % 5]} stood {n}",
            f"{words[n % 4]} of the {words[n % 6]} {n}",
            labels[n * 5 % 7 % len(labels)],
        )
        for n in range(first, first + count)
    ]


def write_glue(folder: Path, name: str) -> Path:
    """A task's folder as GLUE lays it out: its columns by their names, `train.tsv`, and its dev files."""
    own, header, _ = COLUMNS[name]
    columns = header.split("|" if "|" in header else " ") if header else []
    task = GLUE[name]
    (folder / own).mkdir(parents=True)
    for number, file in enumerate(("train.tsv", *task.dev)):
        lines = ["\t".join(columns)] if columns else []
        for text, pair, label in rows(name, DEV if number else TRAIN, 10 * number):
            named = {task.text: text, task.pair: pair, task.label: label}
            cells = [named.get(column, "7") for column in columns] if columns else ["gj04", label, "", text]
            lines.append("\t".join(cells))
        (folder / own / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / own


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("glue")
    for name in COLUMNS:
        write_glue(folder, name)
    return folder


@pytest.fixture(scope="module")
def suite(glue: Path, bert_mlm: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `finetune --task glue` printed, with its options and its folder."""
    output = tmp_path_factory.mktemp("suite") / "glue"
    arguments = ["finetune", "--task", "glue", "--data", glue, "--model", bert_mlm, "--output", output, *SMALL]
    ended = run_command(*arguments, "--json")
    assert ended.status == 0, ended.err
    return {"arguments": arguments, "output": output, "result": json.loads(ended.out), "err": ended.err}


def figures(folder: Path, name: str, glue: Path) -> dict[str, Any]:
    """What `evaluate` says of the model of a task."""
    ended = run_command("evaluate", folder, "--task", name, "--data", glue, "--max-length", 32, "--json")
    assert ended.status == 0, ended.err
    return json.loads(ended.out)


# GLUE


@pytest.mark.parametrize("name", list(COLUMNS))
def test_each_task_of_glue_is_learnt_from_its_own_folder(
    glue: Path, bert_mlm: Path, suite: dict[str, Any], tmp_path: Path, name: str
) -> None:
    output, data = tmp_path / "out", glue / COLUMNS[name][0]
    ended = run_command(
        "finetune", "--task", name, "--data", data, "--model", bert_mlm, "--output", output, *SMALL, "--json"
    )
    result = json.loads(ended.out)
    assert (ended.status, result.keys(), result["output"]) == (0, {"output", "metrics", "seconds"}, str(output))
    assert (result["metrics"]["examples"], result["metrics"]["steps"]) == (TRAIN, 2)
    manifest = read_manifest(output)
    assert manifest is not None
    assert (manifest["task"], manifest["measured"]) == ("text-classification", result["metrics"])
    assert [Path(each["path"]) for each in manifest["inputs"]["data"]] == [data / "train.tsv"]
    assert [Path(each["path"]) for each in manifest["inputs"]["dev"]] == [data / file for file in GLUE[name].dev]
    config = json.loads((output / "config.json").read_text())
    labels = list(GLUE[name].labels or ["score"])
    assert [config["id2label"][str(index)] for index in range(len(labels))] == labels
    assert config["problem_type"] == ("regression" if name == "sts-b" else "single_label_classification")
    # The figures that were kept are those of the model that was kept.
    scored = figures(output, name, data)
    dev = {key.removeprefix("dev_"): value for key, value in result["metrics"].items() if key.startswith("dev_")}
    assert dev == pytest.approx({key: scored[key] for key in dev}, abs=1e-3)
    assert set(dev) == {"score"} | {
        f"{metric}_{each}" if name == "mnli" else metric
        for metric in GLUE[name].metrics
        for each in ("matched", "mismatched")
    }
    # The folder of all tasks holds the same data: the same run.
    mine, its = (folder / "model.safetensors" for folder in (output, suite["output"] / name))
    assert mine.read_bytes() == its.read_bytes()


def test_all_of_glue_is_learnt_into_a_folder_each_with_the_macro_score(suite: dict[str, Any], glue: Path) -> None:
    result = suite["result"]
    assert (result.keys(), result["output"]) == ({"output", "metrics", "seconds"}, str(suite["output"]))
    assert {path.name for path in suite["output"].iterdir()} == set(COLUMNS)
    scores = {name: read_manifest(suite["output"] / name)["measured"]["dev_score"] for name in COLUMNS}  # type: ignore[index]
    assert result["metrics"] == {**scores, "tasks": 9, "macro_score": pytest.approx(sum(scores.values()) / 9)}
    assert len(set(scores.values())) > 2
    for name in COLUMNS:
        config = yaml.safe_load((suite["output"] / name / "command.yaml").read_text())
        assert (config["task"], config["data"]) == (name, str(glue))
        assert config["output"] == str(suite["output"] / name)


def test_a_suite_that_is_run_again_learns_only_what_is_missing(
    suite: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = shutil.copytree(suite["output"], tmp_path / "glue")
    arguments = [output if each == suite["output"] else each for each in suite["arguments"]]
    learnt: list[int] = []
    fine_tune = stages.fine_tune

    def counted(model: Any, features: Any, *rest: Any) -> Any:
        learnt.append(model.config.num_labels)
        return fine_tune(model, features, *rest)

    monkeypatch.setattr(stages, "fine_tune", counted)
    again = run_command(*arguments, "--json")
    assert learnt == []
    assert json.loads(again.out)["metrics"] == suite["result"]["metrics"]
    assert again.err.count("is finished already") == 9
    shutil.rmtree(output / "mnli")
    again = run_command(*arguments, "--json")
    assert learnt == [3]
    assert json.loads(again.out)["metrics"] == suite["result"]["metrics"]
    # Other options are another result, and an earlier one is not lost.
    other = run_command(*arguments, "--seed", 1, "--json")
    assert other.error == f"{output / 'cola'}: already holds an earlier result"
    learnt.clear()
    assert run_command(*arguments, "--overwrite", "--json").status == 0
    assert len(learnt) == 9


def test_a_suite_has_a_teacher_for_each_task(
    suite: dict[str, Any], glue: Path, distilbert_qa: Path, tmp_path: Path
) -> None:
    two = tmp_path / "two"
    for name in ("rte", "sts-b"):
        shutil.copytree(glue / COLUMNS[name][0], two / COLUMNS[name][0])
    output = tmp_path / "students"
    given = ["--data", two, "--model", distilbert_qa, "--teacher", suite["output"], *SMALL]
    ended = run_command("finetune", "--task", "glue", *given, "--output", output, "--json")
    result = json.loads(ended.out)
    assert result["metrics"].keys() == {"rte", "sts-b", "tasks", "macro_score"}
    assert result["metrics"]["tasks"] == 2
    for name in ("rte", "sts-b"):
        manifest = read_manifest(output / name)
        assert manifest is not None
        assert manifest["inputs"]["teacher"]["path"] == str(suite["output"] / name)
        assert json.loads((output / name / "config.json").read_text())["model_type"] == "distilbert"
    # What is saved makes one task's student again.
    again = tmp_path / "again"
    repeated = run_command("finetune", "--config", output / "rte" / "command.yaml", "--output", again, "--json")
    assert repeated.status == 0, repeated.err
    assert (again / "model.safetensors").read_bytes() == (output / "rte" / "model.safetensors").read_bytes()
    # The teacher made a difference.
    alone = run_command("finetune", "--task", "rte", *given[:4], *SMALL, "--output", tmp_path / "alone", "--json")
    assert alone.status == 0
    assert (tmp_path / "alone" / "model.safetensors").read_bytes() != (again / "model.safetensors").read_bytes()


def test_a_person_reads_the_suites_scores(suite: dict[str, Any]) -> None:
    ended = run_command(*suite["arguments"])
    lines = ended.out.splitlines()
    assert lines[0].startswith(f"wrote {suite['output']} in ")
    assert f"  macro_score: {suite['result']['metrics']['macro_score']:,.4g}" in lines
    assert lines[-1].startswith(f"next: edge-distil evaluate {suite['output']}/TASK --task TASK")


# Scoring


def literal(name: str, gold: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """The task's metrics from the strings of the files."""
    if name == "sts-b":
        one, other = np.array(gold, dtype=float), np.array(predicted, dtype=float)
        return {"pearson": 100 * stats.pearsonr(one, other)[0], "spearman": 100 * stats.spearmanr(one, other)[0]}
    return {"accuracy": 100 * sum(map(str.__eq__, gold, predicted)) / len(gold)}


@pytest.mark.parametrize("name", ["rte", "sts-b", "mnli"])
def test_evaluate_scores_a_task_and_the_predictions_that_it_writes(
    suite: dict[str, Any], glue: Path, tmp_path: Path, name: str
) -> None:
    written = tmp_path / "predictions.json"
    given = ["--task", name, "--data", glue]
    ended = run_command(
        "evaluate", suite["output"] / name, *given, "--max-length", 32, "--write-predictions", written, "--json"
    )
    result, predictions = json.loads(ended.out), json.loads(written.read_text(encoding="utf-8"))
    assert (ended.status, ended.err, ended.out.count("\n")) == (0, "", 1)
    assert (result["runtime"], result["precision"]) == ("torch", "fp32")
    assert result["examples_per_second"] > 0
    sets = {"matched": 10, "mismatched": 20} if name == "mnli" else {"": 10}
    assert result["examples"] == DEV * len(sets)
    expected: dict[str, float] = {}
    scores = []
    for each, first in sets.items():
        ids = [f"{each}/{line}" if each else str(line) for line in range(2, DEV + 2)]  # the header is line 1
        gold = [label for _, _, label in rows(name, DEV, first)]
        metrics = literal(name, gold, [predictions.pop(identifier) for identifier in ids])
        scores.append(sum(metrics.values()) / len(metrics))
        expected |= {f"{metric}_{each}" if each else metric: value for metric, value in metrics.items()}
    assert predictions == {}
    expected["score"] = sum(scores) / len(scores)
    assert {key: result[key] for key in expected} == pytest.approx(expected)
    assert ("calibration_error" in result) == (name != "sts-b")
    again = json.loads(run_command("evaluate", *given, "--predictions", written, "--json").out)
    assert again == {key: result[key] for key in (*expected, "examples")}


def test_each_dev_file_is_scored_with_its_own_predictions(glue: Path, tmp_path: Path) -> None:
    gold = {
        f"{each}/{line}": label
        for each, first in (("matched", 10), ("mismatched", 20))
        for line, (_, _, label) in enumerate(rows("mnli", DEV, first), start=2)
    }
    wrong = {identifier: "neutral" if gold[identifier] != "neutral" else "entailment" for identifier in gold}
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps(gold | {each: wrong[each] for each in ("mismatched/2", "mismatched/7", "mismatched/9")}))
    ended = run_command("evaluate", "--task", "mnli", "--data", glue, "--predictions", path, "--json")
    assert json.loads(ended.out) == {
        "accuracy_matched": 100.0,
        "accuracy_mismatched": pytest.approx(100 * 6 / 9),
        "score": pytest.approx(100 * 7.5 / 9),
        "examples": 18,
    }


def test_evaluate_takes_one_dev_file_too(suite: dict[str, Any], glue: Path) -> None:
    whole = figures(suite["output"] / "mnli", "mnli", glue)
    for each in ("matched", "mismatched"):
        alone = figures(suite["output"] / "mnli", "mnli", glue / "MNLI" / f"dev_{each}.tsv")
        assert (alone["accuracy"], alone["examples"]) == (whole[f"accuracy_{each}"], DEV)


def test_evaluate_says_that_a_model_was_taught_another_task(suite: dict[str, Any], glue: Path) -> None:
    given = ["--data", glue, "--max-length", 32, "--json"]
    other = run_command("evaluate", suite["output"] / "rte", "--task", "qnli", *given)  # the labels are the same words
    assert (other.status, other.err.count("\n")) == (0, 1)
    assert "was fine-tuned for rte, and is scored on qnli" in other.err
    assert json.loads(other.out)["examples"] == DEV
    assert run_command("evaluate", suite["output"] / "rte", "--task", "rte", *given).err == ""


def test_the_most_certain_errors_are_listed_and_the_scores_are_plotted(
    suite: dict[str, Any], glue: Path, tmp_path: Path
) -> None:
    picture, written = tmp_path / "reliability.png", tmp_path / "predictions.json"
    given = ["evaluate", suite["output"] / "rte", "--task", "rte", "--data", glue, "--max-length", 32, "--errors", 99]
    ended = run_command(*given, "--reliability", picture, "--write-predictions", written, "--json")
    result, predictions = json.loads(ended.out), json.loads(written.read_text(encoding="utf-8"))
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert 0 <= result["calibration_error"] <= 1
    gold = {str(line): row for line, row in enumerate(rows("rte", DEV, 10), start=2)}
    wrong = [identifier for identifier, (*_, label) in gold.items() if predictions[identifier] != label]
    assert 0 < len(wrong) < DEV
    assert sorted(error["id"] for error in result["errors"]) == sorted(wrong)
    scores = [error["score"] for error in result["errors"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0.5 <= score <= 1 for score in scores)
    for error in result["errors"]:
        text, pair, label = gold[error["id"]]
        assert (error["text"], error["text_pair"], error["gold"]) == (text, pair, label)
        assert error["answer"] == predictions[error["id"]]
    shown = run_command(*given).out
    assert shown.startswith(f"accuracy {result['accuracy']:.2f} on {DEV} examples\n")
    first = result["errors"][0]
    assert f"{first['text']} | {first['text_pair']}  ({first['id']})\ngold: {first['gold']}\nanswer: " in shown


def test_the_errors_of_a_regression_are_those_that_are_furthest_off(suite: dict[str, Any], glue: Path) -> None:
    given = ["--task", "sts-b", "--data", glue, "--max-length", 32, "--errors", 3]
    errors = json.loads(run_command("evaluate", suite["output"] / "sts-b", *given, "--json").out)["errors"]
    off = [abs(error["answer"] - error["gold"]) for error in errors]
    assert off == sorted(off, reverse=True)
    assert len(off) == 3
    assert all("score" not in error for error in errors)
    assert run_command("evaluate", suite["output"] / "sts-b", *given).out.count("gold: ") == 3


# Texts with labels of the user's own

OWN = [("the old stone bridge", "good"), ("who built it ?", "bad"), ("a tower in the north", "good"), ("nobody", "bad")]


def write_texts(path: Path, given: Sequence[tuple[str, str]] = OWN) -> Path:
    if ".csv" in path.name:
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *given])
    else:
        content = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in given).encode()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "jsonl.gz"])
def test_texts_are_learnt_from_a_file_and_judged_on_another(bert_mlm: Path, tmp_path: Path, suffix: str) -> None:
    data, dev = write_texts(tmp_path / f"train.{suffix}"), write_texts(tmp_path / f"dev.{suffix}", OWN[1:])
    output, written = tmp_path / "out", tmp_path / "predictions.json"
    given = ["--task", "text", "--data", data, "--eval", dev, "--model", bert_mlm, "--output", output]
    ended = run_command("finetune", *given, *SMALL, "--json")
    metrics = json.loads(ended.out)["metrics"]
    assert ended.status == 0
    assert (metrics["examples"], metrics["steps"], metrics["dev_score"]) == (4, 2, metrics["dev_accuracy"])
    assert json.loads((output / "config.json").read_text())["id2label"] == {"0": "bad", "1": "good"}
    curve = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["dev_score"]) for row in curve] == [(2, metrics["dev_score"])]
    # No loss was noted in two steps: there is no picture of it, and the card shows none.
    assert not (output / "loss.png").exists()
    assert "loss.png" not in (output / "README.md").read_text()
    scored = run_command("evaluate", output, "--task", "text", "--data", dev, "--write-predictions", written, "--json")
    result = json.loads(scored.out)
    assert (result["accuracy"], result["score"], result["examples"]) == (metrics["dev_score"], metrics["dev_score"], 3)
    assert set(json.loads(written.read_text()).values()) <= {"good", "bad"}
    again = json.loads(run_command("evaluate", "--task", "text", "--data", dev, "--predictions", written, "--json").out)
    assert again == {key: result[key] for key in ("accuracy", "score", "examples")}
    shown = run_command("finetune", *given, *SMALL, "--overwrite").out.splitlines()
    assert shown[0].startswith(f"wrote {output} in ")
    assert shown[-1] == f"next: edge-distil evaluate {output} --task text --data {dev}"
    # The starter's texts have labels of their own: scored on them, the model would get nothing right, in silence.
    refused = run_command("evaluate", output, "--task", "text")
    assert refused.status == 2
    assert "the model has bad, good" in refused.err
    assert "--data" in refused.err


def test_regression_without_a_head_for_answers_is_refused_by_that_name_and_can_be_taught_them(
    suite: dict[str, Path], squad_file: Path, tmp_path: Path
) -> None:
    model = suite["output"] / "sts-b"
    asked = run_command("evaluate", model, "--data", squad_file)
    assert asked.status == 2
    assert "has no question-answering head" in asked.err
    output = tmp_path / "qa"
    taught = run_command("finetune", "--model", model, "--data", squad_file, "--output", output, *SMALL)
    assert taught.status == 0
    assert run_command("evaluate", output, "--data", squad_file, "--json").status == 0


def test_without_data_the_starters_texts_are_learnt_and_scored(
    bert_mlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starter_texts = stages.starter_texts
    monkeypatch.setattr(stages, "starter_texts", lambda split: starter_texts(split)[:40])
    output = tmp_path / "out"
    ended = run_command("finetune", "--task", "text", "--model", bert_mlm, "--output", output, *SMALL, "--json")
    metrics = json.loads(ended.out)["metrics"]
    assert metrics["examples"] == 40
    assert 0 <= metrics["dev_accuracy"] <= 100
    assert json.loads(run_command("evaluate", output, "--task", "text", "--json").out)["examples"] == 40


def test_several_seeds_are_told_apart_by_their_dev_scores(bert_mlm: Path, tmp_path: Path) -> None:
    data, output = write_texts(tmp_path / "train.csv"), tmp_path / "out"
    given = ["--task", "text", "--data", data, "--eval", data, "--model", bert_mlm, "--output", output, "--seeds", 3]
    ended = run_command("finetune", *given, *SMALL, "--seed", 4)
    assert ended.status == 0, ended.err
    manifest = read_manifest(output)
    assert manifest is not None
    measured = manifest["measured"]
    scores = measured["dev_score_of_seeds"]
    assert len(scores) == 3
    assert measured["dev_score"] == scores[measured["seed"] - 4] == sorted(scores)[1] == measured["dev_score_median"]
    shown = ", ".join(f"{score:,.4g}" for score in scores)
    assert f"  dev_score_of_seeds: {shown}" in ended.out.splitlines()


def test_a_long_run_has_a_curve_of_losses_beside_its_dev_scores(bert_mlm: Path, tmp_path: Path) -> None:
    data, output = write_texts(tmp_path / "train.csv"), tmp_path / "out"
    given = ["--task", "text", "--data", data, "--eval", data, "--model", bert_mlm, "--output", output]
    run_command("finetune", *given, *SMALL[2:], "--epochs", 6, "--patience", 0)
    curve = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in curve if "dev_score" in row] == [2, 4, 6, 8, 10, 12]
    assert [row["step"] for row in curve if "loss" in row] == [10]
    assert (output / "loss.png").read_bytes().startswith(b"\x89PNG")


# SQuAD with dev data


@pytest.mark.parametrize("version_2", [False, True], ids=["v1.1", "v2.0"])
def test_the_decoding_of_a_squad_model_is_tuned_on_the_dev_data(
    bert_qa: Path, squad: dict[str, Any], tmp_path: Path, version_2: bool
) -> None:
    document = json.loads(json.dumps(squad))
    document["data"] = document["data"][:2]
    if version_2:
        for article in document["data"]:
            for qa in article["paragraphs"][0]["qas"][::2]:
                qa["answers"] = []
    data, output = tmp_path / "dev.json", tmp_path / "qa"
    data.write_text(json.dumps(document))
    small = ["--max-steps", 2, "--batch-size", 2, "--max-length", 64, "--doc-stride", 24]
    version = ["--squad-v2"] if version_2 else []
    given = ["--model", bert_qa, "--data", data, "--eval", data, "--output", output, *small, *version, "--json"]
    ended = run_command("finetune", *given)
    assert ended.status == 0, ended.err
    metrics = json.loads(ended.out)["metrics"]
    decoding = json.loads((output / "decoding.json").read_text())
    manifest = read_manifest(output)
    assert manifest is not None
    assert "decoding.json" in manifest["files"]
    assert [each["path"] for each in manifest["inputs"]["dev"]] == [str(data)]
    assert decoding.keys() == {"temperature", "null_threshold"}
    assert (decoding["null_threshold"] is not None) == version_2
    # As if it were tuned anew, from the folder.
    questions = read_squad(data, version_2=version_2)
    answerer = QuestionAnswerer(open_runtime(output), max_length=64, doc_stride=24)
    expected = tune(answerer, questions, version_2=version_2)
    loaded = Decoding.load(output)
    assert loaded.temperature == pytest.approx(expected.temperature, rel=1e-2)
    if version_2:
        assert loaded.null_threshold == pytest.approx(expected.null_threshold, abs=1e-3)
    elif loaded.temperature == 1:
        pytest.fail("a model of random weights is not calibrated")
    # The dev figures are from before: at a threshold of 0.
    evaluated = ["evaluate", output, "--data", data, "--max-length", 64, "--doc-stride", 24, "--json", *version]
    result = json.loads(run_command(*evaluated, *(["--null-threshold", 0] if version_2 else [])).out)
    assert metrics["dev_f1"] == pytest.approx(result["f1"])
    assert metrics["dev_exact_match"] == pytest.approx(result["exact_match"])
    if version_2:
        assert json.loads(run_command(*evaluated).out)["f1"] >= result["f1"]


# What the user can fix


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reaching the training is a failure of the test."""
    monkeypatch.setattr(stages, "fine_tune", lambda *_, **__: pytest.fail("training began"))


def refused(*arguments: object) -> tuple[str, str]:
    ended = run_command(*arguments)
    return ended.error, ended.hint


@pytest.mark.usefixtures("no_training")
def test_a_task_that_is_none_is_named_with_those_that_are(tmp_path: Path) -> None:
    names = "squad, cola, sst-2, mrpc, sts-b, qqp, mnli, qnli, rte, wnli, text"
    assert refused("evaluate", "--task", "snli") == ("--task snli: unknown task", f"the tasks are: {names}")
    assert refused("finetune", "--task", "snli") == ("--task snli: unknown task", f"the tasks are: {names}, glue")


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("name", ["cola", "mnli"])
def test_a_task_of_glue_needs_data(suite: dict[str, Any], bert_mlm: Path, tmp_path: Path, name: str) -> None:
    own, files = {"cola": ("CoLA", "dev.tsv"), "mnli": ("MNLI", "dev_matched.tsv, dev_mismatched.tsv")}[name]
    expected = f"--task {name} needs data", f"give GLUE's folder {own}, with train.tsv, {files}, as --data"
    assert refused("finetune", "--task", name, "--model", bert_mlm, "--output", tmp_path / "out") == expected
    assert refused("evaluate", suite["output"] / name, "--task", name) == expected
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_training")
def test_all_of_glue_needs_a_folder_with_a_task_and_no_eval(glue: Path, tmp_path: Path) -> None:
    dev = glue / "RTE" / "dev.tsv"
    for given in ([], ["--data", glue, "--eval", dev]):
        error, hint = refused("finetune", "--task", "glue", *given)
        assert error == "--task glue takes a folder with GLUE's folders as --data, and no --eval"
        assert hint == "give --data"
    error, hint = refused("finetune", "--task", "glue", "--data", tmp_path, "--output", tmp_path / "out")
    assert error == f"{tmp_path}: holds no task of GLUE"
    assert "CoLA, SST-2, MRPC" in hint
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_another_task_is_refused(suite: dict[str, Any], glue: Path) -> None:
    for model, name, message in [
        ("rte", "sst-2", "gives entailment, not_entailment, and sst-2 asks for 0, 1"),
        ("mnli", "rte", "gives entailment, neutral, contradiction, and rte asks for entailment, not_entailment"),
        ("sts-b", "sst-2", "gives a score, and sst-2 asks for 0, 1"),
        ("rte", "sts-b", "gives entailment, not_entailment, and sts-b asks for a score"),
    ]:
        error, hint = refused("evaluate", suite["output"] / model, "--task", name, "--data", glue)
        assert error == f"{suite['output'] / model}: {message}"
        assert hint == f"give a model that was fine-tuned for it: edge-distil finetune --task {name}"


def test_the_starter_set_has_no_text_classifier() -> None:
    error, hint = refused("evaluate", "--task", "text")
    assert (error, hint) == ("the starter set has no text classifier", "make one: edge-distil finetune --task text")


def test_a_model_without_a_classifier_is_refused_by_evaluate(bert_qa: Path, tmp_path: Path) -> None:
    data = write_texts(tmp_path / "dev.csv", [("the bridge", "LABEL_0"), ("a tower", "LABEL_1")])
    error, hint = refused("evaluate", bert_qa, "--task", "text", "--data", data)
    assert error.startswith(f"{bert_qa}: has no text-classification head")
    assert hint == f"fine-tune it first: edge-distil finetune --task text --model {bert_qa}"


@pytest.mark.usefixtures("no_training")
def test_a_teacher_of_other_labels_is_refused(
    suite: dict[str, Any], glue: Path, bert_mlm: Path, tmp_path: Path, save: Callable[[PreTrainedModel], Path]
) -> None:
    output = tmp_path / "out"
    given = ["finetune", "--model", bert_mlm, "--output", output]
    teacher = suite["output"] / "mnli"
    error, hint = refused(*given, "--task", "rte", "--data", glue, "--teacher", teacher)
    assert error.startswith(f"{teacher}: gives entailment, neutral, contradiction, and rte asks for ")
    assert "--task rte" in hint
    turned = save(load_model(bert_mlm, "text-classification", new_head=True, labels=["not_entailment", "entailment"]))
    own = save(load_model(bert_mlm, "text-classification", new_head=True, labels=["bad", "fine"]))
    data = write_texts(tmp_path / "train.csv")
    for task, source, teacher, message in [
        ("rte", glue, turned, "has the labels not_entailment, entailment, the data entailment, not_entailment"),
        ("text", data, own, "has the labels bad, fine, the data bad, good"),
    ]:
        error, hint = refused(*given, "--task", task, "--data", source, "--teacher", teacher)
        assert error == f"{teacher}: {message}"
        assert hint == "give a teacher that was fine-tuned on the same labels, in the same order"
    assert list(tmp_path.iterdir()) == [data]


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("task", ["text", "squad"])
def test_several_seeds_need_dev_data(bert_mlm: Path, squad_file: Path, tmp_path: Path, task: str) -> None:
    data = write_texts(tmp_path / "train.csv") if task == "text" else squad_file
    output = tmp_path / "out"
    error, hint = refused(
        "finetune", "--task", task, "--data", data, "--model", bert_mlm, "--output", output, "--seeds", 2
    )
    assert (error, hint) == ("--seeds 2 needs dev data to tell the runs apart", "give a file with --eval")
    assert not output.exists()


@pytest.mark.usefixtures("no_training")
def test_options_of_squad_are_refused_for_texts(suite: dict[str, Any], glue: Path) -> None:
    for task in ("text", "rte", "glue"):
        error, hint = refused("finetune", "--task", task, "--squad-v2")
        assert (error, hint) == (f"--squad-v2 and --task {task} do not go together", "leave one of them out")
    for option in ("--squad-v2", "--allow-missing"):
        error, hint = refused("evaluate", suite["output"] / "rte", "--task", "rte", "--data", glue, option)
        assert (error, hint) == (f"{option} is for SQuAD, not for rte", "leave it out")


IDS = [str(line) for line in range(2, DEV + 2)]


@pytest.mark.parametrize(
    ("name", "changes", "message", "hint"),
    [
        ("rte", {"5": None, "7": None}, "has no prediction for '5', the first of 2 that are missing", "every one"),
        ("rte", {"99": "entailment"}, "the data has no id '99'", "the file it was made for"),
        ("rte", {"4": "neutral"}, "the prediction of '4' is 'neutral'", "entailment, not_entailment"),
        ("rte", {"4": 1}, "the prediction of '4' is not a text", "JSON string"),
        ("sts-b", {"6": "high"}, "the prediction of '6', 'high', is no number", "give a score"),
    ],
    ids=["missing", "unknown id", "unknown label", "no text", "no number"],
)
def test_a_fault_of_a_file_of_predictions_is_named(
    glue: Path, tmp_path: Path, name: str, changes: dict[str, Any], message: str, hint: str
) -> None:
    good = "entailment" if name == "rte" else "2.5"
    predictions = {identifier: changes.get(identifier, good) for identifier in [*IDS, *(changes.keys() - set(IDS))]}
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps({key: value for key, value in predictions.items() if value is not None}))
    error, advice = refused("evaluate", "--task", name, "--data", glue, "--predictions", path)
    assert error == f"{path}: {message}"
    assert hint in advice


def test_predictions_of_both_dev_files_carry_the_names_of_their_sets(glue: Path, tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps(dict.fromkeys(IDS, "neutral")))
    error, _ = refused("evaluate", "--task", "mnli", "--data", glue, "--predictions", path)
    assert error == f"{path}: the data has no id '2'"
    alone = run_command(
        "evaluate", "--task", "mnli", "--data", glue / "MNLI" / "dev_matched.tsv", "--predictions", path, "--json"
    )
    assert json.loads(alone.out)["examples"] == DEV


def test_a_regression_has_nothing_to_plot(suite: dict[str, Any], glue: Path, tmp_path: Path) -> None:
    given = ["evaluate", suite["output"] / "sts-b", "--task", "sts-b", "--data", glue]
    error, hint = refused(*given, "--reliability", tmp_path / "plot.png")
    assert (error, hint) == ("a score has no probability that could be plotted", "leave --reliability out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_training")
def test_a_length_beyond_the_positions_is_refused(
    suite: dict[str, Any], glue: Path, bert_mlm: Path, tmp_path: Path
) -> None:
    for task in ("rte", "squad"):
        given = ["--task", task, "--model", bert_mlm, "--output", tmp_path / "out", "--max-length", 385]
        error, hint = refused("finetune", *given, *(["--data", glue] if task == "rte" else []))
        assert (error, hint) == (f"{bert_mlm}: has 384 positions, not 385", "give --max-length 384 or less")
    model = suite["output"] / "rte"
    error, hint = refused("evaluate", model, "--task", "rte", "--data", glue, "--max-length", 385)
    assert (error, hint) == (f"{model}: has 384 positions, not 385", "give --max-length 384 or less")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("task", "file", "content", "message", "hint"),
    [
        (
            "rte",
            "train.tsv",
            "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tentailment\n1\tA. B.\tentailment\n",
            "line 3: the number of columns is 3, not 4",
            "put one tab between each column and the next: index, sentence1, sentence2, label",
        ),
        (
            "text",
            "train.csv",
            "text,label\nA,good\nB, and C,bad\n",
            "line 3: the number of columns is 3, not 2",
            "the columns are text, label; put text that holds a comma in double quotes",
        ),
        (
            "text",
            "train.csv",
            "txt,label\nA,good\n",
            "has no column 'text', its columns are txt, label",
            "begin the file with a line that names its columns: text, label",
        ),
        (
            "text",
            "train.jsonl",
            '{"text": "A", "label": "good"}\n{"text": "B", "lable": "bad"}\n',
            "line 2: has no field 'label'",
            'write one object a line: {"text": "…", "label": "…"}',
        ),
        (
            "text",
            "train.jsonl",
            '{"text": "A", "label": "good"}\n{"text": "B", "label": "good"}\n',
            "every label is 'good'",
            "give examples of at least two labels to learn",
        ),
    ],
    ids=["tsv", "csv", "header", "field", "one label"],
)
def test_a_fault_of_the_training_file_is_named(
    bert_mlm: Path, glue: Path, tmp_path: Path, task: str, file: str, content: str, message: str, hint: str
) -> None:
    path = tmp_path / file
    path.write_text(content)
    given = ["--data", path, "--model", bert_mlm, "--output", tmp_path / "out"]
    assert refused("finetune", "--task", task, *given) == (f"{path}: {message}", hint)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("no_training")
def test_a_label_that_only_the_dev_file_has_is_named(bert_mlm: Path, tmp_path: Path) -> None:
    data, dev = write_texts(tmp_path / "train.csv"), write_texts(tmp_path / "dev.jsonl", [*OWN, ("odd", "middling")])
    given = ["--task", "text", "--data", data, "--eval", dev, "--model", bert_mlm, "--output", tmp_path / "out"]
    error, hint = refused("finetune", *given)
    assert error == f"{dev}: line 5: the label 'middling' is not one of the task's"
    assert hint == "these are: bad, good"


@pytest.mark.usefixtures("no_training")
def test_a_precision_that_is_none_is_refused() -> None:
    error, hint = refused("finetune", "--task", "text", "--precision", "fp8")
    assert (error, hint) == ("--precision fp8: unknown", "choose one of: auto, fp32, bf16")


def test_a_written_classifier_loads_in_the_library(suite: dict[str, Any]) -> None:
    for name, labels in {"sts-b": ["score"], "mnli": ["entailment", "neutral", "contradiction"]}.items():
        model = AutoModelForSequenceClassification.from_pretrained(suite["output"] / name)
        assert list(model.config.id2label.values()) == labels
        assert model.num_labels == len(labels)
