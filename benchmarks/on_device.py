"""On-device computation of Sanh et al. (2019): what DistilBERT's latency is to BERT-base's, and what both weigh.

    python benchmarks/on_device.py
    python benchmarks/on_device.py bert-base-squad distilbert-squad --import study.json

It runs `edge-distil bench` on two question answerers, by default of the true shapes with random weights, writes both as
Core ML packages, and makes the result file and docs/on-device.md. `--import` is what the iOS app shares of its study,
with a model that has "distil" in its name and one that has not: a phone's rows in the same table.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import core_ml
import result_files

from edge_distil.bench import statistics
from edge_distil.report.latency import plot
from edge_distil.report.tables import markdown

CHART = "docs/on-device.png"
PACKAGES = ("fp16", "palette8", "palette4")
# Of the paper: on an iPhone 7 Plus without tokenisation (section 4, "On device computation"), and the median of the
# authors' app in a simulator, milliseconds.
PAPER_FASTER_BY = 0.71
PAPER_APP = (1118, 319)
PAPER_MEGABYTES = 207


def main() -> None:
    """Measure, and write the result file, the page's tables and its chart."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", type=Path, help="checkpoints of BERT-base and of DistilBERT")
    parser.add_argument("--import", dest="app", action="append", default=[], help="the app's results")
    given = parser.parse_args()
    if len(given.models) not in (0, 2):
        parser.error("give two checkpoints, BERT-base's first, or none")

    options = [word for file in given.app for word in ("--import", file)]
    command = [sys.executable, "-m", "edge_distil", "bench", *map(str, given.models), *options, "--json"]
    measured = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    packages = []
    for name in map(str, given.models or ("bert-base", "distilbert")):
        for precision in PACKAGES:
            print(f"converting {name} to {precision}", file=sys.stderr)
            converted = core_ml.convert_apart(name, precision, "plain", 18)
            packages.append({"model": name, "precision": precision, "bytes": converted["bytes"]})

    times = [
        {**{name: row[name] for name in ("model", "runtime", "precision", "tokenization")}, "ms": row.pop("times_ms")}
        for row in measured["results"]
    ]
    reports = [measured, *measured.pop("imported", [])]
    if not list(pairs(measured, False)):
        sys.exit("the two were measured in no runtime and precision that both have, so that nothing can be compared")
    result = result_files.write(
        "on-device",
        command=result_files.command_line(),
        configuration={name: measured[name] for name in ("threads", "questions", "repeats", "tokens", "data")},
        seeds=[measured["seed"]],
        runs=times,
        results={"reports": reports, "packages": packages},
        versions=measured["versions"],
    )
    result_files.write_blocks(blocks(result))
    for path, draw in plots(result).items():
        draw(result_files.ROOT / path)


def is_small(report: Mapping[str, Any], model: str) -> bool:
    """Whether a model is the DistilBERT of a report: the second one measured; of an imported report, by its name."""
    if "source" in report:
        return "distil" in model.lower()
    return model != report["results"][0]["model"]


