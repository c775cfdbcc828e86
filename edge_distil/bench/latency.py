"""Wall times of single calls, contenders taking turns, with and without tokenisation."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, median_low
from typing import Any

from edge_distil.bench import statistics
from edge_distil.checkpoints import versions
from edge_distil.errors import UserError
from edge_distil.machine import describe_machine
from edge_distil.runtimes import Runtime
from edge_distil.tasks.squad import MAX_LENGTH, Question, windows
from edge_distil.tokenization import fitting_length, load_tokenizer, pad, special_tokens

# [CLS], a question of half the input and two [SEP] leave room for one token of context, and for none below this.
_MIN_TOKENS = 7
# A contender is warm once the medians of two groups of calls are so near to each other. Not all of them get there.
_GROUP, _STEADY, _MOST_GROUPS = 3, 0.05, 10


@dataclass(frozen=True, slots=True)
class Contender:
    """A model to time in one runtime. `model` is its name in the results, such as "BERT-base".

    `random_weights` says that the model was never trained: its times count, its answers do not.
    """

    model: str
    runtime: Runtime
    random_weights: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """One timed call: the input's length in tokens, and the seconds of each part."""

    tokens: int
    text_to_logits: float
    ids_to_logits: float


# A contender that is ready: runs the question of this index, batch 1, and says how long it took.
Timed = Callable[[int], Call]


@dataclass(slots=True)
class Measured:
    """The calls of one contender in the order of its turns, after `warmup` calls that are not among them."""

    calls: list[Call] = field(default_factory=list)
    warmup: int = 0
    is_steady: bool = True
    first_call: float = 0.0


def measure(
    contenders: Sequence[Contender],
    questions: Sequence[Question],
    *,
    threads: int,
    tokens: int | None = None,
    max_length: int = MAX_LENGTH,
    repeats: int = 5,
    warmup: int = 3,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int], None] = lambda calls_done: None,
) -> list[dict[str, Any]]:
    """Time every contender on every question in this process. `edge_distil.bench.processes` has one for each.

    `tokens` pads or cuts every input to one length; None leaves each question at its own length, up to `max_length`. A
    runtime that takes some lengths alone gets the least of them that holds the question. A question whose context takes
    several windows is run on the first one only: one question, one call. A text classifier gets the same input, as a
    pair of texts.

    `threads` bounds torch's threads while measuring; other runtimes are given theirs when they are opened. `repeats`,
    `warmup` and `progress` are those of `take_turns`, `seed` and the rows those of `rows`. `clock` gives seconds.

    Raises `UserError` for fewer than 7 tokens, for `tokens` that a runtime does not take, for less than
    one repeat, and where a tokeniser or a question cannot be used.
    """
    timed = [
        timer(contender.model, contender.runtime, questions, tokens, max_length=max_length, clock=clock)
        for contender in contenders
    ]
    torch = sys.modules.get("torch")
    threads_before = torch.get_num_threads() if torch else 0
    if torch:
        torch.set_num_threads(threads)
    try:
        measured = take_turns(timed, len(questions), repeats=repeats, warmup=warmup, progress=progress)
    finally:
        if torch:
            torch.set_num_threads(threads_before)
    named = [
        {
            "model": contender.model,
            "runtime": contender.runtime.name,
            "precision": contender.runtime.precision,
            "random_weights": contender.random_weights,
        }
        for contender in contenders
    ]
    return rows(named, measured, len(questions), seed=seed)


def check_tokens(model: str, runtime: str, lengths: Sequence[int] | None, tokens: int) -> None:
    """Refuse a length that a runtime does not take, or that has no room. Raises `UserError`."""
    if lengths is not None and tokens not in lengths:
        is_range = len(lengths) > 2 and lengths[-1] - lengths[0] == len(lengths) - 1
        taken = f"{lengths[0]} to {lengths[-1]}" if is_range else ", ".join(map(str, lengths))
        raise UserError(
            f"{model}: this {runtime} model takes inputs of {taken} tokens, not {tokens}",
            f"give --tokens {fitting_length(tokens, lengths)}, or export it for {tokens}",
        )
    if tokens < _MIN_TOKENS:
        raise UserError(
            f"--tokens {tokens}: inputs have no room for a question and a context",
            f"give {_MIN_TOKENS} tokens or more",
        )


def timer(
    model: str,
    runtime: Runtime,
    questions: Sequence[Question],
    tokens: int | None,
    *,
    max_length: int = MAX_LENGTH,
    clock: Callable[[], float] = time.perf_counter,
    synchronize: Callable[[], None] = lambda: None,
) -> Timed:
    """A function that runs one of the questions from its text to the runtime's logits and times both parts.

    From text to logits includes tokenising, cutting into windows and padding; from token ids to logits is the runtime
    alone, which is what the paper compares on a phone (Sanh et al., 2019, "On device computation"). Choosing the
    answer's span is in neither. `synchronize` waits for a device that works on while Python goes ahead.
    """
    lengths = runtime.lengths
    longest = tokens or fitting_length(max_length, lengths)
    check_tokens(model, runtime.name, lengths, longest)
    tokenizer = load_tokenizer(runtime.folder)
    pad_id = special_tokens(tokenizer).pad

    def time_call(index: int) -> Call:
        synchronize()
        began = clock()
        first_window = windows([questions[index]], tokenizer, max_length=longest)[0]
        ids_BL, mask_BL = pad([first_window.input_ids], pad_id, (tokens,) if tokens else lengths)
        prepared = clock()
        runtime(ids_BL, mask_BL)
        synchronize()
        ended = clock()
        return Call(ids_BL.shape[1], text_to_logits=ended - began, ids_to_logits=ended - prepared)

    return time_call


