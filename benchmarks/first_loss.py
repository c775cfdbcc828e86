"""How near to its teacher a student starts, by initialisation: the losses of the first step, before any learning.

    python benchmarks/first_loss.py [--teacher FOLDER --corpus FILE]

Without options: the starter teacher and test corpus. Prints a Markdown table.
"""

import argparse
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from edge_distil import starter
from edge_distil.corpus.masking import Masking, collate
from edge_distil.corpus.prepare import from_documents
from edge_distil.corpus.stream import Stream
from edge_distil.corpus.text import Skips, read_documents
from edge_distil.distillation.student import student_of
from edge_distil.distillation.trainer import Distillation, LossWeights
from edge_distil.models import load_model
from edge_distil.report.tables import markdown
from edge_distil.tokenization import load_tokenizer
from edge_distil.training import prepare

DOCUMENTS, BLOCKS, LENGTH, PART = 200, 64, 128, 8
STARTS: dict[str, dict[str, Any]] = {
    "folded": {},
    "dropped": {"fold_token_types": False},
    "random weights": {"init": "random"},
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", type=Path, default=starter.teacher_folder("masked-lm"))
    parser.add_argument("--corpus", type=Path)
    given = parser.parse_args()
    teacher, tokenizer = load_model(given.teacher, "masked-lm"), load_tokenizer(given.teacher)
    documents = islice(read_documents([given.corpus], Skips()), DOCUMENTS) if given.corpus else starter.corpus("test")
    blocks = from_documents(documents, tokenizer, LENGTH)
    stream = Stream(blocks, Masking(tokenizer, blocks.token_counts), items=BLOCKS, seed=0)
    parts = [collate([stream[item] for item in range(first, first + PART)]) for first in range(0, BLOCKS, PART)]
    counts = {
        "tokens": torch.tensor(sum(len(part["order"]) for part in parts)),
        "masked": torch.tensor(sum(len(part["labels"]) for part in parts)),
    }
    prepare(teacher)
    rows = []
    for name, options in STARTS.items():
        torch.manual_seed(0)
        student = student_of(teacher, **options)
        prepare(student, dropout=0.0)
        module = Distillation(student, teacher, LossWeights())
        with torch.no_grad():
            found = [module(**part, **counts) for part in parts]
        losses = [sum(part[loss].item() for part in found) for loss in ("ce", "mlm", "cos")]
        rows.append([name, *(f"{loss:.3f}" for loss in losses)])
    print(f"{BLOCKS} of {len(blocks)} blocks of {LENGTH}, {int(counts['tokens']):,} tokens\n")
    print(markdown(("start", "L_ce", "L_mlm", "L_cos"), rows))


if __name__ == "__main__":
    main()
