"""Folders appear whole or not at all, nothing that was there is lost, and the manifest notices every change."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from edge_distil import __version__
from edge_distil.checkpoints import (
    FORMAT,
    MANIFEST,
    check_output,
    describe_input,
    new_file,
    new_folder,
    read_json,
    read_manifest,
    write_manifest,
)
from edge_distil.errors import UserError


def write(folder: Path, text: str, name: str = "model.bin") -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def manifest(folder: Path) -> None:
    write_manifest(folder, kind="checkpoint", task="masked-lm", command="train", config={}, inputs={}, measured={})


def result(target: Path, text: str) -> Path:
    """A finished result of the toolkit that holds one file."""
    target.mkdir()
    write(target, text)
    manifest(target)
    return target


def write_and_fail(target: Path, fault: type[BaseException]) -> None:
    with new_folder(target, overwrite=True) as staging:
        write(staging, "half")
        raise fault


def test_a_folder_appears_when_the_block_ends_and_not_before(tmp_path: Path) -> None:
    target = tmp_path / "runs" / "student"
    with new_folder(target) as staging:
        assert staging.parent == target.parent
        write(staging, "weights", "onnx/model.onnx")
        assert not target.exists()
    assert [path.name for path in target.parent.iterdir()] == ["student"]
    assert (target / "onnx" / "model.onnx").read_text() == "weights"


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt])
def test_a_failure_inside_the_block_leaves_nothing(tmp_path: Path, fault: type[BaseException]) -> None:
    with pytest.raises(fault):
        write_and_fail(tmp_path / "student", fault)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_inside_the_block_leaves_the_earlier_result_untouched(tmp_path: Path) -> None:
    target = result(tmp_path / "student", "old")
    with pytest.raises(RuntimeError):
        write_and_fail(target, RuntimeError)
    assert list(tmp_path.iterdir()) == [target]
    assert (target / "model.bin").read_text() == "old"
    assert read_manifest(target) is not None


def test_a_failing_rename_puts_the_earlier_result_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = result(tmp_path / "student", "old")
    rename = Path.rename

    def rename_unless_new(self: Path, to: Path) -> Path:
        if "partial" in self.name:
            raise OSError("disk gone")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", rename_unless_new)
    with pytest.raises(OSError, match="disk gone"), new_folder(target, overwrite=True) as staging:
        write(staging, "new")
    assert list(tmp_path.iterdir()) == [target]
    assert (target / "model.bin").read_text() == "old"


@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        shutil.Error([("from", "to", "[Errno 28] No space left on device: 'to'")]),
    ],
)
def test_a_full_disk_is_named_however_a_library_puts_it_and_leaves_the_earlier_result(
    tmp_path: Path, fault: Exception
) -> None:
    target = result(tmp_path / "student", "old")

    def write_without_room() -> None:
        with new_folder(target, overwrite=True) as staging:
            write(staging, "new")
            raise fault

    with pytest.raises(OSError, match="No space left on device") as caught:
        write_without_room()
    assert caught.value.filename == str(target)
    assert list(tmp_path.iterdir()) == [target]
    assert (target / "model.bin").read_text() == "old"


def test_overwrite_replaces_the_whole_earlier_result(tmp_path: Path) -> None:
    target = result(tmp_path / "student", "old")
    with new_folder(target, overwrite=True) as staging:
        write(staging, "new", "other.bin")
    assert list(tmp_path.iterdir()) == [target]
    assert [path.name for path in target.iterdir()] == ["other.bin"]


def test_an_empty_folder_is_a_fit_output(tmp_path: Path) -> None:
    with new_folder(tmp_path / "student") as staging:
        write(staging, "new")
    assert (tmp_path / "student" / "model.bin").read_text() == "new"


def file_output(path: Path) -> Path:
    path.write_text("a file")
    return path


def link_output(path: Path) -> Path:
    path.symlink_to(path.parent)
    return path


def foreign_output(path: Path) -> Path:
    write(path, "thesis", "thesis.tex")
    return path


def below_a_file(path: Path) -> Path:
    path.write_text("a file")
    return path / "student"


@pytest.mark.parametrize(
    ("make", "overwrite", "message", "hint"),
    [
        (file_output, True, "is not a folder", "a folder that does not exist yet"),
        (link_output, True, "is not a folder", "a folder that does not exist yet"),
        (foreign_output, True, "already holds files that edge-distil did not write", "a new or an empty folder"),
        (lambda path: result(path, "old"), False, "already holds an earlier result", "--overwrite"),
        (below_a_file, False, "cannot be created", "choose another --output"),
    ],
    ids=["file", "link", "foreign", "earlier", "below-a-file"],
)
def test_an_output_that_would_lose_something_is_refused_and_left_alone(
    tmp_path: Path, make: Callable[[Path], Path], overwrite: bool, message: str, hint: str
) -> None:
    target = make(tmp_path / "out")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as caught, new_folder(target, overwrite=overwrite):
        pytest.fail("the block must not run")
    assert caught.value.message.startswith(f"{target}: ")
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unwritable_parent_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A superuser may write anywhere, so the answer of the system is replaced.
    monkeypatch.setattr(os, "access", lambda path, mode: not (Path(path) == tmp_path and mode == os.W_OK))
    with pytest.raises(UserError) as caught:
        check_output(tmp_path / "new" / "student", overwrite=False)
    assert caught.value.message == f"{tmp_path / 'new' / 'student'}: cannot be created, {tmp_path} is not writable"


def test_a_manifest_tells_what_was_written_and_the_checksum_of_every_file(tmp_path: Path) -> None:
    write(tmp_path, "weights")
    write(tmp_path, "graph", "onnx/model.onnx")
    write_manifest(
        tmp_path,
        kind="onnx",
        task="question-answering",
        command="export",
        config={"output": "runs/ü", "seed": 3},
        inputs={"model": {"path": "runs/qa", "sha256": "00"}},
        measured={"f1": 80.5},
    )
    found = read_manifest(tmp_path)
    assert found is not None
    assert {key: found[key] for key in ("format", "kind", "task", "command")} == {
        "format": FORMAT,
        "kind": "onnx",
        "task": "question-answering",
        "command": "export",
    }
    assert found["config"] == {"output": "runs/ü", "seed": 3}
    assert found["inputs"] == {"model": {"path": "runs/qa", "sha256": "00"}}
    assert found["measured"] == {"f1": 80.5}
    assert found["versions"]["edge-distil"] == __version__
    assert found["files"] == {
        "model.bin": {"bytes": 7, "sha256": hashlib.sha256(b"weights").hexdigest()},
        "onnx/model.onnx": {"bytes": 5, "sha256": hashlib.sha256(b"graph").hexdigest()},
    }


def test_a_folder_without_a_manifest_has_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.write_text("weighTs"), "does not match its checksum"),
        (lambda file: file.write_text("weigh"), "does not match its checksum"),
        (lambda file: file.unlink(), "is missing"),
    ],
    ids=["one byte", "truncated", "missing"],
)
def test_a_changed_file_is_named(tmp_path: Path, change: Callable[[Path], object], message: str) -> None:
    target = result(tmp_path / "student", "weights")
    change(target / "model.bin")
    with pytest.raises(UserError) as caught:
        read_manifest(target)
    assert caught.value.message.startswith(f"{target / 'model.bin'}: {message}")
    assert "copy the folder again" in caught.value.hint


def test_a_newer_manifest_asks_for_an_upgrade(tmp_path: Path) -> None:
    path = result(tmp_path / "student", "weights") / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": FORMAT + 1}))
    with pytest.raises(UserError) as caught:
        read_manifest(path.parent)
    assert caught.value.message == f"{path}: has format {FORMAT + 1}, this version reads {FORMAT}"
    assert caught.value.hint == "upgrade edge-distil"


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": 1, "files": []}'])
def test_a_manifest_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(UserError, match=f"{MANIFEST}: is not an edge-distil manifest"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1,\n "b": }', "is not valid JSON, line 2 column 7"),
        (b'{"a": "\xff"}', "is not UTF-8 text (byte 7)"),
        (None, "no such file"),
    ],
    ids=["broken", "not text", "absent"],
)
def test_a_json_file_that_cannot_be_read_is_named_with_the_place(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / MANIFEST
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_json(path)
    assert caught.value.message.startswith(f"{path}: {message}")


def test_an_input_file_is_described_by_its_own_checksum(tmp_path: Path) -> None:
    write(tmp_path, "text", "corpus.txt")
    path = tmp_path / "corpus.txt"
    assert describe_input(path) == {"path": str(path), "sha256": hashlib.sha256(b"text").hexdigest()}


def test_the_checksum_of_an_input_folder_follows_names_and_content_alone(tmp_path: Path) -> None:
    one, other = result(tmp_path / "one", "weights"), tmp_path / "other"
    write(other, "weights")
    same = describe_input(one)["sha256"]
    assert describe_input(other)["sha256"] == same
    (other / "model.bin").rename(other / "renamed.bin")
    renamed = describe_input(other)["sha256"]
    write(other, "weightz", "renamed.bin")
    changed = describe_input(other)["sha256"]
    assert len({same, renamed, changed}) == 3


def a_process_that_ended() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_what_a_killed_process_left_is_cleared_up_and_what_it_moved_away_comes_back(tmp_path: Path) -> None:
    target, dead = tmp_path / "out[1]", a_process_that_ended()
    moved = tmp_path / f".out[1].replaced-{dead}"
    moved.mkdir()
    write(moved, "earlier")
    manifest(moved)
    (tmp_path / f".out[1].partial-{dead}").mkdir()
    at_work = tmp_path / f".out[1].partial-{os.getppid()}"
    at_work.mkdir()
    with pytest.raises(UserError, match="already holds an earlier result"), new_folder(target):
        pass
    assert (target / "model.bin").read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([target.name, at_work.name])


def test_a_file_that_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / f".plot.png.partial-{a_process_that_ended()}").write_text("half")
    with new_file(tmp_path / "plot.png") as path:
        path.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]
