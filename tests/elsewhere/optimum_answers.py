"""Answers to questions by optimum and transformers' pipeline, from export folders as they are.

Reads {"graphs": {precision: path of the graph, in the folder `onnx` of an export}, "questions": [{"question",
"context"}]} from standard input. Writes {precision: [{"answer", "start", "end", "score"}]} to standard output.
"""

import json
import sys
from pathlib import Path

from optimum.onnxruntime import ORTModelForQuestionAnswering
from transformers import AutoTokenizer, pipeline

request = json.load(sys.stdin)
found = {}
for precision, path in request["graphs"].items():
    graph = Path(path)
    folder = graph.parent.parent
    model = ORTModelForQuestionAnswering.from_pretrained(
        folder, subfolder=graph.parent.name, file_name=graph.name, local_files_only=True
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    answerer = pipeline("question-answering", model=model, tokenizer=tokenizer, device="cpu")
    # As many tokens in an answer as the toolkit allows; the pipeline's own limit is 15.
    found[precision] = [answerer(**asked, max_answer_len=30) for asked in request["questions"]]
json.dump(found, sys.stdout)
