"""Preparing a corpus: text is tokenised once, packed into blocks on disk, and found again when nothing has changed.

However large the text, memory holds no more of it than the batches in the workers' hands and the blocks of one write.
"""

import hashlib
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout
from tokenizers import Tokenizer

from edge_distil.checkpoints import new_folder
from edge_distil.console import note, progress
from edge_distil.corpus.packing import Block, packed, piece_ids, position_ids
from edge_distil.corpus.prepared import FORMAT, PreparedCorpus, read_info
from edge_distil.corpus.text import UNREADABLE, Skips, find_sources, read_documents
from edge_distil.errors import UserError
from edge_distil.tokenization import special_tokens

__all__ = ["Block", "PreparedCorpus", "default_cache", "from_documents", "piece_ids", "position_ids", "prepare"]

_SHORTEST_BLOCK = 8
_BATCH_CHARACTERS = 1 << 17  # of text that one worker tokenises at a time
_BATCH_DOCUMENTS = 1024
_WRITE_TOKENS = 1 << 20  # of blocks that are written at a time
# Reading, packing and writing are one thread's work, which more workers than these would wait for.
_MOST_WORKERS = 16


def default_cache() -> Path:
    """Where prepared corpora are kept: `EDGE_DISTIL_CACHE`, else `edge-distil` in the user's cache folder."""
    if chosen := os.environ.get("EDGE_DISTIL_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-distil"


def prepare(
    paths: Sequence[Path | str],
    tokenizer: Tokenizer,
    length: int,
    *,
    cache: Path | None = None,
    workers: int | None = None,
) -> PreparedCorpus:
    """The text of `paths` (as `find_sources` takes them) in blocks of `length` tokens, made or found in `cache`.

    It is found when the same files, by path, size and time of change, were prepared for the same tokeniser and length
    before. `workers` threads tokenise; by default one for every core, at most 16. What has to be left out is said on
    stderr, and stands in `skips`.

    Raises `UserError` for a path that leads nowhere, for text that holds no token, and for a cache that cannot be
    written; nothing half-written is left behind.
    """
    sources = find_sources(paths)
    states = [_state(path) for path in sources]
    skips = Skips()
    corpus = _prepared(
        _Text(
            described=states,
            size=sum(state["bytes"] for state in states),
            read=lambda advance: read_documents(sources, skips, advance),
            skips=skips,
        ),
        tokenizer,
        length,
        cache or default_cache(),
        workers,
    )
    for line in corpus.skips.lines():
        note(f"left out: {line}")
    return corpus


def from_documents(
    documents: Iterable[str],
    tokenizer: Tokenizer,
    length: int,
    *,
    cache: Path | None = None,
    workers: int | None = None,
) -> PreparedCorpus:
    """Documents that are in memory, in blocks of `length` tokens: as `prepare`, and known by what they say."""
    kept = list(documents)
    digest = hashlib.sha256()
    for document in kept:
        digest.update(f"{len(document)} {document}".encode())

    def read(advance: Callable[[int], None]) -> Iterator[str]:
        for document in kept:
            advance(len(document))
            yield document

    text = _Text(described=[{"sha256": digest.hexdigest()}], size=sum(map(len, kept)), read=read, skips=Skips())
    return _prepared(text, tokenizer, length, cache or default_cache(), workers)


@dataclass(frozen=True, slots=True)
class _Text:
    """Text to prepare: what it is known by, its size, and how to read it, telling how much of the size was read."""

    described: list[dict[str, Any]]
    size: int
    read: Callable[[Callable[[int], None]], Iterator[str]]
    skips: Skips


@dataclass(slots=True)
class _Tally:
    """What has been counted so far; `token_counts` int64 [V]."""

    token_counts: np.ndarray
    read: int = 0
    documents: int = 0
    tokens: int = 0

    def advance(self, count: int) -> None:
        self.read += count


def _state(path: Path) -> dict[str, Any]:
    try:
        state = path.stat()
    except OSError as fault:
        raise UserError(f"{path}: cannot be read: {fault.strerror}", "check the path") from None
    return {"file": str(path.absolute()), "bytes": state.st_size, "mtime_ns": state.st_mtime_ns}


def _prepared(text: _Text, tokenizer: Tokenizer, length: int, cache: Path, workers: int | None) -> PreparedCorpus:
    """The prepared corpus of a text: the one in the cache, or a new one."""
    if length < _SHORTEST_BLOCK:
        raise UserError(f"blocks of {length} tokens hold no text", f"give {_SHORTEST_BLOCK} or more")
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_padding()
    plain.no_truncation()
    fingerprint = hashlib.sha256(json.dumps([FORMAT, text.described, plain.to_str(), length]).encode()).hexdigest()
    folder = cache.absolute() / fingerprint[:32]
    if _complete(read_info(folder)):
        return PreparedCorpus(folder)
    try:
        with _alone(folder) as waited:
            info = read_info(folder)
            # What another process has just made is as good as it gets. Otherwise a file that could not be read last
            # time may be there again.
            if not _complete(info) and not (waited and info):
                shutil.rmtree(folder, ignore_errors=True)
                with new_folder(folder) as staging:
                    _make(staging, text, plain, length, workers or _default_workers())
    except OSError as fault:  # faults of the text never get here: they are counted where it is read
        raise UserError(
            f"{cache}: cannot be written: {os.strerror(fault.errno) if fault.errno else fault}",
            "free some space there, or set EDGE_DISTIL_CACHE to another folder",
        ) from None
    return PreparedCorpus(folder)


def _complete(info: dict[str, Any] | None) -> bool:
    return info is not None and UNREADABLE not in info["skips"]


def _default_workers() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_WORKERS)


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Keep other processes from making the same folder meanwhile. Gives whether one had to be waited for."""

    def lock_of(name: str) -> FileLock:
        return FileLock(folder.with_name(f".{name}.lock"))

    folder.parent.mkdir(parents=True, exist_ok=True)
    # What a process that was killed had begun. If its lock is free, nobody works on it.
    for stale in folder.parent.glob(".*.partial-*"):
        with suppress(Timeout), lock_of(stale.name.split(".")[1]).acquire(timeout=0):
            shutil.rmtree(stale, ignore_errors=True)
    lock = lock_of(folder.name)
    waited = False
    try:
        lock.acquire(timeout=0)
    except Timeout:
        note("another process is preparing this corpus: waiting for it")
        lock.acquire()
        waited = True
    try:
        yield waited
    finally:
        lock.release()


def _make(folder: Path, text: _Text, tokenizer: Tokenizer, length: int, workers: int) -> None:
    begun = time.monotonic()
    special = special_tokens(tokenizer)
    vocabulary = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())
    # "[SEP]" in a text is five characters and not the end of a piece.
    tokenizer.encode_special_tokens = True
    tally = _Tally(np.zeros(vocabulary, dtype=np.int64))
    documents = text.read(tally.advance)
    with progress("preparing the corpus (MB)", text.size // 1_000_000) as advance, _threads_of_our_own():
        ids = _tallied(_tokenised(documents, tokenizer, workers), tally, advance)
        written = _write(packed(ids, special, length), folder / "blocks.arrow", length, vocabulary)
    if not written["blocks"]:
        raise UserError("the corpus holds no token", "give text in a language of the tokeniser")
    np.save(folder / "counts.npy", tally.token_counts)
    info = {
        "format": FORMAT,
        "length": length,
        "documents": tally.documents,
        "tokens": tally.tokens,
        **written,
        "skips": text.skips.found,
        "seconds": round(time.monotonic() - begun, 1),
        "sources": len(text.described),
        "files": {name: (folder / name).stat().st_size for name in ("blocks.arrow", "counts.npy")},
    }
    (folder / "prepared.json").write_text(json.dumps(info, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def _threads_of_our_own() -> Iterator[None]:
    """Switch off the tokeniser's own threads: ours keep to `workers`, and do not forbid that a data loader forks."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _batches(documents: Iterable[str]) -> Iterator[list[str]]:
    batch, size = list[str](), 0
    for document in documents:
        if batch and (size + len(document) > _BATCH_CHARACTERS or len(batch) == _BATCH_DOCUMENTS):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += len(document)
    if batch:
        yield batch


