"""Wall times of single calls, contenders taking turns, with and without tokenisation."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median, median_low
from typing import Any

import numpy as np
import torch

from edge_distil.checkpoints import versions
from edge_distil.errors import UserError
from edge_distil.machine import describe_machine
from edge_distil.runtimes import Runtime
from edge_distil.tasks.squad import MAX_LENGTH, Question, windows
from edge_distil.tokenization import fitting_length, load_tokenizer, pad, special_tokens

# [CLS], a question of half the input and two [SEP] leave room for one token of context, and for none below this.
_MIN_TOKENS = 7
# On an idle machine the 90th percentile stays within a few percent of the median when all inputs are of one length.
_BUSY_SPREAD = 1.25


@dataclass(frozen=True, slots=True)
class Contender:
    """A model to time in one runtime. `model` is its name in the results, such as "BERT-base".

    `random_weights` says that the model was never trained: its times count, its answers do not.
    """

    model: str
    runtime: Runtime
    random_weights: bool = False


@dataclass(frozen=True, slots=True)
class _Call:
    """One timed call: the input's length in tokens, and the seconds of each part."""

    tokens: int
    text_to_logits: float
    ids_to_logits: float


def measure(
    contenders: Sequence[Contender],
    questions: Sequence[Question],
    *,
    threads: int,
    tokens: int | None = None,
    max_length: int = MAX_LENGTH,
    repeats: int = 5,
    warmup: int = 3,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int], None] = lambda calls_done: None,
) -> list[dict[str, Any]]:
    """Time every contender on every question, `repeats` times, one question a call (batch 1).

    `tokens` pads or cuts every input to one length; None leaves each question at its own length, up to `max_length`. A
    runtime that takes some lengths alone gets the least of them that holds the question. A question whose context takes
    several windows is run on the first one only: one question, one call.

    The contenders take turns on each question, and the first turn moves on with every question and every repeat: what
    else the machine does meanwhile hits all of them alike. Each contender first runs `warmup` calls that are not
    counted. `threads` bounds torch's threads while measuring; other runtimes are given theirs when they are opened.

    Every call is timed twice over with `clock` (seconds): from text to logits, which includes tokenising, cutting into
    windows and padding, and from token ids to logits, the runtime alone, which is what the paper compares on a phone
    (Sanh et al., 2019, "On device computation"). Choosing the answer's span is in neither.

    `progress` is told of each call; there are `len(contenders) * (warmup + repeats * len(questions))`.

    Returns one row for each contender from text (`tokenization` true), then one for each from ids (false):
    `model`, `runtime`, `precision`, `tokens` (the length of an input, the lower median where they differ),
    `tokenization`, `median_ms`, `p90_ms` (90th percentile, linearly interpolated), `ratio` (its median over the first
    contender's with the same `tokenization`), `calls` and `random_weights`.

    Raises `UserError` for fewer than 7 tokens, for `tokens` that a runtime does not take, for less than
    one repeat, and where a tokeniser or a question cannot be used.
    """
    if repeats < 1:
        raise UserError(f"{repeats} repeats leave nothing to measure", "give --repeats 1 or more")
    timed = [_timer(contender, tokens, max_length, clock) for contender in contenders]
    calls: list[list[_Call]] = [[] for _ in contenders]
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for time_call in timed:
            for index in range(warmup):
                time_call(questions[index % len(questions)])
                progress(1)
        for turn, question in _turns(len(contenders), questions, repeats):
            calls[turn].append(timed[turn](question))
            progress(1)
    finally:
        torch.set_num_threads(threads_before)
    return [row for tokenization in (True, False) for row in _rows(contenders, calls, tokenization)]


def _timer(
    contender: Contender, tokens: int | None, max_length: int, clock: Callable[[], float]
) -> Callable[[Question], _Call]:
    """A function that runs one question from its text to the contender's logits and times both parts."""
    runtime = contender.runtime
    lengths = runtime.lengths
    if tokens and lengths is not None and tokens not in lengths:
        is_range = len(lengths) > 2 and lengths[-1] - lengths[0] == len(lengths) - 1
        taken = f"{lengths[0]} to {lengths[-1]}" if is_range else ", ".join(map(str, lengths))
        raise UserError(
            f"{contender.model}: this {runtime.name} model takes inputs of {taken} tokens, not {tokens}",
            f"give --tokens {fitting_length(tokens, lengths)}, or export it for {tokens}",
        )
    longest = tokens or fitting_length(max_length, lengths)
    if longest < _MIN_TOKENS:
        raise UserError(
            f"inputs of {longest} tokens have no room for a question and a context",
            f"give {_MIN_TOKENS} tokens or more",
        )
    tokenizer = load_tokenizer(runtime.folder)
    pad_id = special_tokens(tokenizer).pad

    def time_call(question: Question) -> _Call:
        began = clock()
        first_window = windows([question], tokenizer, max_length=longest)[0]
        ids_BL, mask_BL = pad([first_window.input_ids], pad_id, (tokens,) if tokens else lengths)
        prepared = clock()
        runtime(ids_BL, mask_BL)
        ended = clock()
        return _Call(ids_BL.shape[1], text_to_logits=ended - began, ids_to_logits=ended - prepared)

    return time_call


def _turns(contenders: int, questions: Sequence[Question], repeats: int) -> Iterator[tuple[int, Question]]:
    """Who runs what, in order: (index of the contender, question)."""
    for repeat in range(repeats):
        for index, question in enumerate(questions):
            for turn in range(contenders):
                yield (turn + index + repeat) % contenders, question


def _rows(
    contenders: Sequence[Contender], calls: Sequence[Sequence[_Call]], tokenization: bool
) -> Iterator[dict[str, Any]]:
    seconds = [
        [call.text_to_logits if tokenization else call.ids_to_logits for call in of_contender] for of_contender in calls
    ]
    for contender, of_contender, times in zip(contenders, calls, seconds, strict=True):
        yield {
            "model": contender.model,
            "runtime": contender.runtime.name,
            "precision": contender.runtime.precision,
            "tokens": median_low(call.tokens for call in of_contender),
            "tokenization": tokenization,
            "median_ms": 1000 * median(times),
            "p90_ms": 1000 * float(np.percentile(times, 90)),
            "ratio": median(times) / median(seconds[0]),
            "calls": len(times),
            "random_weights": contender.random_weights,
        }


def report(
    results: Sequence[dict[str, Any]], *, threads: int, questions: int, tokens: int | None = None
) -> dict[str, Any]:
    """What `bench --json` prints: the rows of `measure`, and all that is needed to read them later.

    `machine`, `versions`, `threads`, `questions` (how many were asked), `tokens` (as given to `measure`), `results`,
    and `warnings`: one line for each contender whose 90th percentile is 1.25 times its median or more, because the
    machine was busy. With `tokens` None there are none: times of different lengths spread on an idle machine too.
    """
    return {
        "machine": describe_machine(),
        "versions": versions(),
        "threads": threads,
        "questions": questions,
        "tokens": tokens,
        "results": list(results),
        "warnings": [
            f"{row['model']} ({row['runtime']} {row['precision']}): the 90th percentile is "
            f"{row['p90_ms'] / row['median_ms']:.2f} times the median: the machine was busy, measure again"
            for row in results
            # The runtime alone: tokenising takes longer for longer texts even when inputs are padded to one length.
            if tokens and not row["tokenization"] and row["p90_ms"] >= _BUSY_SPREAD * row["median_ms"]
        ],
    }
