"""From what the user names (files, folders, patterns, data sets) to the files that are read."""

import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_distil.checkpoints import read_json
from edge_distil.errors import UserError

_COMPRESSIONS = (".gz", ".zst")
_CONTENTS = {".txt": "text", ".jsonl": "jsonl", ".parquet": "parquet", ".arrow": "arrow"}
# A compressed file is taken for text unless its name says otherwise: `wiki.2026.gz` is text, `wiki.tar.gz` is not.
_NOT_TEXT = (".tar", ".json", ".csv", ".tsv", ".xml", ".html", ".parquet", ".arrow")
_READS = ".txt, .jsonl (each also as .gz or .zst), .parquet, .arrow"
# `Path` makes one slash of two.
_HUB = re.compile(r"^hf:/{1,2}datasets/")


def format_of(path: Path) -> tuple[str, str]:
    """A file's content and compression by its name: "text", "jsonl", "parquet", "arrow" or "", and "", ".gz" or ".zst".

    `.arrow` is how the `datasets` library stores its tables.
    """
    suffix = path.suffix.lower()
    if suffix not in _COMPRESSIONS:
        return _CONTENTS.get(suffix, ""), ""
    inner = Path(path.stem).suffix.lower()
    return ("" if inner in _NOT_TEXT else "jsonl" if inner == ".jsonl" else "text"), suffix


def is_on_hub(path: Path | str) -> bool:
    """Whether a name is that of a hub's data set, `hf://datasets/owner/name`."""
    return bool(_HUB.match(str(path)))


def find_sources(paths: Sequence[Path | str]) -> list[Path]:
    """The files behind files, folders (searched to the bottom), patterns (`*`, `**`, `?`, `[…]`), folders saved by
    `datasets` and `hf://datasets/owner/name` (its "train" split, fetched from the hub).

    In the order given, those of a folder or pattern by name, each once. Hidden files and, in folders and patterns,
    files of other kinds are passed over. Raises `UserError` for a path that leads to no file that can be read as text.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        try:
            files = list(_files_of(str(path)))
        except OSError as fault:
            raise UserError(f"{fault.filename or path}: cannot be read: {fault.strerror}", "check the path") from None
        if not files:
            raise UserError(f"{path}: holds no file of a kind that is read", f"give {_READS}")
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def _files_of(name: str) -> Iterator[Path]:
    path = Path(name)
    if is_on_hub(name):
        yield from _from_hub(_HUB.sub("", name))
    elif path.is_dir():
        yield from _in_folder(path, set())
    elif path.is_file():
        if not format_of(path)[0]:
            raise UserError(f"{path}: is not a kind of file that is read", f"give {_READS}")
        yield path
    elif path.exists():
        # A pipe can be read once only, and has no size and time to know it by.
        raise UserError(f"{path}: is neither a file nor a folder", "write the text to a file first")
    elif matches := [Path(match) for match in sorted(glob.glob(name, recursive=True))]:
        for match in matches:
            if match.is_dir() and "**" not in name:
                yield from _in_folder(match, set())
            elif match.is_file() and format_of(match)[0]:
                yield match
    else:
        raise UserError(f"{path}: no such file", "check the path")


def _in_folder(folder: Path, visited: set[Path]) -> Iterator[Path]:
    if folder.resolve() in visited:  # links can lead in circles
        return
    visited.add(folder.resolve())
    if (folder / "dataset_dict.json").is_file():
        splits = read_json(folder / "dataset_dict.json")["splits"]
        raise UserError(
            f"{folder}: is a data set of several splits",
            f"give those that are to be trained on: {', '.join(str(folder / split) for split in splits)}",
        )
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        for entry in read_json(folder / "state.json")["_data_files"]:
            file = folder / entry["filename"]
            if not file.is_file():
                raise UserError(f"{file}: is missing, {folder / 'state.json'} lists it", "save the data set again")
            yield file
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _in_folder(path, visited)
        elif path.is_file() and format_of(path)[0]:
            yield path


def _from_hub(name: str) -> Iterator[Path]:
    """The Arrow files into which `datasets` fetches `owner/name` or `owner/name/configuration`."""
    from datasets import load_dataset

    owner, _, rest = name.partition("/")
    repository, _, configuration = rest.partition("/")
    try:
        loaded = load_dataset(f"{owner}/{repository}", configuration or None, split="train")
    except Exception as fault:  # many kinds: offline, no such name, no permission, no such configuration
        raise UserError(
            f"hf://datasets/{name}: the hub did not give it: {str(fault).splitlines()[0]}",
            "check the name and the network",
        ) from None
    for entry in loaded.cache_files:
        yield Path(entry["filename"])