def _tokenised(documents: Iterable[str], tokenizer: Tokenizer, workers: int) -> Iterator[list[np.ndarray]]:
    """Batches of documents as token ids [N], in order. Threads do, for tokenising lets go of Python's lock."""

    def tokenise(batch: list[str]) -> list[np.ndarray]:
        return [
            np.array(row.ids, dtype=np.int32) for row in tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        ]

    waiting: deque[Future[list[np.ndarray]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for batch in _batches(documents):
            waiting.append(pool.submit(tokenise, batch))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _tallied(batches: Iterable[list[np.ndarray]], tally: _Tally, advance: Callable[..., None]) -> Iterator[np.ndarray]:
    shown = 0
    for batch in batches:
        counts = np.bincount(np.concatenate(batch), minlength=len(tally.token_counts))
        tally.token_counts += counts
        tally.documents += len(batch)
        tally.tokens += int(counts.sum())
        advance((tally.read - shown) / 1_000_000, f"{tally.tokens / 1_000_000:,.1f} million tokens")
        shown = tally.read
        yield from batch


def _write(blocks: Iterator[Block], path: Path, length: int, vocabulary: int) -> dict[str, Any]:
    """Write blocks as an Arrow stream. Gives the number of `blocks` and `pieces`, and the share of `padding`."""
    ids_type = pa.uint16() if vocabulary <= 1 << 16 else pa.int32()
    schema = pa.schema({"input_ids": pa.list_(ids_type, length), "lengths": pa.list_(pa.int32())})
    count = pieces = filled = 0
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        while some := list(islice(blocks, max(1, _WRITE_TOKENS // length))):
            ids = np.concatenate([block.input_ids for block in some]).astype(ids_type.to_pandas_dtype())
            lengths = np.concatenate([block.lengths for block in some])
            ends = np.cumsum([0, *(len(block.lengths) for block in some)], dtype=np.int32)
            columns = [
                pa.FixedSizeListArray.from_arrays(pa.array(ids), length),
                pa.ListArray.from_arrays(pa.array(ends), pa.array(lengths)),
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))
            count += len(some)
            pieces += len(lengths)
            filled += int(lengths.sum())
    return {"blocks": count, "pieces": pieces, "padding": 1 - filled / max(1, count * length)}
