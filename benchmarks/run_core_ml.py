"""What running a Core ML package with torch costs, and how far its logits are from the checkpoint's.

    python benchmarks/run_core_ml.py [--tokens 384] [--repeats 3] [--threads 2]

A model of DistilBERT's shape with random weights is converted to a package of fp16. The checkpoint in torch, fp32, and
the package, its results rounded to fp16 and not, take turns in one process, batch 1. Writes
`benchmarks/results/run-core-ml.json` and the table of docs/run-core-ml-anywhere.md.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import result_files

from edge_distil import starter
from edge_distil.bench import Contender, measure, random_model
from edge_distil.report.tables import markdown
from edge_distil.runtimes.mil import PACKAGES, MilRuntime
from edge_distil.runtimes.torch import TorchRuntime
from edge_distil.tasks.squad import parse_squad
from edge_distil.tokenization import special_tokens
from exporters.coreml import CoreMLPlan, write_package
from exporters.encoder import PlainEncoder
from exporters.gate import decibels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=384)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    tokenizer = starter.build_tokenizer()
    questions = parse_squad(starter.questions("test", passages=2), "starter set, test")[:8]
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tokenizer.save(str(folder / "tokenizer.json"))
        model = random_model("distilbert")
        plain = PlainEncoder.from_library(model, special_tokens(tokenizer).sep)
        write_package(plain, folder / PACKAGES["fp16"], CoreMLPlan(lengths=(given.tokens,)))
        contenders = {
            "the checkpoint in torch, fp32": TorchRuntime(model, folder),
            "the package, rounded to fp16": MilRuntime(folder, rounding="fp16"),
            "the package, not rounded": MilRuntime(folder, rounding="fp32"),
        }
        rows = measure(
            [Contender(name, runtime, random_weights=True) for name, runtime in contenders.items()],
            questions,
            threads=given.threads,
            tokens=given.tokens,
            repeats=given.repeats,
        )
        ids_1L = np.random.default_rng(0).integers(5, tokenizer.get_vocab_size(), (1, given.tokens))
        logits = {name: runtime(ids_1L, np.ones_like(ids_1L)) for name, runtime in contenders.items()}
    expected = next(iter(logits.values()))["start_logits"]
    runs = [{"model": row["model"], "times_ms": row.pop("times_ms")} for row in rows if not row["tokenization"]]
    results = [
        {**row, "decibels": decibels(expected, logits[row["model"]]["start_logits"] - expected)}
        for row in rows
        if not row["tokenization"]
    ]
    result = result_files.write(
        "run-core-ml",
        command=result_files.command_line(),
        configuration={"threads": given.threads, "tokens": given.tokens, "repeats": given.repeats},
        seeds=[0],
        runs=runs,
        results={"rows": results},
    )
    result_files.write_blocks(blocks(result))


def blocks(result: dict[str, Any]) -> result_files.Blocks:
    """What the document holds of the result file."""
    cells = [
        [
            row["model"],
            f"{row['median_ms']:.0f}",
            f"{row['p90_ms']:.0f}",
            f"{row['ratio']:.2f}",
            f"{row['decibels']:.0f} dB" if row["decibels"] < 200 else "",
        ]
        for row in result["results"]["rows"]
    ]
    header = ("", "median ms", "p90 ms", "of torch's", "start logits to the checkpoint's")
    return {("docs/run-core-ml-anywhere.md", "run-core-ml"): markdown(header, cells)}


def prose(result: dict[str, Any]) -> result_files.Prose:
    """What the document says of the machine below the table."""
    cores, torch = result["machine"]["cores"], result["versions"]["torch"].partition("+")[0]
    return {"docs/run-core-ml-anywhere.md": [f"{cores}-core Intel Xeon with AMX, torch {torch}, two threads"]}


if __name__ == "__main__":
    main()
