"""How long the toolkit takes to start: `edge-distil --help`, and `edge-distil ask` on an int8 ONNX export.

    python benchmarks/startup.py [EXPORT] [--repeats 10]

EXPORT is a folder with an int8 graph; by default the starter's question answerer is exported first. Every start is a
fresh process, from its first instruction to its end. As root on Linux also with nothing of it in memory: the system's
page cache is dropped before the start. Writes `benchmarks/results/startup.json` and the table of docs/bench.md.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import result_files

from edge_distil import starter
from edge_distil.report.tables import markdown

DROP_CACHES = Path("/proc/sys/vm/drop_caches")
LIMITS = {"--help": 0.5, "ask": 2.0}
COLD_REPEATS = 3


def seconds_of(command: list[str]) -> float:
    """Wall time of one process. Raises CalledProcessError when it fails."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begun


def measure(export: Path, scratch: Path, repeats: int) -> list[dict[str, Any]]:
    """Seconds of every start: the commands take turns, as they come and then, where it can be, without page cache."""
    question, passage, _ = starter.example()
    context = scratch / "passage.txt"
    context.write_text(passage, encoding="utf-8")
    start = [sys.executable, "-m", "edge_distil"]
    commands = {
        "--help": [*start, "--help"],
        "ask": [*start, "ask", str(export), question, "--context", str(context)],
    }
    for command in commands.values():  # a first start writes byte code
        seconds_of(command)
    runs = [
        {"command": name, "cached": True, "seconds": seconds_of(command)}
        for _ in range(repeats)
        for name, command in commands.items()
    ]
    if os.access(DROP_CACHES, os.W_OK):
        for _ in range(COLD_REPEATS):
            for name, command in commands.items():
                os.sync()
                DROP_CACHES.write_text("1\n")
                runs.append({"command": name, "cached": False, "seconds": seconds_of(command)})
    return runs


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The median and the longest of the starts of each command, from memory and from disk."""
    rows = []
    for name, limit in LIMITS.items():
        for cached in (True, False):
            seconds = [run["seconds"] for run in runs if (run["command"], run["cached"]) == (name, cached)]
            if seconds:
                row = {"command": name, "cached": cached, "starts": len(seconds), "limit": limit}
                rows.append({**row, "median": statistics.median(seconds), "longest": max(seconds)})
    return rows


def main() -> None:
    """Measure, write the result and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path, nargs="?", help="folder with an int8 ONNX graph")
    parser.add_argument("--repeats", type=int, default=10)
    given = parser.parse_args()
    load = list(os.getloadavg())
    with TemporaryDirectory() as scratch:
        export = given.export
        if export is None:
            export = Path(scratch) / "export"
            made = ["export", "--precision", "int8", "--output", str(export)]
            subprocess.run([sys.executable, "-m", "edge_distil", *made], check=True)
        size = (export / "onnx/model_quantized.onnx").stat().st_size
        runs = measure(export, Path(scratch), given.repeats)
    result = result_files.write(
        "startup",
        command=result_files.command_line(),
        configuration={"model_bytes": size, "repeats": given.repeats, "load_average_before": load},
        runs=runs,
        results={"rows": summary(runs)},
    )
    result_files.write_blocks(blocks(result))
    print(table(result))


def table(result: dict[str, Any]) -> str:
    """Seconds by command, from memory and from disk, against what they may take."""
    cells = [
        [
            f"`edge-distil {row['command']}`",
            "in memory" if row["cached"] else "on disk",
            f"{row['median']:.2f}",
            f"{row['longest']:.2f}",
            f"{row['limit']:.1f}",
        ]
        for row in result["results"]["rows"]
    ]
    return markdown(("command", "files", "median s", "longest s", "may take"), cells)


def blocks(result: dict[str, Any]) -> result_files.Blocks:
    """What the document holds of the result file."""
    return {("docs/bench.md", "startup"): table(result)}


if __name__ == "__main__":
    main()
