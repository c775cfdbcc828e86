"""`edge-distil verify`: a report for a person or as JSON, and status 2 with what to do where something is wrong."""

import json
from pathlib import Path

from conftest import run_command

from edge_distil.starter import teacher_folder


def test_a_whole_checkpoint_passes_and_says_what_it_is(copy_of) -> None:
    folder = copy_of(teacher_folder("question-answering"))
    ended = run_command("verify", folder, "--checked-questions", "4")
    assert ended.status == 0
    assert ended.out.startswith(f"{folder}: checkpoint, question-answering, ")
    assert "FAILED" not in ended.out


def test_a_tampered_one_ends_with_status_2_after_its_report(copy_of) -> None:
    folder: Path = copy_of(teacher_folder("question-answering"))
    with (folder / "config.json").open("a") as file:
        file.write("\n")
    ended = run_command("verify", folder, "--json")
    assert ended.status == 2
    report = json.loads(ended.out)
    assert not report["passed"]
    error, hint = [line for line in ended.err.splitlines() if line.startswith(("error: ", "hint: "))]
    assert error == f"error: {folder / 'config.json'}: does not match its checksum in edge_distil.json"
    assert hint.startswith("hint: the file was changed or cut short")
