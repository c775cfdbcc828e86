"""Finding text on disk and reading it as documents, one at a time, in memory that does not grow.

What is wrong before the work begins (a path that leads nowhere) is an error. What turns out to be wrong while reading
(a byte that is no UTF-8, a file that is cut short or gone) leaves out a document or the rest of a file, and is counted.
"""

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from edge_distil.corpus.sources import find_sources, format_of
from edge_distil.errors import UserError

__all__ = ["Skips", "find_sources", "read_documents"]

# Longer texts are handed on in parts, so that no step after this one ever holds more than so much of one document. A
# part is a hundred times longer than a block: what the cuts cost is not measurable.
LONGEST_DOCUMENT = 1 << 17  # characters; of a line of plain text, bytes
_LONGEST_JSON = 1 << 24  # bytes of a line: half a line of JSON cannot be read
_ROWS = 64  # of a Parquet file, decoded at once

NOT_UTF8 = "is not UTF-8 text"
NOT_JSON = "is not JSON"
NO_TEXT_FIELD = "has no text under `text`"
TOO_LONG = f"is longer than {_LONGEST_JSON >> 20} MiB"
NO_COLUMN = "has no column `text`"
DAMAGED = "is damaged or cut short"
UNREADABLE = "cannot be read"
NO_TEXT = "holds no text"


@dataclass(slots=True)
class Skips:
    """What was left out of a corpus: for each kind of fault how often it was met, and where first."""

    found: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, kind: str, path: Path, line: int | None = None) -> None:
        """Count one document, or the rest of one file, that was left out; `line` (or row) counts from 1."""
        first = {"count": 0, "file": str(path), "line": line}
        self.found.setdefault(kind, first)["count"] += 1

    def lines(self) -> list[str]:
        """One line for the user about each kind, e.g. `a.txt: is not UTF-8 text, line 3 (and 11 more like it)`."""
        return [
            f"{first['file']}: {kind}"
            + (f", line {first['line']}" if first["line"] else "")
            + (f" (and {first['count'] - 1:,} more like it)" if first["count"] > 1 else "")
            for kind, first in self.found.items()
        ]


def read_documents(
    paths: Sequence[Path], skips: Skips, advance: Callable[[int], None] = lambda _: None
) -> Iterator[str]:
    """Documents of the files that `find_sources` gave, in order; `skips` counts what had to be left out.

    Plain text has one paragraph a line and a blank line between documents; paragraphs stay lines. JSON lines and tables
    have one document under `text`. A document of more than `LONGEST_DOCUMENT` characters comes in parts, cut between
    words. `advance` is called with the bytes of the files that were read since its last call.

    Raises `UserError` that says what was left out, and why, when all files together hold no text.
    """
    found = False
    for path in paths:
        for document in _documents_of(path, skips, advance):
            found = True
            yield document
    if not found:
        where = f"{paths[0]}" + (f" and {len(paths) - 1:,} more" if len(paths) > 1 else "") if paths else "the corpus"
        others = [line for kind, line in zip(skips.found, skips.lines(), strict=True) if kind != NO_TEXT]
        raise UserError(
            f"{where}: {NO_TEXT}" + "".join(f"; {line}" for line in others),
            "give UTF-8 text with one paragraph a line, or JSON lines or tables with their text under `text`",
        )


def _documents_of(path: Path, skips: Skips, advance: Callable[[int], None]) -> Iterator[str]:
    """One file's documents. Whatever is wrong with the file as a whole ends it here, and is counted."""
    content, compression = format_of(path)
    read = {"text": _plain_text, "jsonl": _json_lines, "parquet": _parquet, "arrow": _arrow}[content]
    faults = sum(entry["count"] for entry in skips.found.values())
    seen = size = documents = 0
    try:
        with path.open("rb") as raw:
            size = path.stat().st_size
            stream: Any = raw
            if compression == ".gz":
                stream = gzip.GzipFile(fileobj=raw)
            elif compression == ".zst":
                stream = io.BufferedReader(pa.CompressedInputStream(raw, "zstd"), 1 << 16)
            for text in read(stream, path, skips):
                for part in _parts(text):
                    documents += 1
                    yield part
                if (position := raw.tell()) > seen:
                    advance(position - seen)
                    seen = position
    except (EOFError, zlib.error, pa.ArrowException):
        skips.add(DAMAGED, path)
    except OSError as fault:
        # The system's errors have a number; a decompressor that cannot go on raises the same type without one.
        skips.add(UNREADABLE if fault.errno else DAMAGED, path)
    advance(max(0, size - seen))
    if not documents and faults == sum(entry["count"] for entry in skips.found.values()):
        skips.add(NO_TEXT, path)


