"""Table 3 of Sanh et al. (2019): parameters, and the time of a full pass over the STS-B dev set, one pair at a time.

    python benchmarks/model_size.py --pairs glue/STS-B/dev.tsv --tokenizer encoder
    python benchmarks/model_size.py --pairs glue/STS-B/dev.tsv --tokenizer bert --bert bert --distilbert distilbert

Without --bert and --distilbert the models have the true shapes and random weights: the arithmetic, and so the time,
is the same. The two take turns on every pair, tokenised beforehand, in fp32 by torch.
"""

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import result_files
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
)

from edge_distil.console import progress
from edge_distil.models import resolve
from edge_distil.report.tables import markdown
from edge_distil.runtimes.torch import TorchRuntime
from edge_distil.tasks.classification import encode
from edge_distil.tasks.texts import GLUE, read_examples
from edge_distil.tokenization import load_tokenizer

# Millions of parameters and seconds, on a Xeon E5-2690 v3.
PAPER = {"BERT-base": (110, 668), "DistilBERT": (66, 410)}
MAX_LENGTH = 128
WARMUP = 20


def load(folder: Path | None, config: Any, architecture: type[PreTrainedModel]) -> PreTrainedModel:
    """A model with one output from a folder, or one of the shape with random weights."""
    if folder:
        return AutoModelForSequenceClassification.from_pretrained(folder, use_safetensors=True).eval()
    torch.manual_seed(0)
    return architecture(config).eval()


def main() -> None:
    """Measure, and write the result file and the page's table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=Path, required=True, help="STS-B's dev.tsv")
    parser.add_argument(
        "--tokenizer", type=resolve, required=True, help="a folder with tokenizer.json, or hf://owner/name"
    )
    parser.add_argument("--bert", type=resolve, help="a BERT-base that was fine-tuned on STS-B")
    parser.add_argument("--distilbert", type=resolve, help="a DistilBERT that was fine-tuned on STS-B")
    parser.add_argument("--passes", type=int, default=3, help="full passes of each model")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()

    torch.set_num_threads(given.threads)
    runtimes = {
        name: TorchRuntime(load(folder, config, architecture), given.tokenizer)
        for name, folder, config, architecture in (
            ("BERT-base", given.bert, BertConfig(num_labels=1), BertForSequenceClassification),
            ("DistilBERT", given.distilbert, DistilBertConfig(num_labels=1), DistilBertForSequenceClassification),
        )
    }
    examples = read_examples(given.pairs, GLUE["sts-b"])
    pairs = [np.array([ids]) for ids in encode(examples, load_tokenizer(given.tokenizer), MAX_LENGTH)]
    seconds: dict[str, list[list[float]]] = {name: [] for name in runtimes}
    for runtime in runtimes.values():
        for ids in pairs[:WARMUP]:
            runtime(ids, np.ones_like(ids))
    with progress("passes", given.passes * len(pairs)) as advance:
        for number in range(given.passes):
            for times in seconds.values():
                times.append([])
            for index, ids in enumerate(pairs):
                names = list(runtimes)
                for name in names if (index + number) % 2 else reversed(names):
                    began = time.perf_counter()
                    runtimes[name](ids, np.ones_like(ids))
                    seconds[name][-1].append(time.perf_counter() - began)
                advance()
    result = result_files.write(
        "model-size",
        command=result_files.command_line(),
        configuration={"threads": given.threads, "passes": given.passes},
        runs=[
            {"model": name, "pass": number, "seconds": sum(times)}
            for name, passes in seconds.items()
            for number, times in enumerate(passes, start=1)
        ],
        results={
            "threads": given.threads,
            "pairs": len(pairs),
            "mean_tokens": float(np.mean([ids.shape[1] for ids in pairs])),
            "models": [
                {
                    "model": name,
                    "random_weights": (given.bert if name == "BERT-base" else given.distilbert) is None,
                    "parameters": runtime.model.num_parameters(),
                    "seconds": median(sum(times) for times in seconds[name]),
                    "median_ms": 1000 * median(each for times in seconds[name] for each in times),
                }
                for name, runtime in runtimes.items()
            ],
        },
    )
    result_files.write_blocks(blocks(result))


def blocks(result: dict[str, Any]) -> result_files.Blocks:
    """What the document holds of the result file."""
    return {("docs/model-size.md", "model-size"): table(result)}


def table(result: dict[str, Any]) -> str:
    """The paper's figures beside ours."""
    paper_bert, bert = PAPER["BERT-base"][1], result["results"]["models"][0]["seconds"]
    machine = result["machine"]
    rows = [
        [
            row["model"],
            f"{PAPER[row['model']][0]} / {PAPER[row['model']][1]} ({PAPER[row['model']][1] / paper_bert:.2f})",
            f"{row['parameters'] / 1e6:.1f} / {row['seconds']:.1f} ({row['seconds'] / bert:.2f})",
            ("random weights of the true shape, " if row["random_weights"] else "")
            + f"{machine['processor']}, {result['results']['threads']} threads",
        ]
        for row in result["results"]["models"]
    ]
    return markdown(("model", "paper: M parameters / s (× BERT)", "ours", "what differs"), rows)


if __name__ == "__main__":
    main()
