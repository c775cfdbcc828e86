"""Asks an artifact the first question about the third passage of three articles of a SQuAD file.

python benchmarks/real_run_ask.py runs/real/qa-student-distilled-onnx dev-v1.1.json > runs/real/asked.json
"""

import json
import sys
from pathlib import Path

from edge_distil.qa import QuestionAnswerer

ARTICLES, PARAGRAPH = (0, 3, 6), 2


def main() -> None:
    """Print a JSON list of article, question, gold answers, and the answer with its place and score."""
    answerer = QuestionAnswerer.open(Path(sys.argv[1]))
    data = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))["data"]
    asked = []
    for article in (data[index] for index in ARTICLES):
        paragraph = article["paragraphs"][PARAGRAPH]
        qa = paragraph["qas"][0]
        best = answerer.ask(qa["question"], paragraph["context"])[0]
        asked.append(
            {
                "article": article["title"],
                "question": qa["question"],
                "gold": [answer["text"] for answer in qa["answers"]],
                "text": best.text,
                "start": best.start,
                "end": best.end,
                "score": best.score,
            }
        )
    print(json.dumps(asked, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
