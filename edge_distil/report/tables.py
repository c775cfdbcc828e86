"""Tables for the terminal and for Markdown, from the same rows."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

# Columns of what is no terminal.
_UNBOUND = 10_000
# Cells up to this long are kept on one line, even where the terminal has no room for the whole table.
_UNFOLDED = 24


def megabytes(count: int) -> str:
    """A number of bytes in MB of 10^6 bytes, one decimal: 66400000 is "66.4 MB"."""
    return f"{count / 1e6:.1f} MB"


def table(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table for the terminal. Columns of numbers stand to the right; cells are shown as they are, not as markup."""
    # Few rules and little padding: the latency study's eight columns fit a terminal of 80.
    made = Table(
        title=escape(title), title_justify="left", caption_justify="left", box=SIMPLE_HEAD, collapse_padding=True
    )
    for index, header in enumerate(headers):
        # Headers are wrapped before any cell is: a name that is cut can no longer be told from the next one.
        longest = max((len(word) for word in header.split()), default=0)
        made.add_column(
            escape(header),
            justify="right" if _is_numeric(rows, index) else "left",
            overflow="fold",
            min_width=min(_UNFOLDED, max([longest, *(len(row[index]) for row in rows)])),
        )
    for row in rows:
        made.add_row(*map(escape, row))
    return made


def markdown(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same table in Markdown, with a final newline. Columns of numbers stand to the right."""
    rule = ["---:" if _is_numeric(rows, index) else "---" for index in range(len(headers))]
    escaped = [[cell.replace("|", r"\|").replace("\n", " ") for cell in row] for row in [headers, *rows]]
    return "".join(f"| {' | '.join(row)} |\n" for row in [escaped[0], rule, *escaped[1:]])


def show(made: RenderableType) -> None:
    """Print on stdout: as wide as the terminal, and where it is none, as wide as it takes, so that nothing is cut."""
    Console(width=None if sys.stdout.isatty() else _UNBOUND).print(made, soft_wrap=False)


def between_marks(document: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- name -->` and `<!-- end of name -->` in a Markdown file.

    Raises ValueError where a mark is missing.
    """
    content = document.read_text(encoding="utf-8")
    first, last = _place(content, name)
    document.write_text(f"{content[:first]}\n{text.strip(chr(10))}\n{content[last:]}", encoding="utf-8")


def marked(content: str, name: str) -> str:
    """What stands between the two marks in a Markdown text, without the empty lines around it. Raises ValueError."""
    first, last = _place(content, name)
    return content[first:last].strip("\n")


def _place(content: str, name: str) -> tuple[int, int]:
    begin = f"<!-- {name} -->\n"
    first = content.index(begin) + len(begin)
    return first, content.index(f"\n<!-- end of {name} -->", first - 1)


def _is_numeric(rows: Sequence[Sequence[str]], column: int) -> bool:
    """Whether every cell of a column is a number, with or without thousands separators."""
    return all(row[column].replace(",", "").replace(".", "", 1).removeprefix("-").isdigit() for row in rows)
