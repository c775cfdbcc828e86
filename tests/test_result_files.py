"""Result files have one form, and the documents hold what is in them."""

import copy
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edge_distil.report.tables import marked

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
SCHEMA = json.loads((BENCHMARKS / "results/schema.json").read_text(encoding="utf-8"))
FILES = sorted(path for path in (BENCHMARKS / "results").glob("*.json") if path.name != "schema.json")


@pytest.fixture(scope="module", autouse=True)
def _scripts_can_be_imported() -> Iterator[None]:
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def studies() -> list[tuple[Any, dict[str, Any]]]:
    import docs_figures

    return list(docs_figures.studies())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_result_file_has_the_common_form(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    result = json.loads(text)
    jsonschema.validate(result, SCHEMA)
    assert path.stem.startswith(result["study"])
    assert re.findall(r'"/(?:home|root|tmp|work|Users)/[^"]*', text) == []  # folders of the machine that measured


@pytest.mark.parametrize(
    "change",
    [
        {"commit": "main"},
        {"seeds": [0.5]},
        {"runs": [{}]},
        {"results": []},
        {"machine": {"system": "Linux"}},
        {"versions": {"torch": "2"}},
        {"measured_by": "hand"},
        {"format": 2},
    ],
)
def test_schema_refuses_another_form(change: dict[str, Any]) -> None:
    result = {**json.loads(FILES[0].read_text(encoding="utf-8")), **change}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(result, SCHEMA)


def test_what_is_written_has_the_common_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import result_files

    monkeypatch.setattr(result_files, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["/somewhere/benchmarks/a.py", "/home/me/model", "--rounds", "2"])
    written = result_files.write(
        "a-study",
        command=result_files.command_line(),
        results={"rows": [1.5]},
        runs=[{"contender": "x", "seconds": 1}],
        seeds=[0],
        configuration={"rounds": 2},
        versions={"other": "1"},
    )
    jsonschema.validate(written, SCHEMA)
    assert written == json.loads((tmp_path / "a-study.json").read_text())
    assert written["command"] == "python benchmarks/a.py model --rounds 2"
    assert written["versions"]["other"] == "1"
    # In a checkout; a source archive has no commit to name.
    assert (written["commit"] is None) == (not (ROOT / ".git").exists())


def test_documents_hold_the_figures_of_their_result_files(studies: list[tuple[Any, dict[str, Any]]]) -> None:
    compared = 0
    for script, result in studies:
        for (document, name), text in script.blocks(result).items():
            found = marked((ROOT / document).read_text(encoding="utf-8"), name)
            assert found == text.strip("\n"), f"{document}, {name}: run make docs-figures"
            compared += 1
    assert compared >= 12


def test_every_block_between_marks_is_made_from_a_result_file(studies: list[tuple[Any, dict[str, Any]]]) -> None:
    made = {key for script, result in studies for key in script.blocks(result)}
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    marks = {
        (path.relative_to(ROOT).as_posix(), line.removeprefix("<!-- end of ").removesuffix(" -->"))
        for path in documents
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("<!-- end of ")
    }
    assert marks == made


def test_plots_were_drawn_from_what_the_result_files_hold(studies: list[tuple[Any, dict[str, Any]]]) -> None:
    plots = {
        path: plot
        for script, result in studies
        if hasattr(script, "plots")
        for path, plot in script.plots(result).items()
    }
    assert plots
    for path, plot in plots.items():
        assert plot.digest.encode() in (ROOT / path).read_bytes(), f"{path}: run make docs-figures"


def test_text_around_the_tables_says_what_the_result_files_say(studies: list[tuple[Any, dict[str, Any]]]) -> None:
    compared = 0
    for script, result in studies:
        for document, fragments in getattr(script, "prose", lambda _: {})(result).items():
            text = " ".join((ROOT / document).read_text(encoding="utf-8").split())
            for fragment in fragments:
                assert fragment in text, f"{document} does not say: {fragment}"
                compared += 1
    assert compared >= 10


def test_figure_that_differs_from_its_file_is_found(studies: list[tuple[Any, dict[str, Any]]]) -> None:
    script, result = next((script, result) for script, result in studies if result["study"] == "core-ml")
    changed = copy.deepcopy(result)
    changed["results"]["answers"][1]["f1"] += 1
    (before, after) = (script.blocks(each)["docs/coreml.md", "core-ml"] for each in (result, changed))
    assert before != after
    (one, other) = (next(iter(script.plots(each).values())) for each in (result, changed))
    assert one.digest != other.digest


def test_text_between_marks_is_found() -> None:
    assert marked("a\n<!-- x -->\n\n| 1 |\n\n<!-- end of x -->\n", "x") == "| 1 |"
    with pytest.raises(ValueError, match="substring"):
        marked("a", "x")
