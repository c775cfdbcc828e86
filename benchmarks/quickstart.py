"""Writes what `edge-distil quickstart` measured into README.md and `benchmarks/results/quickstart.json`.

edge-distil quickstart --json > measured.json
python benchmarks/quickstart.py measured.json
"""

import json
import sys
from pathlib import Path
from typing import Any

import result_files

from edge_distil.quickstart import HEADERS, cells


def main() -> None:
    """Write the result file and the README's block."""
    measured = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    del measured["output"]  # where it was run is nobody's concern
    result = result_files.write("quickstart", command="edge-distil quickstart", seeds=[0], results=measured)
    result_files.write_blocks(blocks(result))


def blocks(result: dict[str, Any]) -> result_files.Blocks:
    """What the README holds of the result file."""
    return {("README.md", "quickstart"): block(result["results"])}


def block(measured: dict[str, Any]) -> str:
    """The table as the command prints it, the question and its answer."""
    rows = [HEADERS, *cells(measured["rows"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADERS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    answer = measured["answer"]
    lines += ["", f"Q: {measured['question']}", f"A: {answer['text']}  (int8 ONNX, {answer['score']:.0%})"]
    lines += ["", f"{measured['seconds']:.0f} s in all"]
    return "\n".join(f"    {line}".rstrip() for line in lines)


def prose(result: dict[str, Any]) -> result_files.Prose:
    """What the README says of the machine below the table."""
    versions = result["versions"]
    torch, onnxruntime = versions["torch"].partition("+")[0], versions["onnxruntime"]
    return {
        "README.md": [
            f"{result['machine']['cores']}-core Intel Xeon with AMX, torch {torch}, onnxruntime {onnxruntime}"
        ]
    }


if __name__ == "__main__":
    main()
