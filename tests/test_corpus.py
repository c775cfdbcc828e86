"""From what the user names to documents: every format, and every fault that a file can have."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edge_distil.corpus import text
from edge_distil.corpus.text import Skips, find_sources, read_documents
from edge_distil.errors import UserError

TEXT = "\n\n one \ntwo\r\n\n  \t\nthree, ü\n\n\nfour"
DOCUMENTS = ["one\ntwo", "three, ü", "four"]
JSON = "".join(json.dumps({"id": 1, "text": document}) + "\n" for document in DOCUMENTS)


def plain(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def gzipped(path: Path, data: bytes) -> None:
    path.write_bytes(gzip.compress(data))


def zstandard(path: Path, data: bytes) -> None:
    with pa.CompressedOutputStream(str(path), "zstd") as file:
        file.write(data)


def arrow(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def read(*paths: Path) -> tuple[list[str], dict[str, Any]]:
    """Documents, and what was left out: for each kind how often, and in which file and line first."""
    skips = Skips()
    documents = list(read_documents(find_sources(paths), skips))
    return documents, {
        kind: (entry["count"], Path(entry["file"]).name, entry["line"]) for kind, entry in skips.found.items()
    }


# Formats


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.txt", plain), ("a.TXT", plain), ("a.txt.gz", gzipped), ("a.gz", gzipped), ("wiki.2026.gz", gzipped),
        ("a.txt.zst", zstandard), ("a.zst", zstandard),
    ],
)  # fmt: skip
def test_blank_lines_part_documents_and_paragraphs_stay_lines(
    tmp_path: Path, name: str, write: Callable[[Path, bytes], None]
) -> None:
    write(tmp_path / name, TEXT.encode())
    assert read(tmp_path / name) == (DOCUMENTS, {})


@pytest.mark.parametrize(("name", "write"), [("a.jsonl", plain), ("a.jsonl.gz", gzipped), ("a.jsonl.zst", zstandard)])
def test_json_lines_hold_one_document_each(tmp_path: Path, name: str, write: Callable[[Path, bytes], None]) -> None:
    write(tmp_path / name, JSON.encode() + b'\n{"text": " "}\n')
    assert read(tmp_path / name) == (DOCUMENTS, {})


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_tables_hold_documents_in_their_text_column(tmp_path: Path, name: str, kind: pa.DataType) -> None:
    table = pa.table({"title": ["x"] * 5, "text": pa.array([*DOCUMENTS, "", "five"]).cast(kind)})
    if name == "a.arrow":
        arrow(tmp_path / name, table)
    else:
        pq.write_table(table, tmp_path / name, row_group_size=2)
    assert read(tmp_path / name) == ([*DOCUMENTS, "five"], {})


def test_two_compressed_files_joined_into_one_are_read_to_the_end(tmp_path: Path) -> None:
    for name, write in (("a.gz", gzipped), ("a.zst", zstandard)):
        path = tmp_path / name
        write(path, b"one\n\n")
        first = path.read_bytes()
        write(path, b"two")
        path.write_bytes(first + path.read_bytes())
        assert read(path) == (["one", "two"], {})


def test_a_saved_data_set_is_read_from_its_own_files(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    documents = [f"document {number}" for number in range(30)]
    saved = datasets.Dataset.from_dict({"id": list(range(30)), "text": documents})
    saved.shuffle(seed=1).save_to_disk(tmp_path / "one", num_shards=3)
    found, skipped = read(tmp_path / "one")
    assert (found, skipped) == (saved.shuffle(seed=1)["text"][:], {})
    assert len(find_sources([tmp_path / "one"])) == 3
    assert sorted(found) == sorted(documents)


def test_a_data_set_of_several_splits_asks_for_one(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    saved = datasets.Dataset.from_dict({"text": DOCUMENTS})
    datasets.DatasetDict(train=saved, test=saved).save_to_disk(tmp_path / "both")
    with pytest.raises(UserError, match="several splits") as caught:
        find_sources([tmp_path / "both"])
    assert f"{tmp_path / 'both' / 'train'}, {tmp_path / 'both' / 'test'}" in caught.value.hint
    assert read(tmp_path / "both" / "train")[0] == DOCUMENTS


def test_a_hub_data_set_is_fetched_by_name_and_read_from_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": DOCUMENTS}).save_to_disk(tmp_path / "fetched")
    asked: list[Any] = []

    def load_dataset(*arguments: Any, **options: Any) -> Any:
        asked.append((arguments, options))
        return datasets.load_from_disk(tmp_path / "fetched")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for name in ("hf://datasets/owner/name", Path("hf://datasets/owner/name/configuration")):
        assert list(read_documents(find_sources([name]), Skips())) == DOCUMENTS
    assert asked == [
        (("owner/name", None), {"split": "train"}),
        (("owner/name", "configuration"), {"split": "train"}),
    ]


def test_a_hub_that_does_not_answer_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def load_dataset(*arguments: Any, **options: Any) -> Any:
        raise ConnectionError("no network\nmore")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError, match=r"hf://datasets/owner/name: the hub did not give it: no network$"):
        find_sources(["hf://datasets/owner/name"])


# Finding


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.txt", "a.txt", "deep/er/c.jsonl.gz", "deep/d.parquet", "README.md", ".hidden.txt", ".git/e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "deep" / "round").symlink_to(tmp_path)
    return tmp_path


def names(found: list[Path], tree: Path) -> list[str]:
    return [str(path.relative_to(tree)) for path in found]


def test_folders_are_searched_to_the_bottom_by_name(tree: Path) -> None:
    expected = ["a.txt", "b.txt", "deep/d.parquet", "deep/er/c.jsonl.gz"]
    assert names(find_sources([tree]), tree) == expected
    assert names(find_sources([str(tree)]), tree) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.txt", ["a.txt", "b.txt"]),
        ("[b-z].txt", ["b.txt"]),
        ("d?ep", ["deep/d.parquet", "deep/er/c.jsonl.gz"]),
        ("deep/*/*.gz", ["deep/er/c.jsonl.gz"]),
    ],
)
def test_patterns_give_files_and_folders_by_name(tree: Path, pattern: str, expected: list[str]) -> None:
    (tree / "deep" / "round").unlink()
    assert names(find_sources([tree / pattern]), tree) == expected


def test_two_stars_reach_every_folder(tree: Path) -> None:
    (tree / "deep" / "round").unlink()
    expected = ["a.txt", "b.txt", "deep/d.parquet", "deep/er/c.jsonl.gz"]
    assert names(find_sources([tree / "**"]), tree) == expected


def test_the_order_given_is_kept_and_a_file_named_twice_is_read_once(tree: Path) -> None:
    found = find_sources([tree / "b.txt", tree / "*.txt", tree / "deep" / ".." / "b.txt"])
    assert names(found, tree) == ["b.txt", "a.txt"]


def test_a_file_whose_name_holds_a_pattern_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "[1].txt").write_text("one")
    assert find_sources([tmp_path / "[1].txt"]) == [tmp_path / "[1].txt"]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("gone.txt", "no such file"),
        ("gone*.txt", "no such file"),
        ("README.md", "is not a kind of file that is read"),
        ("*.md", "holds no file of a kind that is read"),
        ("empty", "holds no file of a kind that is read"),
        ("wiki.tar.gz", "is not a kind of file that is read"),
        ("pipe", "is neither a file nor a folder"),
    ],
)
def test_a_path_that_leads_to_no_text_is_an_error_before_any_work(tree: Path, name: str, error: str) -> None:
    (tree / "empty").mkdir()
    (tree / "wiki.tar.gz").write_text("x")
    os.mkfifo(tree / "pipe")
    with pytest.raises(UserError) as caught:
        find_sources([tree / "a.txt", tree / name])
    assert caught.value.message == f"{tree / name}: {error}"
    assert caught.value.hint


def test_a_folder_that_may_not_be_read_is_an_error(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = Path.iterdir

    def refused(self: Path) -> Any:
        if self.name == "er":
            raise PermissionError(13, "Permission denied", str(self))
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(UserError, match="deep/er: cannot be read: Permission denied"):
        find_sources([tree])


# Faults


@pytest.mark.parametrize(("name", "write"), [("a.txt", plain), ("a.txt.gz", gzipped), ("a.txt.zst", zstandard)])
def test_a_document_with_a_byte_that_is_no_utf8_is_left_out(
    tmp_path: Path, name: str, write: Callable[[Path, bytes], None]
) -> None:
    write(tmp_path / name, b"one\n\ntwo\nb\xe4d\nb\xe4d again\nmore\n\nthree\n\nb\xff\n\nfour\n")
    assert read(tmp_path / name) == (["one", "three", "four"], {text.NOT_UTF8: (2, name, 4)})


def test_one_bad_byte_in_a_text_without_blank_lines_costs_one_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "LONGEST_DOCUMENT", 40)
    lines = [b"0123456789 %04d\n" % number for number in range(12)]  # 16 bytes: two fit into 40
    lines[5] = b"0123456789 \xe4bcd\n"
    (tmp_path / "a.txt").write_bytes(b"".join(lines))
    documents, skipped = read(tmp_path / "a.txt")
    assert [line for document in documents for line in document.split("\n")] == [
        f"0123456789 {number:04d}" for number in range(12) if number not in (4, 5)
    ]
    assert skipped == {text.NOT_UTF8: (1, "a.txt", 6)}


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b'{"text": "cut', text.NOT_JSON),
        (b"[" * 100_000, text.NOT_JSON),
        (b'{"text": ' + b"1" * 5000 + b"}", text.NOT_JSON),
        (b'{"text": "b\xe4d"}', text.NOT_UTF8),
        (b'{"text": "\\ud800"}', text.NOT_UTF8),
        (b'{"body": "x"}', text.NO_TEXT_FIELD),
        (b'{"text": 3}', text.NO_TEXT_FIELD),
        (b'["text"]', text.NO_TEXT_FIELD),
    ],
    ids=["cut", "deep", "huge number", "not UTF-8", "half a character", "another field", "number", "list"],
)
def test_a_json_line_that_is_no_document_is_left_out(tmp_path: Path, line: bytes, kind: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}\n' + line + b'\n{"text": "two"}\n' + line)
    assert read(tmp_path / "a.jsonl") == (["one", "two"], {kind: (2, "a.jsonl", 2)})


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_rows_without_text_are_left_out_and_a_table_without_the_column_too(tmp_path: Path, name: str) -> None:
    write = arrow if name == "a.arrow" else lambda path, table: pq.write_table(table, path)
    write(tmp_path / name, pa.table({"text": ["one", "two", "three", None, "five", None]}))
    assert read(tmp_path / name) == (["one", "two", "three", "five"], {text.NO_TEXT_FIELD: (2, name, 4)})
    write(tmp_path / name, pa.table({"body": ["one"]}))
    (tmp_path / "b.txt").write_text("two")
    assert read(tmp_path) == (["two"], {text.NO_COLUMN: (1, name, None)})


def test_a_parquet_row_that_is_no_utf8_is_left_out(tmp_path: Path) -> None:
    values = pa.array([b"one", b"b\xe4d", b"three"]).view(pa.string())
    pq.write_table(pa.table({"text": values}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == (["one", "three"], {text.NOT_UTF8: (1, "a.parquet", 2)})


def test_offsets_that_point_outside_a_damaged_table_do_not_end_the_process(tmp_path: Path) -> None:
    arrow(tmp_path / "a.arrow", pa.table({"text": ["one", "two"]}))
    data = (tmp_path / "a.arrow").read_bytes()
    good, bad = (b"".join(n.to_bytes(4, "little") for n in offsets) for offsets in ((0, 3, 6), (0, 2**30, 6)))
    assert data.count(good) == 1
    (tmp_path / "a.arrow").write_bytes(data.replace(good, bad))
    (tmp_path / "b.txt").write_text("three")
    assert read(tmp_path) == (["three"], {text.DAMAGED: (1, "a.arrow", None)})


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def corrupt(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(byte ^ 0xFF for byte in data[middle : middle + 20]) + data[middle + 20 :]


def other(data: bytes) -> bytes:
    return b"plain text"


@pytest.mark.parametrize("spoil", [cut, corrupt, other])
@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.zst", "a.parquet", "a.arrow"])
def test_what_comes_before_the_damage_in_a_file_is_kept_and_the_rest_left_out(
    tmp_path: Path, name: str, spoil: Callable[[bytes], bytes]
) -> None:
    documents = [f"document {number * number}" for number in range(20_000)]
    path = tmp_path / name
    if name.endswith(".gz"):
        gzipped(path, "\n\n".join(documents).encode())
    elif name.endswith(".zst"):
        zstandard(path, "\n\n".join(documents).encode())
    else:
        table = pa.table({"text": documents})
        arrow(path, table) if name == "a.arrow" else pq.write_table(table, path, compression="gzip")
    path.write_bytes(spoil(path.read_bytes()))
    (tmp_path / "b.txt").write_text("after")
    found, skipped = read(tmp_path)
    assert found.pop() == "after"
    assert len(found) < len(documents)
    if spoil is cut:
        assert found == documents[: len(found)]
    # What stands in the bytes of an uncompressed table is not checked by anything: there, a bad byte is no UTF-8.
    assert sum(count for count, *_ in skipped.values()) >= 1
    assert all(kind in (text.DAMAGED, text.NOT_UTF8) and first[1] == name for kind, first in skipped.items())


def test_an_empty_file_is_counted(tmp_path: Path) -> None:
    for name, content in (("a.txt", ""), ("b.txt", "text"), ("c.txt", " \n\n\t"), ("d.jsonl", "")):
        (tmp_path / name).write_text(content)
    assert read(tmp_path) == (["text"], {text.NO_TEXT: (3, "a.txt", None)})


def test_a_file_that_vanishes_before_its_turn_is_counted(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.txt"):
        (tmp_path / name).write_text(name)
    skips = Skips()
    documents = read_documents(find_sources([tmp_path]), skips)
    assert next(documents) == "a.txt"
    (tmp_path / "b.txt").unlink()
    assert list(documents) == ["c.txt"]
    assert skips.lines() == [f"{tmp_path / 'b.txt'}: cannot be read"]


def test_a_file_that_vanishes_while_it_is_read_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network file system whose other end goes away: reading fails half-way."""
    (tmp_path / "a.txt").write_bytes(b"one\n\n" * 100_000)
    calls = 0

    class Failing:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> "Failing":
            return self

        def __exit__(self, *fault: object) -> None:
            self.file.close()

        def tell(self) -> int:
            return self.file.tell()

        def readline(self, limit: int) -> bytes:
            nonlocal calls
            calls += 1
            if calls > 21:
                raise OSError(116, "Stale file handle")
            return self.file.readline(limit)

    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode: Failing(opened(self, mode)))
    assert read(tmp_path / "a.txt") == (["one"] * 10, {text.UNREADABLE: (1, "a.txt", None)})