def take_turns(
    timed: Sequence[Timed],
    questions: int,
    *,
    repeats: int,
    warmup: int,
    pause: Callable[[], None] = lambda: None,
    progress: Callable[[int], None] = lambda calls_done: None,
) -> list[Measured]:
    """Run every question `repeats` times by every contender, one question a call (batch 1).

    The contenders take turns on each question, and the first turn moves on with every question and every repeat: what
    else the machine does meanwhile hits all of them alike. `pause` stands between two calls.

    Before that each is warmed up by itself, unless `warmup` is 0: every question once and no fewer than `warmup`
    calls, so that each length has been seen; then three calls of the first question at a time, until the median of
    three is within 5 % of that of the three before, ten times at most.

    `progress` is told of each counted call; there are `len(timed) * repeats * questions`. Raises `UserError` for less
    than one repeat.
    """
    if repeats < 1:
        raise UserError(f"{repeats} repeats leave nothing to measure", "give --repeats 1 or more")
    measured = [_warmed_up(time_call, questions, warmup) for time_call in timed]
    for turn, question in _turns(len(timed), questions, repeats):
        pause()
        measured[turn].calls.append(timed[turn](question))
        progress(1)
    return measured


def _warmed_up(time_call: Timed, questions: int, least: int) -> Measured:
    if least == 0:
        return Measured()
    calls = [time_call(index % questions) for index in range(max(least, questions))]
    before = None
    for _ in range(_MOST_GROUPS):
        group = [time_call(0) for _ in range(_GROUP)]
        calls += group
        middle = median(call.ids_to_logits for call in group)
        if before is not None and abs(middle - before) <= _STEADY * before:
            break
        before = middle
    else:
        return Measured(warmup=len(calls), is_steady=False, first_call=calls[0].ids_to_logits)
    return Measured(warmup=len(calls), first_call=calls[0].ids_to_logits)


def _turns(contenders: int, questions: int, repeats: int) -> Iterator[tuple[int, int]]:
    """Who runs what, in order: (index of the contender, index of the question)."""
    for repeat in range(repeats):
        for question in range(questions):
            for turn in range(contenders):
                yield (turn + question + repeat) % contenders, question


def rows(
    named: Sequence[Mapping[str, Any]], measured: Sequence[Measured], questions: int, *, seed: int = 0
) -> list[dict[str, Any]]:
    """One row for each contender from text (`tokenization` true), then one for each from ids (false).

    Each is what `named` says of the contender, and: `tokens` (the length of an input, the lower median where they
    differ), `tokenization`, `median_ms`, `p90_ms` and `p99_ms` (linearly interpolated), `ratio` (its median over the
    first contender's with the same `tokenization`), `median_interval_ms` and `ratio_interval` ([low, high], 95 %, by
    bootstrap over `statistics.units`; None for fewer than four), `calls`, `times_ms` (of every call, question after
    question, repeat after repeat), `spread` (see `statistics.spread`) and `warmup`, the calls before that.
    """
    lengths = [[call.tokens for call in each.calls] for each in measured]
    one_length = all(tokens == lengths[0][0] for of_contender in lengths for tokens in of_contender)
    units_UK = statistics.units(len(lengths[0]), questions, one_length)
    made = []
    for tokenization in (True, False):
        first_D = first_median = None
        for name, each, tokens_T in zip(named, measured, lengths, strict=True):
            times_T = [1000 * (call.text_to_logits if tokenization else call.ids_to_logits) for call in each.calls]
            medians_D = statistics.resampled_medians(times_T, units_UK, seed=seed)
            if first_D is None or first_median is None:
                first_D, first_median = medians_D, median(times_T)
            made.append(
                {
                    **name,
                    "tokens": median_low(tokens_T),
                    "tokenization": tokenization,
                    "median_ms": median(times_T),
                    "p90_ms": statistics.percentile(times_T, 90),
                    "p99_ms": statistics.percentile(times_T, 99),
                    "ratio": median(times_T) / first_median,
                    "median_interval_ms": statistics.interval(medians_D, units_UK),
                    "ratio_interval": statistics.interval(medians_D / first_D, units_UK),
                    "calls": len(times_T),
                    "warmup": each.warmup,
                    "spread": statistics.spread(times_T, tokens_T),
                    "times_ms": times_T,
                }
            )
    return made


def report(
    results: Sequence[dict[str, Any]],
    *,
    threads: int,
    questions: int,
    tokens: int | None = None,
    conditions: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """What `bench --json` prints: the rows of `rows`, and all that is needed to read them later.

    `machine`, `versions`, `threads`, `questions` (how many were asked), `tokens` (as given to `measure`), what
    `conditions` has besides, `results`, and `warnings`: those given, and one line for each contender whose calls of
    one length spread: a tenth of them took 1.25 times the median or more, because the machine was busy.
    """
    busy = [
        f"{row['model']} ({row['runtime']} {row['precision']}): one call in ten took {row['spread']:.2f} times the "
        "median of its length or more: the machine was busy, measure again"
        for row in results
        # The runtime alone: tokenising takes longer for longer texts even when inputs are padded to one length.
        if not row["tokenization"] and row["spread"] is not None and row["spread"] >= statistics.BUSY_SPREAD
    ]
    return {
        "machine": describe_machine(),
        "versions": versions(),
        "threads": threads,
        "questions": questions,
        "tokens": tokens,
        **(conditions or {}),
        "results": list(results),
        "warnings": [*warnings, *busy],
    }
