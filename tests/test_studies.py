"""The studies that reproduce the paper's tables, as far as they go without hours of training."""

import os
import subprocess
import sys
from collections.abc import Iterator
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


def test_tables_say_all_that_they_need_before_they_begin() -> None:
    ended = tables()
    assert ended.returncode == 2
    assert "give GLUE REVIEWS SQUAD TEACHER STUDENT CORPUS," in ended.stderr
    assert "give GLUE," in tables("model-size", TEACHER="somewhere").stderr
    assert "give GLUE SQUAD CORPUS," in tables("small-data", ENCODER="somewhere").stderr
    assert "somewhere: no such model folder" in tables("model-size", TEACHER="somewhere", GLUE="glue").stderr


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