def test_text_that_is_none_at_all_is_an_error_that_says_why(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(" \n")
    (tmp_path / "b.txt").write_bytes(b"fine\nb\xff\n\nb\xff\n")
    (tmp_path / "c.txt.gz").write_bytes(b"plain")
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert caught.value.message == (
        f"{tmp_path / 'a.txt'} and 2 more: holds no text"
        f"; {tmp_path / 'b.txt'}: is not UTF-8 text, line 2 (and 1 more like it)"
        f"; {tmp_path / 'c.txt.gz'}: is damaged or cut short"
    )
    assert "one paragraph a line" in caught.value.hint


# Sizes


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet"])
def test_a_long_text_comes_in_parts_that_lose_nothing_and_cut_no_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(text, "LONGEST_DOCUMENT", 100)
    words = [f"wörd{number}" for number in range(500)]
    path = tmp_path / name
    if name == "a.txt":
        path.write_text(" ".join(words), encoding="utf-8")
    elif name == "a.jsonl":
        path.write_text(json.dumps({"text": " ".join(words)}))
    else:
        pq.write_table(pa.table({"text": [" ".join(words)]}), path)
    documents, skipped = read(path)
    assert " ".join(documents).split() == words
    assert 30 < len(documents) < 100
    assert max(map(len, documents)) <= 100
    assert skipped == {}


def test_a_line_without_blanks_is_cut_between_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "LONGEST_DOCUMENT", 10)
    line = "aé€😀" * 30
    (tmp_path / "a.txt").write_text(line, encoding="utf-8")
    documents, skipped = read(tmp_path / "a.txt")
    assert "".join(documents) == line
    assert len(documents) >= 30
    assert skipped == {}


def test_a_json_line_beyond_all_measure_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_LONGEST_JSON", 64)
    long = json.dumps({"text": "x" * 500})
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n' + long + '\n{"text": "two"}\n' + long)
    assert read(tmp_path / "a.jsonl") == (["one", "two"], {text.TOO_LONG: (2, "a.jsonl", 2)})


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl", "a.parquet"])
def test_progress_adds_up_to_the_bytes_on_disk(tmp_path: Path, name: str) -> None:
    documents = [f"document {number}" for number in range(5000)]
    path = tmp_path / name
    if name == "a.parquet":
        pq.write_table(pa.table({"text": documents}), path, row_group_size=500)
    else:
        data = "".join(json.dumps({"text": text}) + "\n" for text in documents) if name == "a.jsonl" else ""
        (gzipped if name.endswith(".gz") else plain)(path, (data or "\n\n".join(documents)).encode())
    steps: list[int] = []
    assert len(list(read_documents([path], Skips(), steps.append))) == 5000
    assert sum(steps) == path.stat().st_size
    assert min(steps) >= 0
