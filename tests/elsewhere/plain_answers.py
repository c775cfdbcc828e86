"""Answers to questions by the Python block of an export's README alone, in a process without this toolkit.

The export is the working directory. Reads {"graphs": {precision: path in it}, "questions": [{"question", "context"}]}
from standard input, writes {precision: {"outputs": {name: logits of the block's own example}, "answers": [text]}} to
standard output.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

LONGEST = 30  # tokens of an answer, as the toolkit allows
OUTPUTS = ("start_logits", "end_logits")

# Importing one of these is an error from here on: a reader of the README needs none of them.
for name in ("edge_distil", "exporters", "torch", "transformers"):
    sys.modules[name] = None  # type: ignore[assignment]


def answer(tokenizer: Any, session: Any, question: str, context: str) -> str:
    """The best span of the context by the sum of its two logits, written for this test."""
    encoding = tokenizer.encode(question, context)
    inputs = {"input_ids": np.array([encoding.ids]), "attention_mask": np.array([encoding.attention_mask])}
    start_L, end_L = (logits[0] for logits in session.run(list(OUTPUTS), inputs))
    positions = [index for index, sequence in enumerate(encoding.sequence_ids) if sequence == 1]
    spans = [(first, last) for first in positions for last in positions if first <= last < first + LONGEST]
    first, last = max(spans, key=lambda span: start_L[span[0]] + end_L[span[1]])
    return context[encoding.offsets[first][0] : encoding.offsets[last][1]]


def main() -> None:
    request = json.load(sys.stdin)
    block = re.search(r"```python\n(.*?)```", Path("README.md").read_text(encoding="utf-8"), re.DOTALL)
    if block is None:
        sys.exit("README.md has no Python block")
    found = {}
    for precision, graph in request["graphs"].items():
        defined: dict[str, Any] = {}
        exec(re.sub(r"onnx/\w+\.onnx", graph, block[1]), defined)
        found[precision] = {
            "outputs": {name: defined[name].tolist() for name in OUTPUTS},
            "answers": [answer(defined["tokenizer"], defined["session"], **asked) for asked in request["questions"]],
        }
    json.dump(found, sys.stdout)


main()
