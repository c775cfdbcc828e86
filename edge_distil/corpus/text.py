"""Reading plain text: one paragraph a line, a blank line between documents."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_distil.errors import UserError


def read_documents(paths: Sequence[Path]) -> Iterator[str]:
    """Documents of `.txt` and `.txt.gz` files, in order, paragraphs joined by newlines.

    Raises `UserError` that names the file (and the line of a byte that is no UTF-8) when one cannot be read, and when
    all of them together hold no text.
    """
    found = False
    for path in paths:
        for document in _documents_of(path):
            found = True
            yield document
    if not found:
        raise UserError(
            f"{', '.join(map(str, paths)) or 'the corpus'}: holds no text", "give text files with one paragraph a line"
        )


def _documents_of(path: Path) -> Iterator[str]:
    if not path.is_file():
        raise UserError(f"{path}: no such file", "check the path")
    paragraphs: list[str] = []
    number = 0
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            for number, line in enumerate(file, start=1):  # noqa: B007 (the error below names the line)
                paragraph = line.decode("utf-8").strip()
                if paragraph:
                    paragraphs.append(paragraph)
                elif paragraphs:
                    yield "\n".join(paragraphs)
                    paragraphs = []
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text, line {number}", "convert the file to UTF-8") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as fault:
        raise UserError(f"{path}: is not a whole gzip file: {fault}", "copy the file again") from None
    if paragraphs:
        yield "\n".join(paragraphs)