def _plain_text(stream: IO[bytes], path: Path, skips: Skips) -> Iterator[str]:
    paragraphs: list[str] = []
    size, whole = 0, True
    for number, line in _lines(stream):
        try:
            paragraph: str | None = line.decode("utf-8").strip()
        except UnicodeDecodeError:
            paragraph = None
        if size and (paragraph == "" or size + len(line) > LONGEST_DOCUMENT):
            if whole:
                yield "\n".join(paragraphs)
            paragraphs, size, whole = [], 0, True
        if paragraph is None:
            # The rest of the document goes too: a text with a hole in it teaches what does not follow. A text without
            # blank lines ends at the limit above, so that one bad byte never costs more than that.
            if whole:
                skips.add(NOT_UTF8, path, number)
            whole = False
        elif paragraph:
            paragraphs.append(paragraph)
        size += len(line) if paragraph != "" else 0
    if paragraphs and whole:
        yield "\n".join(paragraphs)


def _lines(stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Numbered lines; one that is longer than a document may be comes in parts, cut between words or characters."""
    number, kept = 1, b""
    while read := stream.readline(LONGEST_DOCUMENT):
        line = kept + read
        if read.endswith(b"\n") or len(read) < LONGEST_DOCUMENT:
            yield number, line
            number, kept = number + 1, b""
        else:
            cut = line.rfind(b" ") + 1 or _last_character(line)
            yield number, line[:cut]
            kept = line[cut:]
    if kept:
        yield number, kept


def _last_character(line: bytes) -> int:
    """Where the last character of UTF-8 bytes begins, whole or not: bytes 10xxxxxx continue one, at most three."""
    begin = len(line) - 1
    while begin > len(line) - 4 and line[begin] & 0xC0 == 0x80:
        begin -= 1
    return begin


def _json_lines(stream: IO[bytes], path: Path, skips: Skips) -> Iterator[str]:
    number = 0
    while line := stream.readline(_LONGEST_JSON):
        number += 1
        if len(line) == _LONGEST_JSON and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = stream.readline(_LONGEST_JSON)
            skips.add(TOO_LONG, path, number)
            continue
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError:
            skips.add(NOT_UTF8, path, number)
        except (ValueError, RecursionError):
            skips.add(NOT_JSON, path, number)
        else:
            yield from _checked(value.get("text") if isinstance(value, dict) else None, path, number, skips)


def _parquet(stream: IO[bytes], path: Path, skips: Skips) -> Iterator[str]:
    # A buffer makes the library read a column piece by piece; without one it takes in a row group's whole column.
    file = pq.ParquetFile(stream, buffer_size=1 << 20, pre_buffer=False)
    if "text" in file.schema_arrow.names:
        yield from _rows(file.iter_batches(_ROWS, columns=["text"], use_threads=False), path, skips)
    else:
        skips.add(NO_COLUMN, path)


def _arrow(stream: IO[bytes], path: Path, skips: Skips) -> Iterator[str]:
    # Read, not memory-mapped: a mapped file that shrinks meanwhile would end the process. So would an offset that
    # points outside, in a file that is damaged.
    names = pa.ipc.open_stream(stream).schema.names
    if "text" not in names:
        skips.add(NO_COLUMN, path)
        return
    stream.seek(0)
    only_text = pa.ipc.IpcReadOptions(included_fields=[names.index("text")])
    yield from _rows(map(_validated, pa.ipc.open_stream(stream, options=only_text)), path, skips)


def _validated(batch: Any) -> Any:
    batch.validate(full=True)
    return batch


def _rows(batches: Iterable[Any], path: Path, skips: Skips) -> Iterator[str]:
    number = 0
    for batch in batches:
        for cell in batch.column("text"):
            number += 1
            try:
                text = cell.as_py()
            except UnicodeDecodeError:
                skips.add(NOT_UTF8, path, number)
            else:
                yield from _checked(text, path, number, skips)


def _checked(text: Any, path: Path, number: int, skips: Skips) -> Iterator[str]:
    """A document as it stands in a field, if it is one. An empty one is nothing, and nothing is left out by that."""
    if not isinstance(text, str):
        skips.add(NO_TEXT_FIELD, path, number)
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell and no text can hold
        skips.add(NOT_UTF8, path, number)
        return
    if text := text.strip():
        yield text


def _parts(text: str) -> Iterator[str]:
    begin = 0
    while len(text) - begin > LONGEST_DOCUMENT:
        end = begin + LONGEST_DOCUMENT
        cut = max(text.rfind(" ", begin, end), text.rfind("\n", begin, end)) + 1 or end
        if part := text[begin:cut].strip():
            yield part
        begin = cut
    yield text[begin:]
