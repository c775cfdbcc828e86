"""The studies that reproduce the paper's tables, as far as they go without hours of training."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_distil.tasks.texts import GLUE, read_examples

ROOT = Path(__file__).parent.parent
STUDIES = ("downstream", "model-size", "ablation", "on-device", "learning-budget", "small-data")


@pytest.fixture(autouse=True)
def _scripts_can_be_imported() -> Iterator[None]:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield
    sys.path.remove(str(ROOT / "benchmarks"))


def tables(*names: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`benchmarks/tables.sh`, with these variables and none of the caller's."""
    script = ["bash", str(ROOT / "benchmarks/tables.sh"), *names]
    return subprocess.run(script, capture_output=True, text=True, env={"PATH": os.environ["PATH"], **variables})


def test_tables_say_all_that_they_need_before_they_begin(tmp_path: Path) -> None:
    ended = tables()
    assert ended.returncode == 2
    assert "give GLUE REVIEWS SQUAD TEACHER STUDENT CORPUS," in ended.stderr
    assert "give GLUE," in tables("model-size", TEACHER="somewhere").stderr
    assert "give GLUE SQUAD CORPUS," in tables("small-data", ENCODER="somewhere").stderr
    assert "give STUDENT" in tables("downstream", TEACHER="a", GLUE="a", REVIEWS="a", SQUAD="a").stderr
    assert "give SQUAD CORPUS," in tables("learning-budget", ENCODER="somewhere").stderr
    for lacking in ("TEACHER", "GLUE"):
        given = {"TEACHER": str(tmp_path), "GLUE": str(tmp_path), lacking: "somewhere"}
        assert f"{lacking}=somewhere: is not there" in tables("model-size", **given).stderr


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a study's script with an `edge-distil` that writes down what it is told and makes its folder."""
    command = tmp_path / "bin/edge-distil"
    command.parent.mkdir()
    command.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/told\nwhile [ $# -gt 1 ]; do shift; [ "$1" = --output ] && out=$2; done\n'
        '[ -z "$out" ] && { echo {}; exit; }\n'
        'mkdir -p "$out/wnli"; echo {} | tee "$out/edge_distil.json" > "$out/wnli/edge_distil.json"\n'
    )
    command.chmod(0o755)

    def run(script: str, *names: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{command.parent}:{os.environ['PATH']}", "RUNS": str(tmp_path / "runs"), **variables}
        whole = ["bash", str(ROOT / "benchmarks" / script), *names]
        return subprocess.run(whole, capture_output=True, text=True, env=environment)

    return run


def test_results_of_one_model_never_pass_for_another_s(
    study: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    given = {"TEACHER": "bert", "CORPUS": "text", "GLUE": "glue", "SEEDS": "0"}
    for variables in ({}, {}, {"SEEDS": "0 1"}):
        ended = study("ablation.sh", "triple", **{**given, **variables})
        assert ended.returncode == 0, ended.stderr
    told = (tmp_path / "told").read_text().splitlines()
    # Started three times, everything was made once, and another seed is no other setting.
    assert [line.split()[0] for line in told] == ["train", "finetune", "finetune"]
    assert "--seed 1" in told[-1]
    other = study("ablation.sh", "triple", **{**given, "TEACHER": "roberta"})
    assert other.returncode == 2
    assert "< TEACHER=bert\n> TEACHER=roberta\n" in other.stderr
    assert (tmp_path / "told").read_text().splitlines() == told


def test_small_data_trains_and_scores_each_model_once(
    study: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    split = tmp_path / "runs/glue/QQP/dev.tsv"
    split.parent.mkdir(parents=True)
    split.write_text("id\n")
    for _ in range(2):
        ended = study("small_data.sh", TEACHER="bert", GLUE="glue", SEEDS="0 1")
        assert (ended.returncode, ended.stderr) == (0, "")
    told = (tmp_path / "told").read_text().splitlines()
    outputs = [line.rpartition("/")[2] for line in told if "--output" in line]
    assert outputs == ["random", "teacher", "alone", "student", "longer", "random", "teacher", "alone", "student"]
    assert sum(line.startswith("evaluate ") for line in told) == 3 * (4 + 3)


def test_second_distillations_have_the_first_seed_s_teachers(
    study: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    given = dict.fromkeys(("TEACHER", "STUDENT", "GLUE", "REVIEWS", "SQUAD"), "there")
    assert study("downstream.sh", SEEDS="1 2", **given).returncode == 0
    distilled = [line for line in (tmp_path / "told").read_text().splitlines() if "--teacher" in line]
    assert len(distilled) == 6
    assert all(f"--teacher {tmp_path}/runs/seed-1/" in line for line in distilled)
    unknown = study("downstream.sh", "glue-studnet", **given)
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("glue-studnet: choose among glue-teacher ")


def test_unknown_table_is_refused_with_the_names_of_all_before_anything_is_run() -> None:
    ended = tables("nonsense", ENCODER="somewhere")
    assert ended.returncode == 2
    assert all(name in ended.stderr for name in STUDIES)


def test_every_table_has_its_page_in_the_list() -> None:
    pages = (ROOT / "docs/paper.md").read_text(encoding="utf-8")
    for name in STUDIES:
        assert f"({name}.md)" in pages
        assert (ROOT / f"docs/{name}.md").is_file()


def test_merged_sentences_are_cut_in_three_and_scored_pairs_become_questions(tmp_path: Path) -> None:
    import small_data

    sentences = [(f"sentence {number}", number % 2) for number in range(50)]
    for name, rows in (("train", sentences[:40]), ("dev", sentences[40:])):
        write(tmp_path / f"SST-2/{name}.tsv", "sentence\tlabel", rows)
    scored = [(index, "MSR", "a", "2012", "0", f"one {index}", f"two {index}", index / 2) for index in range(11)]
    write(tmp_path / "STS-B/dev.tsv", "index\tgenre\tfilename\tyear\told_index\tsentence1\tsentence2\tscore", scored)
    small_data.split(tmp_path, tmp_path / "split")

    parts = [read_examples(tmp_path / f"split/SST-2/{name}.tsv", GLUE["sst-2"]) for name in ("train", "dev", "test")]
    assert [len(part) for part in parts] == [40, 5, 5]
    merged = sorted((example.text, example.label) for part in parts for example in part)
    assert merged == sorted((text, str(label)) for text, label in sentences)
    pairs = read_examples(tmp_path / "split/QQP/dev.tsv", GLUE["qqp"])
    # Scores 0 to 2 are no paraphrases, 4 to 5 are; between them nobody can say.
    assert [(pair.text, pair.pair, pair.label) for pair in pairs] == [
        *((f"one {index}", f"two {index}", "0") for index in range(5)),
        *((f"one {index}", f"two {index}", "1") for index in range(8, 11)),
    ]


def write(path: Path, header: str, rows: list[Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    lines = [header, *("\t".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize("name", ["downstream", "ablation", "small-data", "real-run"])
def test_folder_without_runs_is_refused_and_the_results_stay(name: str, tmp_path: Path) -> None:
    results = ROOT / f"benchmarks/results/{name}.json"
    before = results.read_bytes()
    script = ROOT / f"benchmarks/{name.replace('-', '_')}.py"
    for folder in (tmp_path, tmp_path / "nowhere"):
        ended = subprocess.run([sys.executable, script, folder], capture_output=True, text=True)
        assert ended.returncode == 1
        assert (str(tmp_path) in ended.stderr) == folder.is_dir(), ended.stderr
        assert folder.is_dir() or ended.stderr.startswith("usage: ")
    assert results.read_bytes() == before
