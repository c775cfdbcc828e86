"""One step of general distillation: the original recipe's, literally, against ours.

    python benchmarks/train_step.py --corpus textbooks.txt.gz [--lengths 128 512] [--rounds 3]

BERT-base teacher and DistilBERT student by shape, random weights, real text. The recipe's step is what the published
description says, done in the plainest way: fp32, one paragraph a row, padded to the longest of the batch, the whole
vocabulary's logits of both models. Ours is the toolkit's own, with L_ce on every token and on the masked ones alone.
Every contender has a process of its own, so that peak memory is its own; rounds take turns. Writes
`benchmarks/results/train-step.json`, the table of docs/training.md and that of the published setting's cost in
docs/scale.md.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import result_files
import torch
from tokenizers import Tokenizer
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import BertConfig, BertForMaskedLM, DistilBertForMaskedLM, PreTrainedModel

from edge_distil import cpu, training
from edge_distil.corpus.masking import Masking, collate
from edge_distil.corpus.prepare import from_documents
from edge_distil.corpus.stream import Stream
from edge_distil.corpus.text import Skips, read_documents
from edge_distil.distillation.student import student_of
from edge_distil.distillation.trainer import Distillation, LossWeights
from edge_distil.models import supports_bf16
from edge_distil.report.tables import markdown
from edge_distil.tokenization import special_tokens

PUBLISHED_TOKENS = 13e9  # of docs/scale.md: three passes over Wikipedia and a book corpus
# Ours by the tokens that L_ce counts; "in parts": one block at a time, the gradient summed over the step.
CONTENDERS = ("recipe", "every token", "masked tokens", "every token, in parts", "masked tokens, in parts")
DOCUMENTS = 300
WARM_UP = 3  # steps that are not counted: memory is still being allocated
PADDED_VOCABULARY = 30522


def models() -> tuple[PreTrainedModel, PreTrainedModel]:
    """A BERT-base and a DistilBERT, by shape."""
    torch.manual_seed(0)
    teacher = BertForMaskedLM(BertConfig(vocab_size=PADDED_VOCABULARY))
    return teacher, student_of(teacher)


def recipe_steps(documents: list[str], tokenizer: Tokenizer, length: int, batch: int, device: str) -> Iterator[int]:
    """The recipe's steps; yields the real tokens of each."""
    teacher, student = models()
    assert isinstance(student, DistilBertForMaskedLM)
    teacher.eval().to(device)
    student.train().to(device)
    optimizer = torch.optim.AdamW(student.parameters(), lr=5e-4)
    special = special_tokens(tokenizer)
    paragraphs = [line for document in documents for line in document.split("\n")]
    rows = [
        torch.tensor([special.cls, *encoding.ids[: length - 2], special.sep])
        for encoding in tokenizer.encode_batch(paragraphs, add_special_tokens=False)
        if len(encoding.ids) > 8
    ]
    generator = torch.Generator().manual_seed(0)
    for first in range(0, len(rows) - batch, batch):
        ids_BL = pad_sequence(rows[first : first + batch], batch_first=True, padding_value=special.pad)
        mask_BL = ids_BL != special.pad
        ordinary_BL = mask_BL & (ids_BL != special.cls) & (ids_BL != special.sep)
        chosen_BL = ordinary_BL & (torch.rand(ids_BL.shape, generator=generator) < 0.15)
        labels_BL = ids_BL.where(chosen_BL, -100)
        ids_BL, mask_BL, labels_BL = (
            tensor.to(device) for tensor in (ids_BL.where(~chosen_BL, special.mask), mask_BL, labels_BL)
        )
        theirs = student(ids_BL, attention_mask=mask_BL, output_hidden_states=True)
        with torch.no_grad():
            teachers = teacher(ids_BL, attention_mask=mask_BL, output_hidden_states=True)
        student_NV, teacher_NV = theirs.logits[mask_BL], teachers.logits[mask_BL]
        soft = F.kl_div(F.log_softmax(student_NV / 2, dim=-1), F.softmax(teacher_NV / 2, dim=-1), reduction="batchmean")
        mlm = F.cross_entropy(theirs.logits.flatten(0, 1), labels_BL.flatten())
        hidden = [output.hidden_states[-1][mask_BL] for output in (theirs, teachers)]
        cos = F.cosine_embedding_loss(*hidden, torch.ones(len(hidden[0]), device=device))
        (5 * 4 * soft + 2 * mlm + cos).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        yield int(mask_BL.sum())


