"""Fine-tuning for question answering: a plain loop as tutorials write it, against ours.

    python benchmarks/finetune_speed.py --model ENCODER --data train-v1.1.json [--rounds 2]

The plain loop: windows in random order, each batch padded to its longest, the library's model as it loads, autocast to
bf16, AdamW as torch makes it. Ours: `edge_distil.tasks.finetuning` with its defaults, and the same with one of its
measures left out at a time. Every contender runs in a process of its own, rounds take turns. What is counted are
examples per second over a stretch of batches that holds short and long windows in the data's proportions, after
steps that are not counted. Writes `benchmarks/results/finetune-speed.json` and the table of docs/tasks.md.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import result_files
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForQuestionAnswering, TrainerCallback

from edge_distil import cpu
from edge_distil.models import load_model, supports_bf16
from edge_distil.report.tables import markdown
from edge_distil.tasks import finetuning
from edge_distil.tasks.finetuning import FineTuning, fine_tune
from edge_distil.tasks.spans import SpanFeatures
from edge_distil.tasks.squad import read_squad
from edge_distil.tokenization import load_tokenizer

BATCH = 16
# The library's length grouping sorts so many batches at a time: a whole stretch holds all lengths.
STRETCH = 50
PLAIN_STEPS, WARM_UP = 20, 3
CONTENDERS = {
    "plain loop": "",
    "ours": "",
    "ours, batches of any length": "group_by_length",
    "ours, the library's attention and dropout": "attention",
}


def plain_steps(model_folder: Path, features: SpanFeatures) -> Iterator[int]:
    """The plain loop's steps; yields the examples of each."""
    torch.manual_seed(0)
    model = AutoModelForQuestionAnswering.from_pretrained(model_folder).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    order = random.Random(0).sample(range(len(features)), len(features))
    for first in range(0, len(order), BATCH):
        indices = order[first : first + BATCH]
        rows = [torch.tensor(features.ids[index]) for index in indices]
        ids_BL = pad_sequence(rows, batch_first=True, padding_value=features.special.pad)
        types = [
            (torch.arange(len(row)) >= features.windows[i].context_start).long()
            for i, row in zip(indices, rows, strict=True)
        ]
        starts_B, ends_B = torch.tensor([features.gold[index] for index in indices]).T
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=supports_bf16()):
            loss = model(
                input_ids=ids_BL,
                attention_mask=(ids_BL != features.special.pad).long(),
                token_type_ids=pad_sequence(types, batch_first=True),
                start_positions=starts_B,
                end_positions=ends_B,
            ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield len(indices)


def measure_plain(model_folder: Path, features: SpanFeatures, steps: int) -> list[tuple[int, float]]:
    """Examples and seconds of each step after the first few."""
    timed = []
    running = plain_steps(model_folder, features)
    for number in range(WARM_UP + steps):
        begun = time.perf_counter()
        examples = next(running)
        if number >= WARM_UP:
            timed.append((examples, time.perf_counter() - begun))
    return timed


def measure_ours(model_folder: Path, features: SpanFeatures, without: str) -> list[tuple[int, float]]:
    """Examples and seconds of each step of the second stretch, all that `fine_tune` does between them included."""
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    class Timed(finetuning.FineTuningTrainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.add_callback(Clock())

    options = FineTuning(max_steps=2 * STRETCH, batch_size=BATCH)
    if without == "group_by_length":
        options = replace(options, group_by_length=False)
    model = load_model(model_folder, "question-answering", new_head=True)
    patches = [mock.patch.object(finetuning, "FineTuningTrainer", Timed)]
    if without == "attention":
        patches.append(mock.patch.object(cpu, "prepare"))
    for patch in patches:
        patch.start()
    fine_tune(model, features, options)
    return [(BATCH, end - begin) for begin, end in zip(ends[STRETCH - 1 :], ends[STRETCH:], strict=False)]


def main() -> None:
    """Measure all contenders in turn, write the result and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="BERT encoder folder")
    parser.add_argument("--data", type=Path, required=True, help="SQuAD file")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--one", choices=CONTENDERS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    features = SpanFeatures(read_squad(given.data), load_tokenizer(given.model))
    if given.one:
        plain = given.one == "plain loop"
        timed = (
            measure_plain(given.model, features, PLAIN_STEPS)
            if plain
            else measure_ours(given.model, features, CONTENDERS[given.one])
        )
        print(json.dumps(timed))
        return
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in CONTENDERS}
    by_round: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for number in range(given.rounds):
        # What a measure brings is asked once, what all of them bring in every round.
        for name in CONTENDERS if number == 0 else list(CONTENDERS)[:2]:
            command = [sys.executable, __file__, "--one", name, "--model", str(given.model), "--data", str(given.data)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            timed = json.loads(done.stdout.splitlines()[-1])
            found[name] += timed
            by_round[name].append(_pace(timed))
            print(f"{name}: {by_round[name][-1]:.1f} examples/s", file=sys.stderr)
    lengths = [len(ids) for ids in features.ids]
    rows = [
        {
            "contender": name,
            "examples_per_second": _pace(timed),
            "seconds_per_step": sum(seconds for _, seconds in timed) / len(timed),
            "steps": len(timed),
        }
        for name, timed in found.items()
    ]
    result = result_files.write(
        "finetune-speed",
        command=result_files.command_line(),
        configuration={
            "threads": torch.get_num_threads(),
            "batch": BATCH,
            "windows": len(lengths),
            "mean_tokens": sum(lengths) / len(lengths),
        },
        seeds=[0],
        runs=[
            {"contender": name, "round": number, "examples_per_second": pace}
            for name, paces in by_round.items()
            for number, pace in enumerate(paces)
        ],
        results={"rows": rows},
    )
    result_files.write_blocks(blocks(result))


def blocks(result: dict[str, Any]) -> result_files.Blocks:
    """What the document holds of the result file."""
    return {("docs/tasks.md", "finetune-speed"): table(result["results"]["rows"])}


def _pace(timed: list[tuple[int, float]]) -> float:
    return sum(examples for examples, _ in timed) / sum(seconds for _, seconds in timed)


def table(rows: list[dict[str, Any]]) -> str:
    """Examples per second, seconds a step, and against the plain loop."""
    plain = rows[0]["examples_per_second"]
    cells = [
        [
            row["contender"],
            f"{row['examples_per_second']:.1f}",
            f"{row['seconds_per_step']:.2f}",
            f"{row['examples_per_second'] / plain:.2f}",
        ]
        for row in rows
    ]
    return markdown(("", "examples/s", "s a step", "× plain loop"), cells)


if __name__ == "__main__":
    main()
