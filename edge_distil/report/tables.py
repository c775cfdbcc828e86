"""Tables for the terminal and for Markdown, from the same rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

BENCH_HEADERS = ("Model", "Runtime", "Precision", "Tokens", "Input", "Median ms", "p90 ms", "Ratio")
_INPUT = "Input text: tokenization included; ids: the runtime alone"
_RANDOM_WEIGHTS = "* random weights: its times count, its answers do not"


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
        made.add_column(escape(header), justify="right" if _is_numeric(rows, index) else "left")
    for row in rows:
        made.add_row(*map(escape, row))
    return made


def markdown(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same table in Markdown, with a final newline. Columns of numbers stand to the right."""
    rule = ["---:" if _is_numeric(rows, index) else "---" for index in range(len(headers))]
    escaped = [[cell.replace("|", r"\|").replace("\n", " ") for cell in row] for row in [headers, *rows]]
    return "".join(f"| {' | '.join(row)} |\n" for row in [escaped[0], rule, *escaped[1:]])


def bench_rows(report: dict[str, Any]) -> list[list[str]]:
    """The cells under `BENCH_HEADERS` of a report by `edge_distil.bench.report`; a star marks random weights."""
    return [
        [
            row["model"] + ("*" if row["random_weights"] else ""),
            row["runtime"],
            row["precision"],
            str(row["tokens"]),
            "text" if row["tokenization"] else "ids",
            f"{row['median_ms']:.1f}",
            f"{row['p90_ms']:.1f}",
            f"{row['ratio']:.2f}",
        ]
        for row in report["results"]
    ]


def bench_table(report: dict[str, Any]) -> Table:
    """The latency study for the terminal: its rows, and under them the machine and what to be careful about."""
    machine = report["machine"]
    made = table("Latency of one question, batch 1", BENCH_HEADERS, bench_rows(report))
    notes = [_INPUT]
    if any(row["random_weights"] for row in report["results"]):
        notes.append(_RANDOM_WEIGHTS)
    notes += [f"{machine['processor']}, {machine['system']}, threads: {report['threads']}", *report["warnings"]]
    made.caption = escape("\n".join(notes))
    return made


def between_marks(document: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- name -->` and `<!-- end of name -->` in a Markdown file.

    Raises ValueError where a mark is missing.
    """
    begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    content = document.read_text(encoding="utf-8")
    first, last = content.index(begin) + len(begin), content.index(end)
    document.write_text(f"{content[:first]}\n{text.strip(chr(10))}\n{content[last:]}", encoding="utf-8")


def _is_numeric(rows: Sequence[Sequence[str]], column: int) -> bool:
    """Whether every cell of a column is a number, with or without thousands separators."""
    return all(row[column].replace(",", "").replace(".", "", 1).removeprefix("-").isdigit() for row in rows)