def our_steps(
    documents: list[str], tokenizer: Tokenizer, length: int, batch: int, device: str, *, ce_on: str, part: int
) -> Iterator[int]:
    """The toolkit's steps, without the loop around them; yields the real tokens of each."""
    training.keep_freed_memory()
    teacher, student = models()
    for model in (teacher, student):
        training.prepare(model)
    module = Distillation(student, teacher.to(device), LossWeights(ce_on=ce_on), bf16=supports_bf16())  # type: ignore[arg-type]
    module.train().to(device)
    optimizer = torch.optim.AdamW(module.model.parameters(), lr=5e-4, fused=True)
    blocks = from_documents(documents, tokenizer, length)
    stream = Stream(blocks, Masking(tokenizer, blocks.token_counts), items=10**6, seed=0)
    for first in range(0, len(stream), batch):
        blocks_of_step = [stream[item] for item in range(first, first + batch)]
        parts = [collate(blocks_of_step[begin : begin + part]) for begin in range(0, batch, part)]
        tokens = sum(len(rows["order"]) for rows in parts)
        masked = sum(len(rows["labels"]) for rows in parts)
        counts = {"tokens": torch.tensor(tokens, device=device), "masked": torch.tensor(masked, device=device)}
        for rows in parts:
            with torch.autocast(device, dtype=torch.bfloat16, enabled=supports_bf16()):
                loss = module(**{name: value.to(device) for name, value in rows.items()}, **counts)["loss"]
            loss.backward()
        clip = cpu.clip_gradients if device == "cpu" else torch.nn.utils.clip_grad_norm_
        clip(module.model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        yield tokens


def measure(contender: str, corpus: Path, tokenizer: Path, length: int, batch: int, steps: int) -> dict[str, object]:
    """Tokens and seconds of each step after the first few, and the process' peak memory."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    documents = list(islice(read_documents([corpus], Skips()), DOCUMENTS))
    used = Tokenizer.from_file(str(tokenizer))
    used.no_padding()
    used.no_truncation()
    step: Callable[..., Iterator[int]] = recipe_steps if contender == "recipe" else our_steps
    options: dict[str, object] = {}
    if contender != "recipe":
        options["ce_on"] = "all" if contender.startswith("every token") else "masked"
        options["part"] = 1 if contender.endswith("in parts") else batch
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    timed = []
    running = step(documents, used, length, batch, device, **options)
    for number in range(WARM_UP + steps):
        begun = time.perf_counter()
        tokens = next(running)
        if device == "cuda":
            torch.cuda.synchronize()
        if number >= WARM_UP:
            timed.append((tokens, time.perf_counter() - begun))
    peak = (
        torch.cuda.max_memory_allocated()
        if device == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    return {"steps": timed, "peak_bytes": peak, "bytes_before": before * 1024, "device": device}


def main() -> None:
    """Measure all contenders in turn, write the result and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="text file, e.g. textbooks.txt.gz")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json of BERT's uncased vocabulary")
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--batch", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--one", choices=CONTENDERS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given.corpus, given.tokenizer, given.lengths[0], given.batch, given.steps)))
        return
    rows: list[dict] = []
    steps: list[dict] = []
    for length in given.lengths:
        found: dict[str, list[dict]] = {name: [] for name in CONTENDERS}
        for _ in range(given.rounds):
            for name in CONTENDERS:
                command = [
                    sys.executable, __file__, "--one", name, "--corpus", given.corpus, "--tokenizer", given.tokenizer,
                    "--lengths", length, "--batch", given.batch, "--steps", given.steps,
                ]  # fmt: skip
                done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
                found[name].append(json.loads(done.stdout.splitlines()[-1]))
                print(length, name, done.stdout.splitlines()[-1], file=sys.stderr)
        for name, runs in found.items():
            # Over all steps: how much of a recipe's step is padding differs from one to the next.
            timed = [step for run in runs for step in run["steps"]]
            named = {"contender": name, "length": length}
            steps += [{**named, "tokens": tokens, "seconds": round(seconds, 4)} for tokens, seconds in timed]
            rows.append(
                {
                    "contender": name,
                    "length": length,
                    "batch": given.batch,
                    "tokens_per_second": sum(tokens for tokens, _ in timed) / sum(seconds for _, seconds in timed),
                    "peak_bytes": statistics.median(run["peak_bytes"] for run in runs),
                    "device": runs[0]["device"],
                }
            )
    result = result_files.write(
        "train-step",
        command=result_files.command_line(),
        configuration={"batch": given.batch, "rounds": given.rounds, "steps": given.steps},
        seeds=[0],
        runs=steps,
        results={"rows": rows},
    )
    result_files.write_blocks(blocks(result))


def blocks(result: dict) -> result_files.Blocks:
    """The steps compared, and how long ours would take for the published setting."""
    rows = result["results"]["rows"]
    whole = {row["contender"]: row["tokens_per_second"] for row in rows if row["length"] == 512}
    cost = [
        [name, f"{whole[name]:,.0f}", f"{PUBLISHED_TOKENS / whole[name] / 86400:,.0f} days"]
        for name in ("every token", "masked tokens")
    ]
    cost_table = markdown(("L_ce on", "tokens per second", "13 billion tokens"), cost)
    return {("docs/training.md", "train-step"): table(rows), ("docs/scale.md", "cost"): cost_table}


def table(rows: list[dict]) -> str:
    """Tokens per second, peak memory, and both against the recipe's step at the same length."""
    base = {row["length"]: row for row in rows if row["contender"] == "recipe"}
    cells = [
        [
            str(row["length"]),
            row["contender"],
            f"{row['tokens_per_second']:,.0f}",
            f"{row['tokens_per_second'] / base[row['length']]['tokens_per_second']:.2f}",
            f"{row['peak_bytes'] / 1e9:.2f} GB",
            f"{row['peak_bytes'] / base[row['length']]['peak_bytes']:.2f}",
        ]
        for row in rows
    ]
    return markdown(("tokens", "step", "tokens/s", "× recipe", "peak memory", "× recipe"), cells)


if __name__ == "__main__":
    main()
