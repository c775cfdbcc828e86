"""Folders on disk: written whole or not at all, described by a manifest, read only when they match it.

Every checkpoint and every export is a folder that the ecosystem already understands plus `edge_distil.json`, which says
what it is, what it was made from, by which command and versions, what was measured of it, and the SHA-256 of each file.
"""

import errno
import glob
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from edge_distil import __version__
from edge_distil.errors import UserError

MANIFEST = "edge_distil.json"
FORMAT = 1
HUB = "hf://"
_VERSIONED = ("torch", "transformers", "tokenizers", "numpy", "onnx", "onnxruntime", "coremltools", "openvino", "nncf")


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> list[Path]:
    """Every file below a folder except its own manifest, as relative paths in a stable order."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if path != Path(MANIFEST))


def describe_input(path: Path) -> dict[str, str]:
    """What a manifest records of an input: its path as given, and a checksum of the file or of the folder's files."""
    if path.is_file():
        return {"path": str(path), "sha256": sha256_file(path)}
    digest = hashlib.sha256()
    for relative in _files(path):
        digest.update(f"{relative.as_posix()} {sha256_file(path / relative)}\n".encode())
    return {"path": str(path), "sha256": digest.hexdigest()}


def versions() -> dict[str, str]:
    """Versions of this toolkit, of Python and of each dependency that decides what a folder holds."""
    found = {"edge-distil": __version__, "python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_folder(name: str | Path) -> None:
    """Refuse the name of a model that is no folder here, names on the hub aside. Raises `UserError`.

    Commands call it before they import what takes seconds; `edge_distil.models.resolve` says the same.
    """
    if not str(name).startswith(HUB) and not Path(name).is_dir():
        raise UserError(
            f"{name}: no such model folder",
            "give a folder with config.json in it, or hf://owner/name for a hub model",
        )


def check_output(target: Path, overwrite: bool) -> None:
    """Refuse an output folder whose replacement would lose something. Call it before any long work.

    Raises `UserError` when the target is a file, holds what this toolkit did not write, or holds an earlier result and
    `overwrite` is off.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise UserError(f"{target}: is not a folder", "give --output a folder that does not exist yet")
    if target.is_dir() and any(target.iterdir()):
        if not (target / MANIFEST).is_file():
            raise UserError(
                f"{target}: already holds files that edge-distil did not write",
                "give --output a new or an empty folder; --overwrite replaces earlier results of edge-distil only",
            )
        if not overwrite:
            raise UserError(
                f"{target}: already holds an earlier result",
                "add --overwrite to replace it, or give another --output",
            )
    _check_ancestor(target, "choose another --output")


@contextmanager
def new_folder(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a staging folder beside `target` that becomes `target` when the block ends well, and vanishes when it fails.

    Everything is flushed to disk before the rename, and an earlier result is removed only after the new one stands in
    its place. Raises `UserError` as `check_output` does, and `OSError` with the name of `target` for a full disk.
    """
    target = target.absolute()
    _clear_up(target)
    check_output(target, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.parent / f".{target.name}.partial-{os.getpid()}"
    staging.mkdir()
    try:
        yield staging
        for path in [*staging.rglob("*"), staging]:
            _sync(path)
        replaced = target.parent / f".{target.name}.replaced-{os.getpid()}"
        if target.exists():
            target.rename(replaced)
        try:
            staging.rename(target)
        except OSError:
            if replaced.exists():
                replaced.rename(target)
            raise
        shutil.rmtree(replaced, ignore_errors=True)
        _sync(target.parent)
    except Exception as fault:
        # safetensors and coremltools pass the system's words on, and not as an OSError with a number and a name.
        no_space = os.strerror(errno.ENOSPC)
        if no_space in str(fault) and getattr(fault, "filename", None) is None:
            raise OSError(errno.ENOSPC, no_space, str(target)) from fault
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def clear_up(parent: Path) -> None:
    """Put right what processes that were killed left in a folder, under whatever name they wrote."""
    for kind in ("replaced", "partial"):
        for left in parent.glob(f".*.{kind}-*"):
            _clear_up(parent / left.name[1:].rpartition(f".{kind}-")[0])


def _clear_up(target: Path) -> None:
    """Put right what a process that was killed left beside `target`: half-written staging, an earlier result."""
    for kind in ("replaced", "partial"):
        for left in target.parent.glob(f".{glob.escape(target.name)}.{kind}-*"):
            pid = left.name.rpartition("-")[2]
            if not pid.isdigit() or (int(pid) != os.getpid() and _is_running(int(pid))):
                continue
            if kind == "replaced" and not target.exists():
                left.rename(target)  # killed between the two renames
            elif left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def check_file(target: Path, overwrite: bool) -> None:
    """Refuse a file that a result would replace, unless `overwrite`. Call it before any long work."""
    if target.is_dir():
        raise UserError(f"{target}: is a folder", "give the name of a file")
    if target.exists() and not overwrite:
        raise UserError(f"{target}: exists already", "add --overwrite to replace it, or give another file")
    _check_ancestor(target, "choose another place")


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Give a path beside `target` for its content, which becomes `target` when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _clear_up(target)
    staging = target.parent / f".{target.name}.partial-{os.getpid()}"
    try:
        yield staging
        _sync(staging)
        staging.replace(target)
    finally:
        staging.unlink(missing_ok=True)


def _check_ancestor(target: Path, hint: str) -> None:
    ancestor = next(parent for parent in target.absolute().parents if parent.exists())
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK):
        raise UserError(f"{target}: cannot be created, {ancestor} is not writable", hint)


def write_manifest(
    folder: Path,
    *,
    kind: str,
    task: str,
    command: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    measured: Mapping[str, Any],
) -> None:
    """Write `edge_distil.json` into a finished folder. Call it last: it records the checksum of every file there.

    `kind` is "checkpoint", "onnx", "coreml" or "openvino"; `task` is "masked-lm" or "question-answering"; `config` is
    what the command was run with and can be given back to it; `inputs` maps a name to what `describe_input` returned.
    """
    manifest = {
        "format": FORMAT,
        "kind": kind,
        "task": task,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "config": dict(config),
        "inputs": dict(inputs),
        "versions": versions(),
        "measured": dict(measured),
        "files": {
            relative.as_posix(): {
                "bytes": (folder / relative).stat().st_size,
                "sha256": sha256_file(folder / relative),
            }
            for relative in _files(folder)
        },
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path, *, unique_keys: bool = False) -> Any:
    """The JSON value in a file. Raises `UserError` that names the line when it is none.

    With `unique_keys`, a key that an object has twice is refused too; JSON readers keep one value in silence.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen:
                raise UserError(f"{path}: {key!r} is given twice", "keep one of them")
            seen[key] = value
        return seen

    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique if unique_keys else None)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file", "check the path") from None
    except UnicodeDecodeError as fault:
        raise UserError(f"{path}: is not UTF-8 text (byte {fault.start})", "save the file as UTF-8 JSON") from None
    except json.JSONDecodeError as fault:
        raise UserError(
            f"{path}: is not valid JSON, line {fault.lineno} column {fault.colno}: {fault.msg}",
            "check that the whole file was downloaded and that it is JSON",
        ) from None


def _is_manifest(value: Any) -> bool:
    """Whether a JSON value has what is read of a manifest: its kind, its task, and size and checksum of each file."""
    return (
        isinstance(value, dict)
        and {"format", "kind", "task", "files"} <= value.keys()
        and isinstance(value["files"], dict)
        and all(isinstance(file, dict) and {"bytes", "sha256"} <= file.keys() for file in value["files"].values())
    )


def usable_positions(config: Mapping[str, Any]) -> int:
    """How many tokens a model of this configuration takes, by the keys of `config.json`.

    RoBERTa numbers positions from `pad_token_id` + 1, so that its 514 hold 512 tokens.
    """
    unused = config.get("pad_token_id", 1) + 1 if config.get("model_type") == "roberta" else 0
    return config["max_position_embeddings"] - unused


def check_length(folder: Path, tokens: int, option: str) -> None:
    """Refuse inputs longer than a model has positions for. Raises `UserError` that names the option to lower."""
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or not isinstance(config.get("max_position_embeddings"), int):
        return
    positions = usable_positions(config)
    if tokens > positions:
        raise UserError(f"{folder}: has {positions} positions, not {tokens}", f"give {option} {positions} or less")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder after every file was held against its checksum; None for a folder without one.

    Raises `UserError` when a file is missing, was changed, or the manifest is of a newer format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    manifest = read_json(path)
    if not _is_manifest(manifest):
        raise UserError(
            f"{path}: is not an edge-distil manifest", "make the folder again with the command that wrote it"
        )
    if manifest.get("format") != FORMAT:
        raise UserError(
            f"{path}: has format {manifest.get('format')}, this version reads {FORMAT}", "upgrade edge-distil"
        )
    for relative, recorded in manifest["files"].items():
        file = folder / relative
        if not file.is_file():
            raise UserError(f"{file}: is missing, {MANIFEST} lists it", "copy the folder again, or make it anew")
        if file.stat().st_size != recorded["bytes"] or sha256_file(file) != recorded["sha256"]:
            raise UserError(
                f"{file}: does not match its checksum in {MANIFEST}",
                "the file was changed or cut short: copy the folder again, or make it anew",
            )
    return manifest
