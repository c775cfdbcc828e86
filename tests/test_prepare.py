"""Documents into full blocks, blocks onto disk, and finding them again: only when whole, and only when unchanged."""

import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from edge_distil import starter
from edge_distil.corpus import prepare as module
from edge_distil.corpus import text
from edge_distil.corpus.packing import Block, packed, piece_ids, position_ids
from edge_distil.corpus.prepare import PreparedCorpus, default_cache, from_documents, prepare
from edge_distil.errors import UserError
from edge_distil.tokenization import SpecialTokens, special_tokens

CLS, SEP, PAD = 101, 102, 0
SPECIAL = SpecialTokens(cls=CLS, sep=SEP, pad=PAD, mask=103, unk=100)


def pieces(block: Block, special: SpecialTokens) -> list[list[int]]:
    """The token ids of a block's pieces, after the form of the block was checked."""
    ids, found, end = block.input_ids.tolist(), [], 0
    for length in block.lengths.tolist():
        assert ids[end] == special.cls
        assert ids[end + length - 1] == special.sep
        found.append(ids[end + 1 : end + length - 1])
        end += length
    assert ids[end:] == [special.pad] * (len(ids) - end)
    assert all(found)
    return found


# Packing


def numbered(*lengths: int) -> list[np.ndarray]:
    """Documents of so many tokens; no two tokens are equal, none is special."""
    ends = np.cumsum(lengths)
    return [np.arange(1000 + end - length, 1000 + end) for length, end in zip(lengths, ends, strict=True)]


def test_documents_share_a_block_and_are_cut_where_it_ends() -> None:
    # Blocks of 8 tokens; an eighth of that is 1, so the shortest piece is 3 tokens with its [CLS] and [SEP].
    blocks = list(packed(numbered(2, 9, 1), SPECIAL, 8))
    assert [(block.input_ids.tolist(), block.lengths.tolist()) for block in blocks] == [
        ([CLS, 1000, 1001, SEP, CLS, 1002, 1003, SEP], [4, 4]),
        ([CLS, 1004, 1005, 1006, 1007, 1008, 1009, SEP], [8]),
        ([CLS, 1010, SEP, CLS, 1011, SEP, PAD, PAD], [3, 3]),
    ]


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (94, [[96, 32], [88]]),  # 32 left: a piece of 30 tokens, the other 86 in the next block
        (108, [[110, 18], [102]]),  # 18 left: the shortest piece that is worth it, 16 tokens
        (109, [[111], [118]]),  # 17 left: padding
        (126, [[128], [118]]),
    ],
)
def test_a_document_is_not_cut_into_a_piece_of_less_than_sixteen_tokens(first: int, expected: list[list[int]]) -> None:
    assert [block.lengths.tolist() for block in packed(numbered(first, 116), SPECIAL, 128)] == expected


def test_a_short_document_goes_where_it_fits_whole() -> None:
    assert [block.lengths.tolist() for block in packed(numbered(121, 3, 5), SPECIAL, 128)] == [[123, 5], [7]]
    assert [block.lengths.tolist() for block in packed(numbered(121, 4), SPECIAL, 128)] == [[123], [6]]