def pairs(report: Mapping[str, Any], tokenization: bool) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The rows of BERT and of DistilBERT in every runtime and precision that has both, and on the same device."""
    alike: dict[tuple[Any, ...], dict[bool, dict[str, Any]]] = {}
    for row in report["results"]:
        if row["tokenization"] == tokenization:
            kind = tuple(row.get(name) for name in ("runtime", "precision", "device", "compute_units", "tokens"))
            alike.setdefault(kind, {})[is_small(report, row["model"])] = row
    yield from ((found[False], found[True]) for found in alike.values() if len(found) == 2)


def label(row: Mapping[str, Any]) -> str:
    """The runtime and the precision of a row, and on which units where there is a choice."""
    return " ".join(filter(None, (row["runtime"], row["precision"], row.get("compute_units"))))


def ratio_interval(result: Mapping[str, Any], bert: Mapping[str, Any], distilbert: Mapping[str, Any]) -> str:
    """The 95 % interval of BERT's median over DistilBERT's, of calls that took turns."""
    drawn = []
    for row in (bert, distilbert):
        keys = ("model", "runtime", "precision", "tokenization")
        times = next((run["ms"] for run in result["runs"] if all(run[key] == row[key] for key in keys)), None)
        if times is None:
            return ""
        units = statistics.units(len(times), result["configuration"]["questions"], one_length=True)
        drawn.append(statistics.resampled_medians(times, units))
    low, high = statistics.interval(drawn[0] / drawn[1], units) or (None, None)
    return "" if low is None else f" ({low:.2f} to {high:.2f})"


def latency(result: dict[str, Any]) -> str:
    """How many times as fast DistilBERT is, the paper's and every runtime's."""
    rows = [
        ["iPhone 7 Plus", "Core ML", "", f"{1 + PAPER_FASTER_BY:.2f}", "–", "the paper's phone"],
        [
            "app in the simulator",
            "Core ML",
            f"{PAPER_APP[0]:,} / {PAPER_APP[1]}",
            f"{PAPER_APP[0] / PAPER_APP[1]:.2f}",
            "–",
            "the authors' app",
        ],
    ]
    for index, report in enumerate(result["results"]["reports"]):
        machine = f"{report['machine']['processor']}, {report['threads'] or 'its own'} threads"
        with_text = {label(bert): (bert, small) for bert, small in pairs(report, True)}
        for bert, small in pairs(report, False):
            interval = ratio_interval(result, bert, small) if index == 0 else ""
            both = with_text.get(label(bert))
            rows.append(
                [
                    machine,
                    label(bert),
                    f"{bert['median_ms']:,.1f} / {small['median_ms']:,.1f}",
                    "–",
                    f"{bert['median_ms'] / small['median_ms']:.2f}{interval}",
                    ("random weights" if small["random_weights"] else "")
                    + (f"; with text {both[0]['median_ms'] / both[1]['median_ms']:.2f}" if both else ""),
                ]
            )
    header = ("where", "runtime", "BERT-base / DistilBERT ms", "paper: times as fast", "ours", "what differs")
    return markdown(header, rows)


def files(result: dict[str, Any]) -> dict[str, dict[bool, int]]:
    """Bytes of BERT and of DistilBERT in what goes into an app, and of the graphs."""
    by_kind: dict[str, dict[bool, int]] = {}
    packages, measured = result["results"]["packages"], result["results"]["reports"][0]
    for row in packages:
        by_kind.setdefault(f"Core ML {row['precision']}", {})[row["model"] != packages[0]["model"]] = row["bytes"]
    for row in measured["results"]:
        if row.get("bytes") and row["runtime"] in ("torch", "onnxruntime", "openvino") and row["precision"] != "bf16":
            by_kind.setdefault(label(row), {})[is_small(measured, row["model"])] = row["bytes"]
    return {kind: found for kind, found in by_kind.items() if len(found) == 2}


def sizes(result: dict[str, Any]) -> str:
    """Megabytes beside the paper's."""
    rows = [
        [
            kind,
            f"{PAPER_MEGABYTES}" if kind == "Core ML fp16" else "–",
            f"{found[False] / 1e6:.1f}",
            f"{found[True] / 1e6:.1f}",
        ]
        for kind, found in files(result).items()
    ]
    return markdown(("file", "paper: DistilBERT MB", "BERT-base MB", "DistilBERT MB"), rows)


def summary(result: dict[str, Any]) -> str:
    """Size and latency of both, of every file: the README's."""
    times = {
        label(bert): (bert["median_ms"], small["median_ms"])
        for bert, small in pairs(result["results"]["reports"][0], False)
    }
    rows = []
    for kind, found in files(result).items():
        both = times.get(kind)
        milliseconds = [f"{each:,.0f}" for each in both] if both else ["–", "–"]
        faster = f"{both[0] / both[1]:.2f}" if both else "–"
        rows.append([kind, *(f"{found[distilled] / 1e6:,.0f}" for distilled in (False, True)), *milliseconds, faster])
    header = ("file", "BERT-base MB", "DistilBERT MB", "BERT-base ms", "DistilBERT ms", "times as fast")
    return markdown(header, rows)


def blocks(result: dict[str, Any]) -> result_files.Blocks:
    """What the document holds of the result file."""
    page = "docs/on-device.md"
    return {
        (page, "latency"): latency(result),
        (page, "sizes"): sizes(result),
        ("README.md", "bench"): summary(result),
    }


def prose(result: dict[str, Any]) -> result_files.Prose:
    """What the text around the tables says of them."""
    ratios = [bert["median_ms"] / small["median_ms"] for bert, small in pairs(result["results"]["reports"][0], False)]
    return {"docs/on-device.md": [f"We find {min(ratios):.2f} to {max(ratios):.2f} in every runtime"]}


def plots(result: dict[str, Any]) -> result_files.Plots:
    """The chart of the page: the one of `edge-distil bench`."""

    def draw(rows: list[dict[str, Any]], path: Path, metadata: dict[str, str]) -> None:
        plot({**reports[0], "results": rows, "imported": reports[1:]}, path, metadata)

    reports = result["results"]["reports"]
    return {CHART: result_files.Plot(reports[0]["results"], draw)}


if __name__ == "__main__":
    main()
