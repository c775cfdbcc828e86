"""The latency study as a table, a Markdown page, a CSV file and a bar chart, all from the same rows."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from edge_distil.report.tables import markdown, megabytes, table

RANDOM_WEIGHTS = "* random weights: its times count, its answers do not"
_MIL = "mil: a Core ML package run operation by operation, which says nothing of a phone's time"
_INPUT = "Input text: tokenisation included; ids: the runtime alone"
_RATIO = "Ratio: to the first row of the same input; 95 %: its interval, by bootstrap over turns"
_COST = (
    "Load: a fresh process opens the model, its runtime's imports included, the files in memory already. Memory: the "
    "most that was resident"
)
_MOST_UNMATCHED = 6
_P99_CALLS = 100
_UNITS = {"cpu_only": "CPU", "cpu_and_gpu": "CPU, GPU", "cpu_and_ne": "CPU, NE", "all": "all"}

Row = dict[str, Any]
_Column = tuple[str, Callable[[Row], str]]


def _number(name: str, form: str) -> Callable[[Row], str]:
    return lambda row: "–" if row.get(name) is None else format(row[name], form)


def _interval(name: str) -> Callable[[Row], str]:
    return lambda row: "–" if row.get(name) is None else "–".join(f"{value:.2f}" for value in row[name])


def _p99(row: Row) -> str:
    return _number("p99_ms", ".1f")(row) if row["calls"] >= _P99_CALLS else "–"


_CONTENDER: tuple[_Column, ...] = (
    ("Machine", lambda row: row.get("machine", "")),
    ("Model", lambda row: row["model"] + ("*" if row["random_weights"] else "")),
    ("Runtime", lambda row: row["runtime"]),
    ("Units", lambda row: _UNITS.get(row.get("compute_units") or "", "")),
    ("Device", lambda row: row.get("device", "cpu") if row.get("device", "cpu") != "cpu" else ""),
    ("Precision", lambda row: row["precision"]),
)
_TIMES: tuple[_Column, ...] = (
    *_CONTENDER,
    ("Tokens", lambda row: str(row["tokens"])),
    ("Input", lambda row: "text" if row["tokenization"] else "ids"),
    ("Median ms", _number("median_ms", ".1f")),
    ("p90 ms", _number("p90_ms", ".1f")),
    ("p99 ms", _p99),
    ("Ratio", _number("ratio", ".2f")),
    ("95 %", _interval("ratio_interval")),
    ("Thermal state", lambda row: row.get("thermal_state", "")),
)
_COSTS: tuple[_Column, ...] = (
    *_CONTENDER,
    ("Load ms", _number("load_ms", ",.0f")),
    ("First call ms", _number("first_call_ms", ",.0f")),
    ("Warm-up calls", _number("warmup", "d")),
    ("Memory", lambda row: "–" if row.get("peak_bytes") is None else megabytes(row["peak_bytes"])),
    ("GPU memory", lambda row: megabytes(row["device_peak_bytes"]) if row.get("device_peak_bytes") else ""),
    ("On disk", lambda row: "–" if row.get("bytes") is None else megabytes(row["bytes"])),
)


def _cells(rows: Sequence[Row], columns: Sequence[_Column]) -> tuple[list[str], list[list[str]]]:
    """Headers and cells; a column that no row has anything in is left out."""
    made = [(header, [cell(row) for row in rows]) for header, cell in columns]
    kept = [(header, cells) for header, cells in made if any(cell not in ("", "–") for cell in cells)]
    return [header for header, _ in kept], [list(cells) for cells in zip(*(cells for _, cells in kept), strict=True)]


def times(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headers and cells of the latencies in a report by `edge_distil.bench.report`, imported ones below the others.

    A star marks random weights. Machines are told apart by letters where there are several.
    """
    return _cells(_rows(report), _TIMES)


