"""Writes what `edge-distil quickstart` measured into README.md and `benchmarks/results/quickstart.json`.

edge-distil quickstart --json > measured.json
python benchmarks/quickstart.py measured.json
"""

import json
import sys
from pathlib import Path
from typing import Any

from edge_distil.checkpoints import versions
from edge_distil.machine import describe_machine
from edge_distil.quickstart import HEADERS, cells
from edge_distil.report.tables import between_marks

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks/results/quickstart.json"


def main() -> None:
    """Write the result file and the README's block."""
    measured = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    del measured["output"]  # where it was run is nobody's concern
    result = {
        "study": "quickstart",
        "command": "edge-distil quickstart",
        "machine": describe_machine(),
        "versions": versions(),
        "measured": measured,
    }
    RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    between_marks(ROOT / "README.md", "quickstart", block(measured))


def block(measured: dict[str, Any]) -> str:
    """The table as the command prints it, the question and its answer."""
    rows = [HEADERS, *cells(measured["rows"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADERS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    answer = measured["answer"]
    lines += ["", f"Q: {measured['question']}", f"A: {answer['text']}  (int8 ONNX, {answer['score']:.0%})"]
    lines += ["", f"{measured['seconds']:.0f} s in all"]
    return "\n".join(f"    {line}".rstrip() for line in lines)


if __name__ == "__main__":
    main()