@pytest.mark.parametrize("length", [8, 16, 100, 512])
def test_packing_keeps_every_token_once_in_order_and_wastes_little(length: int) -> None:
    documents = numbered(*np.random.default_rng(0).geometric(1 / 60, size=2000).tolist())
    blocks = list(packed(documents, SPECIAL, length))
    assert {block.input_ids.shape for block in blocks} == {(length,)}
    found = [piece for block in blocks for piece in pieces(block, SPECIAL)]
    assert np.array_equal(np.concatenate(found), np.concatenate(documents))
    ends = set(np.cumsum([len(document) for document in documents]).tolist())
    begins = np.cumsum([0, *map(len, found)])
    # A piece belongs to one document: where a document ends, a piece ends.
    assert ends <= set(begins.tolist())
    left = [length - int(block.lengths.sum()) for block in blocks[:-1]]
    assert max(left) < 2 + min(16, max(1, length // 8))


def test_no_documents_make_no_block() -> None:
    assert list(packed([], SPECIAL, 8)) == []
    assert list(packed([np.array([], dtype=np.int32)], SPECIAL, 8)) == []


def test_positions_restart_and_pieces_are_told_apart() -> None:
    lengths = np.array([4, 3])
    assert position_ids(lengths, 9).tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 0]
    assert piece_ids(lengths, 9).tolist() == [0, 0, 0, 0, 1, 1, 1, -1, -1]
    assert position_ids(np.array([3]), 3).tolist() == [0, 1, 2]
    assert piece_ids(np.array([3]), 3).tolist() == [0, 0, 0]


# A corpus on disk


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for number, split in enumerate(("train", "dev")):
        documents = starter.corpus(split, documents=40)
        (folder / f"{number}.txt").write_text("\n\n".join(documents), encoding="utf-8")
    return folder


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were written, and not found again."""
    folders: list[Path] = []
    make = module._make

    def counted(folder: Path, *arguments: Any) -> None:
        folders.append(folder)
        make(folder, *arguments)

    monkeypatch.setattr(module, "_make", counted)
    return folders


def ids(corpus: Sequence[Block], tokenizer: Tokenizer) -> list[int]:
    special = special_tokens(tokenizer)
    return [token for block in corpus for piece in pieces(block, special) for token in piece]


def test_a_prepared_corpus_holds_every_token_of_every_document(
    tmp_path: Path, source: Path, tokenizer: Tokenizer
) -> None:
    corpus = prepare([source], tokenizer, 64, cache=tmp_path / "cache", workers=2)
    documents = [*starter.corpus("train", documents=40), *starter.corpus("dev", documents=40)]
    lines = ["\n".join(line for line in document.split("\n") if line) for document in documents]
    expected = [tokenizer.encode(document, add_special_tokens=False).ids for document in lines]
    assert ids(corpus, tokenizer) == [token for document in expected for token in document]
    assert np.array_equal(
        corpus.token_counts, np.bincount(np.concatenate(expected), minlength=tokenizer.get_vocab_size())
    )
    assert corpus.token_counts.dtype == np.int64
    assert (corpus.length, len(list(corpus))) == (64, len(corpus))
    info = corpus.info
    assert (info["documents"], info["tokens"]) == (80, sum(map(len, expected)))
    assert info["pieces"] == sum(len(block.lengths) for block in corpus)
    assert info["padding"] == pytest.approx(1 - (info["tokens"] + 2 * info["pieces"]) / (64 * len(corpus)))
    assert info["skips"] == {}


def test_blocks_over_many_writes_are_found_by_number(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = starter.corpus("dev", documents=30)
    whole = from_documents(documents, tokenizer, 32, cache=tmp_path / "one")
    monkeypatch.setattr(module, "_WRITE_TOKENS", 7 * 32)
    parts = from_documents(documents, tokenizer, 32, cache=tmp_path / "two")
    assert len(whole) == len(parts) > 50
    for one, two in zip(whole, parts, strict=True):
        assert one.input_ids.tolist() == two.input_ids.tolist()
        assert one.lengths.tolist() == two.lengths.tolist()
    assert parts[-1].input_ids.tolist() == parts[len(parts) - 1].input_ids.tolist()
    for index in (len(parts), -len(parts) - 1):
        with pytest.raises(IndexError):
            parts[index]


def test_workers_change_nothing_in_what_is_written(tmp_path: Path, source: Path, tokenizer: Tokenizer) -> None:
    written = [
        (prepare([source], tokenizer, 64, cache=tmp_path / str(workers), workers=workers).folder / "blocks.arrow")
        for workers in (1, 3)
    ]
    assert written[0].read_bytes() == written[1].read_bytes()


def test_ids_take_two_bytes_and_the_data_sets_library_reads_them(tmp_path: Path, tokenizer: Tokenizer) -> None:
    datasets = pytest.importorskip("datasets")
    corpus = from_documents(starter.corpus("dev", documents=5), tokenizer, 32, cache=tmp_path)
    loaded = datasets.Dataset.from_file(str(corpus.folder / "blocks.arrow"))
    assert str(loaded.features["input_ids"]) == "List(Value('uint16'), length=32)"
    assert loaded["input_ids"][:] == [block.input_ids.tolist() for block in corpus]
    assert loaded["lengths"][:] == [block.lengths.tolist() for block in corpus]


def test_a_vocabulary_beyond_two_bytes_keeps_its_ids(tmp_path: Path, tokenizer: Tokenizer) -> None:
    large = Tokenizer.from_str(tokenizer.to_str())
    large.add_tokens([f"token{number}" for number in range(70_000)])
    corpus = from_documents(["token0 token69999"], large, 8, cache=tmp_path)
    first = tokenizer.get_vocab_size()
    assert ids(corpus, large) == [first, first + 69_999]
    assert corpus.token_counts.nonzero()[0].tolist() == [first, first + 69_999]


def test_a_special_token_spelt_out_in_a_text_is_only_text(tmp_path: Path, tokenizer: Tokenizer) -> None:
    corpus = from_documents(["the [SEP] bridge [PAD] [MASK]"], tokenizer, 32, cache=tmp_path)
    special = special_tokens(tokenizer)
    found = ids(corpus, tokenizer)
    assert len(found) > 9
    assert not {special.cls, special.sep, special.pad, special.mask} & set(found)


def test_a_tokenizer_set_to_pad_and_truncate_does_neither_here(tmp_path: Path, tokenizer: Tokenizer) -> None:
    cutting = Tokenizer.from_str(tokenizer.to_str())
    cutting.enable_truncation(4)
    cutting.enable_padding(length=50)
    corpus = from_documents(["the bridge " * 20, "the"], cutting, 32, cache=tmp_path)
    assert corpus.info["tokens"] == 41
    assert cutting.truncation is not None


def test_a_pickled_corpus_opens_the_same_file_and_carries_no_block(
    tmp_path: Path, source: Path, tokenizer: Tokenizer
) -> None:
    corpus = prepare([source], tokenizer, 64, cache=tmp_path / "cache")
    data = pickle.dumps(corpus)
    assert len(data) < 1000
    again = pickle.loads(data)  # as a data loader hands it to its workers: from memory, never from a file
    assert [block.input_ids.tolist() for block in again] == [block.input_ids.tolist() for block in corpus]


def test_blocks_are_copies_that_may_be_changed(tmp_path: Path, tokenizer: Tokenizer) -> None:
    corpus = from_documents(["the bridge"], tokenizer, 8, cache=tmp_path)
    before = corpus[0].input_ids.tolist()
    block = corpus[0]
    block.input_ids[:] = 0
    block.lengths[:] = 0
    assert corpus[0].input_ids.tolist() == before
    assert corpus[0].lengths.tolist() == [4]


def test_what_is_left_out_is_counted_said_and_kept(
    tmp_path: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"the bridge\n\nb\xe4d\n\nthe\n")
    expected = {text.NOT_UTF8: {"count": 1, "file": str(path), "line": 3}}
    for _ in range(2):  # made, then found
        corpus = prepare([path], tokenizer, 8, cache=tmp_path / "cache")
        assert corpus.info["skips"] == expected
        assert "is not UTF-8 text, line 3" in " ".join(capsys.readouterr().err.split())
    assert corpus.info["documents"] == 2


def test_text_without_a_token_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="the corpus holds no token"):
        from_documents(["\u200b"], tokenizer, 8, cache=tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_blocks_too_short_for_text_are_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="blocks of 7 tokens"):
        from_documents(["the"], tokenizer, 7, cache=tmp_path)


# Reuse


def test_an_unchanged_corpus_is_found_again(
    tmp_path: Path, source: Path, tokenizer: Tokenizer, made: list[Path]
) -> None:
    one = prepare([source], tokenizer, 64, cache=tmp_path / "cache")
    two = prepare([source / "*.txt"], Tokenizer.from_str(tokenizer.to_str()), 64, cache=tmp_path / "cache")
    assert two.folder == one.folder
    assert len(made) == 1


@pytest.mark.parametrize("change", ["size", "time", "new file", "order", "length", "tokenizer", "format"])
def test_a_change_makes_it_anew(
    tmp_path: Path, source: Path, tokenizer: Tokenizer, made: list[Path], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    def files() -> list[Path]:
        return sorted(source.iterdir())

    before = prepare(files(), tokenizer, 64, cache=tmp_path / "cache")
    length, used, paths = 64, tokenizer, files()
    first = paths[0]
    match change:
        case "size":
            state = first.stat()
            first.write_text(first.read_text() + "\n\nthe bridge")
            os.utime(first, ns=(state.st_atime_ns, state.st_mtime_ns))
        case "time":
            os.utime(first, ns=(0, first.stat().st_mtime_ns + 1))
        case "new file":
            (source / "2.txt").write_text("the bridge")
            paths = files()
        case "order":
            paths = paths[::-1]
        case "length":
            length = 32
        case "tokenizer":
            used = Tokenizer.from_str(tokenizer.to_str())
            used.add_tokens(["newword"])
        case "format":
            monkeypatch.setattr(module, "FORMAT", 2)
            monkeypatch.setattr("edge_distil.corpus.prepared.FORMAT", 2)
    after = prepare(paths, used, length, cache=tmp_path / "cache")
    assert len(made) == 2
    assert after.folder != before.folder
    assert before[0].input_ids.tolist() == PreparedCorpus(after.folder)[0].input_ids.tolist() or change in (
        "order",
        "length",
    )


def test_documents_in_memory_are_found_by_their_text(tmp_path: Path, tokenizer: Tokenizer, made: list[Path]) -> None:
    from_documents(["the bridge", "the"], tokenizer, 8, cache=tmp_path)
    from_documents(iter(["the bridge", "the"]), tokenizer, 8, cache=tmp_path)
    assert len(made) == 1
    from_documents(["the", "bridge the"], tokenizer, 8, cache=tmp_path)
    assert len(made) == 2


@pytest.mark.parametrize("name", ["blocks.arrow", "counts.npy", "prepared.json"])
@pytest.mark.parametrize("damage", ["gone", "short"])
def test_a_damaged_corpus_is_made_anew(
    tmp_path: Path, tokenizer: Tokenizer, made: list[Path], name: str, damage: str
) -> None:
    documents = starter.corpus("dev", documents=3)
    before = from_documents(documents, tokenizer, 32, cache=tmp_path)
    expected = [block.input_ids.tolist() for block in before]
    file = before.folder / name
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match="is not a prepared corpus"):
        PreparedCorpus(before.folder)
    after = from_documents(documents, tokenizer, 32, cache=tmp_path)
    assert len(made) == 2
    assert [block.input_ids.tolist() for block in after] == expected


def test_a_corpus_that_lacks_a_file_that_could_not_be_read_is_not_reused(
    tmp_path: Path, source: Path, tokenizer: Tokenizer, made: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The second file is there when it is found, and gone when its turn comes.
    away = tmp_path / "away"
    state = module._state

    def moved(path: Path) -> dict[str, Any]:
        known = state(path)
        if path.name == "1.txt":
            path.rename(away)
        return known

    monkeypatch.setattr(module, "_state", moved)
    lacking = prepare([source], tokenizer, 64, cache=tmp_path / "cache")
    assert lacking.info["skips"] == {text.UNREADABLE: {"count": 1, "file": str(source / "1.txt"), "line": None}}
    monkeypatch.setattr(module, "_state", state)
    away.rename(source / "1.txt")
    whole = prepare([source], tokenizer, 64, cache=tmp_path / "cache")
    assert whole.folder == lacking.folder
    assert whole.info["skips"] == {}
    assert whole.info["documents"] == 80
    assert prepare([source], tokenizer, 64, cache=tmp_path / "cache").info["documents"] == 80
    assert len(made) == 2


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGE_DISTIL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache() == tmp_path / "xdg" / "edge-distil"
    monkeypatch.setenv("EDGE_DISTIL_CACHE", str(tmp_path / "ours"))
    assert default_cache() == tmp_path / "ours"


# Several processes, and processes that end

CHILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
from pathlib import Path
from edge_distil import starter
from edge_distil.corpus import prepare as module

read = module.read_documents

def read_half(*arguments):
    for number, document in enumerate(read(*arguments)):
        if number == 60:
            print("half-way", flush=True)
            sys.stdin.readline()
        yield document

module.read_documents = read_half
module._BATCH_DOCUMENTS = 4
module._WRITE_TOKENS = 512
corpus = module.prepare([sys.argv[1]], starter.build_tokenizer(), 64, cache=Path(sys.argv[2]), workers=1)
print(corpus.folder, corpus.info["documents"], len(corpus), flush=True)
"""


def start(source: Path, cache: Path) -> subprocess.Popen[str]:
    """A process that prepares a corpus, and stops half-way until it gets a line, or no more of them."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", CHILD, str(source), str(cache)], text=True, **pipes)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_preparation_that_is_killed_leaves_nothing_that_is_reused(
    tmp_path: Path, source: Path, tokenizer: Tokenizer, made: list[Path], end: signal.Signals
) -> None:
    cache = tmp_path / "cache"
    process = start(source, cache)
    assert line(process) == "half-way"
    while not any(cache.glob(".*.partial-*/blocks.arrow")) or not next(cache.glob(".*/blocks.arrow")).stat().st_size:
        time.sleep(0.05)
    process.send_signal(end)
    process.communicate()
    assert process.returncode != 0
    assert [path.name for path in cache.iterdir() if not path.name.startswith(".")] == []
    assert bool(list(cache.glob(".*.partial-*"))) == (end == signal.SIGKILL)
    corpus = prepare([source], tokenizer, 64, cache=cache)
    assert corpus.info["documents"] == 80
    assert len(made) == 1
    assert list(cache.glob(".*.partial-*")) == []


def test_what_a_killed_preparation_left_is_cleared_by_that_of_another_corpus(
    tmp_path: Path, source: Path, tokenizer: Tokenizer
) -> None:
    cache = tmp_path / "cache"
    killed, alive = start(source, cache), start(source / "0.txt", cache)
    assert line(killed) == "half-way"
    killed.kill()
    killed.communicate()
    alive.communicate()
    (left,) = cache.glob(".*.partial-*")
    from_documents(["the bridge"], tokenizer, 8, cache=cache)
    assert not left.exists()


def test_two_processes_that_want_the_same_corpus_make_it_once(tmp_path: Path, source: Path) -> None:
    cache = tmp_path / "cache"
    first = start(source, cache)
    assert line(first) == "half-way"
    second = start(source, cache)
    assert second.stderr is not None
    assert "waiting for it" in second.stderr.readline()
    one, two = (process.communicate(timeout=120)[0].splitlines() for process in (first, second))
    assert [process.returncode for process in (first, second)] == [0, 0]
    assert one == two  # and no "half-way" in the second's


def test_a_process_that_waited_for_one_that_dies_makes_it_itself(tmp_path: Path, source: Path) -> None:
    cache = tmp_path / "cache"
    first = start(source, cache)
    assert line(first) == "half-way"
    second = start(source, cache)
    assert second.stderr is not None
    assert "waiting for it" in second.stderr.readline()
    first.kill()
    first.communicate()
    out, _ = second.communicate(timeout=120)
    assert second.returncode == 0
    assert out.split()[-2] == "80"


def test_a_corpus_in_use_survives_its_removal(tmp_path: Path, tokenizer: Tokenizer) -> None:
    corpus = from_documents(starter.corpus("dev", documents=3), tokenizer, 32, cache=tmp_path)
    before = corpus[0].input_ids.tolist()
    for file in corpus.folder.iterdir():
        file.unlink()
    assert corpus[0].input_ids.tolist() == before


def test_a_disk_that_is_full_is_an_error_that_leaves_nothing(tmp_path: Path, tokenizer: Tokenizer) -> None:
    documents = starter.corpus("dev", documents=200)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(UserError, match=f"^{tmp_path}: cannot be written: File too large$") as caught:
            from_documents(documents, tokenizer, 32, cache=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "EDGE_DISTIL_CACHE" in caught.value.hint
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_a_cache_that_is_a_file_is_an_error(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(UserError, match="cache: cannot be written"):
        from_documents(["the"], tokenizer, 8, cache=tmp_path / "cache")