def costs(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headers and cells of loading time, memory and size, a row for each contender that was measured here."""
    rows = [row for row in _rows(report) if not row["tokenization"] and "load_ms" in row]
    return _cells(rows, _COSTS) if rows else ([], [])


def _reports(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*([report] if report["results"] else []), *report.get("imported", [])]


def _rows(report: Mapping[str, Any]) -> list[Row]:
    reports = _reports(report)
    if len(reports) == 1:
        return list(reports[0]["results"])
    return [{**row, "machine": chr(ord("A") + index)} for index, each in enumerate(reports) for row in each["results"]]


def title(report: Mapping[str, Any]) -> str:
    """What was timed: a question where every model answers questions, else an input."""
    return f"Latency of one {report.get('input', 'question')}, batch 1"


def machines(report: Mapping[str, Any]) -> list[str]:
    """A line for every machine: what it is, and the threads."""
    reports = _reports(report)
    lines = []
    for index, each in enumerate(reports):
        machine = each["machine"]
        sets = ", ".join(machine.get("instruction_sets") or ())
        threads = each["threads"] or "the runtime's choice"
        parts = [f"{machine['processor']}, {machine['system']}", f"threads: {threads}", machine.get("gpu"), sets]
        letter = f"{chr(ord('A') + index)}: " if len(reports) > 1 else ""
        lines.append(letter + "; ".join(part for part in parts if part))
    return lines


def _cautions(report: Mapping[str, Any]) -> list[str]:
    """What must stand beside the times, in the chart too."""
    rows = _rows(report)
    random_weights = [RANDOM_WEIGHTS] if any(row["random_weights"] for row in rows) else []
    return [*random_weights, *([_MIL] if any(row["runtime"] == "mil" for row in rows) else [])]


def notes(report: Mapping[str, Any]) -> list[str]:
    """What stands below the table: how to read it, the machine, and what to be careful about."""
    reports = _reports(report)
    lines = [_INPUT]
    if any("ratio_interval" in row for row in _rows(report)):
        lines.append(_RATIO + (", each machine by itself" if len(reports) > 1 else ""))
    lines += _cautions(report)
    lines += machines(report)
    lines += [
        f"left out: {each['model']} ({each['runtime']} {each['precision'] or ''}): {each['reason']}"
        for each in report.get("left_out", [])
    ]
    for index, each in enumerate(reports):
        letter = f"{chr(ord('A') + index)}: " if len(reports) > 1 else ""
        lines += [letter + warning for warning in each["warnings"]]
    return lines


def bench_table(report: Mapping[str, Any]) -> Group:
    """The latency study for the terminal: times, costs, what changed, and below them what to be careful about."""
    parts: list[Table | Text] = []
    if _reports(report):
        parts.append(table(title(report), *times(report)))
        headers, rows = costs(report)
        if rows:
            parts += [table("What it costs", headers, rows)]
        parts.append(Text("\n".join([*notes(report), *([_COST] if rows else [])])))
    if "against" in report:
        against = report["against"]
        parts += [Text(), Text(f"Against {against['source']}", style="italic")]
        if against["changes"]:
            parts.append(table("", *_changes(against)))
        parts.append(Text("\n".join(_against_notes(against))))
    return Group(*parts)


def _changes(against: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    columns: tuple[_Column, ...] = (
        *_TIMES[2:8],
        ("Then ms", _number("earlier_ms", ".1f")),
        ("Now ms", _number("median_ms", ".1f")),
        ("Change", lambda row: f"{100 * (row['change'] - 1):+.1f} %"),
        ("95 %", lambda row: _percents(row["interval"])),
        ("", lambda row: row["verdict"] or ""),
    )
    rows = [{**row, "random_weights": False, "compute_units": row["compute_units"] or ""} for row in against["changes"]]
    headers, cells = _cells(rows, (_TIMES[1], *columns))
    return headers, cells


def _percents(interval: Sequence[float] | None) -> str:
    return "–" if interval is None else " to ".join(f"{100 * (value - 1):+.1f}" for value in interval)


def _against_notes(against: Mapping[str, Any]) -> list[str]:
    lines = ["The interval holds the noise within each run, not what else the machine did on either day"]
    if not against["changes"]:
        lines = ["nothing to compare: no contender is in both runs"]
    elif against["differences"]:
        lines = [f"not the same conditions: {'; '.join(against['differences'])}", *lines]
    unmatched = against["unmatched"]
    more = len(unmatched) - _MOST_UNMATCHED
    return [
        *lines,
        *unmatched[:_MOST_UNMATCHED],
        *([f"and {more} more in one of the two runs alone"] if more > 0 else []),
    ]


def page(report: Mapping[str, Any], *, command: str, chart: str | None = None) -> str:
    """The study as a Markdown page: tables, how it was measured, machine and versions."""
    parts = [f"# {title(report)}", "", f"    {command}", ""]
    if chart:
        parts += [f"![Median and 95 % interval of every contender]({chart})", ""]
    if _reports(report):
        parts += [markdown(*times(report))]
        headers, rows = costs(report)
        if rows:
            parts += ["## What it costs", "", markdown(headers, rows)]
        parts += [f"* {line}" for line in [*notes(report), *([_COST] if rows else [])]]
    if "against" in report:
        against = report["against"]
        parts += ["", f"## Against {against['source']}", ""]
        parts += [markdown(*_changes(against))] if against["changes"] else []
        parts += [f"* {line}" for line in _against_notes(against)]
    if report["results"]:
        tokens = report["tokens"] or "its own length in"
        pinned = f", kept on the cores {', '.join(map(str, report['cpus']))}" if report.get("cpus") else ""
        parts += [
            "",
            "## How",
            "",
            f"{report['questions']} questions ({report.get('data', 'starter set')}), {report.get('repeats')} "
            "times each, "
            f"{tokens} tokens, batch 1, {report['threads']} threads{pinned}. Every contender has a process of its own "
            "and is warmed up until three calls take as long as the three before; then they take turns on every "
            "question, and the first turn moves on. Times of single calls are in results.json; intervals are by "
            f"bootstrap, seed {report.get('seed')}.",
        ]
    for each in _reports(report):
        versions = ", ".join(f"{name} {version}" for name, version in each["versions"].items())
        parts += ["", f"{each['machine']['processor']}: {versions}."]
    return "\n".join(parts) + "\n"


_CSV = (
    "model", "runtime", "precision", "device", "compute_units", "tokens", "tokenization", "random_weights",
    "median_ms", "median_low_ms", "median_high_ms", "p90_ms", "p99_ms", "ratio", "ratio_low", "ratio_high", "calls",
    "warmup", "load_ms", "first_call_ms", "peak_bytes", "device_peak_bytes", "bytes", "thermal_state",
    "processor", "system", "threads",
)  # fmt: skip


def write_csv(report: Mapping[str, Any], path: Path) -> None:
    """One row for each row of the report and of what was imported; a field that it lacks is empty."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _CSV, restval="", extrasaction="ignore")
        writer.writeheader()
        for each in _reports(report):
            for row in each["results"]:
                low_high = {
                    f"{name}_{end}{unit}": value
                    for name, unit, found in (
                        ("median", "_ms", row.get("median_interval_ms")),
                        ("ratio", "", row.get("ratio_interval")),
                    )
                    for end, value in zip(("low", "high"), found or ("", ""), strict=True)
                }
                machine = {name: each["machine"][name] for name in ("processor", "system")}
                flags = {name: str(row[name]).lower() for name in ("tokenization", "random_weights")}
                kept = {**row, **low_high, **machine, **flags, "threads": each["threads"]}
                writer.writerow({name: "" if value is None else value for name, value in kept.items()})


def plot(report: Mapping[str, Any], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Draw a bar for the median of every contender, from text and from ids, with its 95 % interval, to a PNG file.

    `metadata` goes into the file.
    """
    from matplotlib.figure import Figure

    rows = _rows(report)
    names = list(dict.fromkeys(_label(row) for row in rows))
    figure = Figure(figsize=(8, 1.4 + 0.42 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    for offset, (tokenization, color, label) in zip(
        (-0.2, 0.2), ((True, "tab:orange", "with tokenisation"), (False, "tab:blue", "the runtime alone")), strict=True
    ):
        drawn = [row for row in rows if row["tokenization"] == tokenization]
        medians = [row["median_ms"] for row in drawn]
        intervals = [row.get("median_interval_ms") or (row["median_ms"],) * 2 for row in drawn]
        errors = [
            [max(0.0, middle - low) for middle, (low, _) in zip(medians, intervals, strict=True)],
            [max(0.0, high - middle) for middle, (_, high) in zip(medians, intervals, strict=True)],
        ]
        places = [len(names) - names.index(_label(row)) - offset for row in drawn]
        axes.barh(places, medians, 0.38, color=color, label=label, xerr=errors, error_kw={"linewidth": 1, "capsize": 2})
    axes.set_yticks([len(names) - index for index in range(len(names))], names, fontsize=8)
    axes.set_xlabel("milliseconds, median and 95 % interval", fontsize=8)
    axes.set_ylim(0.4, len(names) + 0.6)
    # The instruction sets, which have no room here, stand in the page.
    shown = [line.partition("; ")[0] for line in machines(report)]
    axes.set_title("\n".join([title(report), *shown, *_cautions(report)]), fontsize=8, loc="left")
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.3)
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    figure.savefig(path, format="png", dpi=120, metadata=dict(metadata or {}))


def _label(row: Row) -> str:
    # A mathtext sign in a folder's name would be set as a formula.
    cells = (cell(row) for _, cell in _CONTENDER)
    return ", ".join(filter(None, (*cells, f"{row['tokens']} tokens"))).replace("$", r"\$")
