"""Contenders in processes of their own, taking turns.

In one process the threads of one runtime take the cores from another's, and neither memory nor loading time is of one
contender alone. So each has a fresh Python, is opened there while the others sleep, and stays open: this process tells
one at a time to run one question, and waits.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edge_distil.bench.latency import Call, Measured, check_tokens, rows, take_turns
from edge_distil.bench.setups import Setup
from edge_distil.checkpoints import check_length, read_json, usable_positions
from edge_distil.errors import UserError
from edge_distil.signals import first_signal, postponed_signals
from edge_distil.tasks.squad import MAX_LENGTH, Question

# So long idle threads go on turning in the hope of work, by the OpenMP that torch brings, before they sleep.
_PAUSE_SECONDS = 0.005


def check_threads(threads: int, cores: int) -> None:
    """Refuse more threads than this process has cores: they would take turns on them. Raises `UserError`."""
    if threads > cores:
        raise UserError(f"--threads {threads}: is more than there are cores, {cores}", f"give {cores} or fewer")


def stopped_once() -> contextlib.AbstractContextManager[None]:
    """Let the first SIGTERM or SIGINT end the block, and none after it: what ends is then cleaned up undisturbed.

    `timeout` sends two, and Ctrl-C is soon pressed twice. For the main thread alone.
    """

    def stop(number: int) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    return first_signal(stop, ignore_more=True)


def cpus_for(threads: int) -> list[int]:
    """The cores that so many threads are kept on, where the system can: the first of those that this process has."""
    return sorted(os.sched_getaffinity(0))[:threads] if hasattr(os, "sched_getaffinity") else []


class Worker:
    """One contender's process, from its start to `end`. Calling it runs one question."""

    def __init__(self, setup: Setup, *, threads: int, cpus: Sequence[int], scratch: Path) -> None:
        """Start it and wait until its model is open. Raises `UserError` where it cannot be opened."""
        self.setup = setup
        environment = os.environ | {
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), str(threads)),
            "TOKENIZERS_PARALLELISM": "true",
            # What was compiled for an earlier run would make a first call look short.
            "TORCHINDUCTOR_CACHE_DIR": str(scratch / "compiled"),
        }
        self._log = (scratch / f"{id(self)}.log").open("w+", encoding="utf-8", errors="replace")
        conditions = json.dumps({"threads": threads, "cpus": list(cpus)})
        with contextlib.ExitStack() as fault:
            # Stopped half-way, Popen would leave a process that nobody knows of.
            with postponed_signals():
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "edge_distil.bench.worker", json.dumps(setup.as_json()), conditions],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._log,
                    env=environment,
                    text=True,
                    encoding="utf-8",
                    # What it starts, such as compilers, ends with it, and Ctrl-C is for this process.
                    start_new_session=True,
                )
                fault.callback(self.kill)
            self.opened = self._answer()
            fault.pop_all()  # from here on its owner ends it

    def prepare(self, questions: Sequence[Question], tokens: int | None) -> None:
        """Hand it the questions that its calls name by their index."""
        texts = [(question.question, question.context) for question in questions]
        self._ask({"questions": texts, "tokens": tokens, "max_length": MAX_LENGTH})

    def __call__(self, question: int) -> Call:
        return Call(**self._ask({"call": question}))

    def end(self) -> dict[str, Any]:
        """Its peak memory; the process has ended then."""
        found = self._ask({"end": True})
        self._process.wait()
        return found

    def kill(self) -> None:
        """End it and what it started, whatever they do. Harmless where it has ended."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        self._log.close()

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # that it has died shows in the answer
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._log.seek(0)
            said = [line.strip() for line in self._log if line.strip()]
            ended = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
            hint = "free memory, or measure fewer models" if status == -9 else "leave it out with --runtime"
            raise UserError(f"{self.setup}: its process {ended}{f': {said[-1]}' if said else ''}", hint)
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            self._process.wait()
            where = "" if self.setup.model in found["error"] else f"{self.setup}: "
            raise UserError(f"{where}{found['error']}", found["hint"])
        return found


def measure_apart(
    setups: Sequence[Setup],
    questions: Sequence[Question],
    *,
    threads: int,
    scratch: Path,
    tokens: int | None = None,
    repeats: int = 5,
    warmup: int = 3,
    seed: int = 0,
    strict: bool = False,
    note: Callable[[str], None] = lambda line: None,
    progress: Callable[[int], None] = lambda calls_done: None,
) -> dict[str, Any]:
    """Time every setup on every question, each in a process of its own, taking turns as `take_turns` says.

    `tokens` pads or cuts every input to one length; 0 leaves each question at its own; None takes 384, or the longest
    below it that all models take. What cannot be opened here, such as a runtime that is not installed, is left out;
    with `strict` that is an error. All are open at once: memory has to hold them. `scratch` is a folder for logs.

    Returns `tokens`, `cpus` that the threads were kept on (None where the system cannot), `input` ("question", or
    "input" where not every model answers questions), `left_out` (`model`,
    `runtime`, `precision`, `reason`), `unsteady` (who did not warm up), and `results`: the rows of
    `edge_distil.bench.latency.rows`, each with `device`, `compute_units` (Core ML), `load_ms` (opening the model in a
    fresh process, its runtime's imports included), `first_call_ms`, `peak_bytes` of resident memory after all calls,
    `device_peak_bytes` (CUDA) and `bytes` on disk. Raises `UserError` where nothing can be measured.
    """
    cpus = cpus_for(threads)
    workers: list[Worker] = []
    left_out: list[dict[str, Any]] = []
    if tokens:  # before anything is opened
        for setup in setups:
            check_tokens(setup.model, setup.runtime, None, tokens)
            if (Path(setup.folder) / "config.json").is_file():
                check_length(Path(setup.folder), tokens, "--tokens")
    try:
        for setup in setups:
            note(f"opening {setup}")
            _check_memory(setup)
            try:
                workers.append(Worker(setup, threads=threads, cpus=cpus, scratch=scratch))
            except UserError as fault:
                if strict or len(setups) == 1:
                    raise
                reason = fault.message.removeprefix(f"{setup}: ")
                left_out.append(
                    {"model": setup.model, "runtime": setup.runtime, "precision": setup.precision, "reason": reason}
                )
                note(f"left out: {setup}: {reason}")
        if not workers:
            raise UserError(f"none of the {len(setups)} contenders can be opened: {left_out[0]['reason']}", "see above")
        chosen = _length(workers) if tokens is None else tokens or None
        for worker in workers:
            if chosen:
                check_tokens(worker.setup.model, worker.setup.runtime, worker.opened["lengths"], chosen)
            worker.prepare(questions, chosen)
        note(f"warming up {len(workers)} contender{'s' if len(workers) > 1 else ''}")
        measured = take_turns(
            workers,
            len(questions),
            repeats=repeats,
            warmup=warmup,
            pause=lambda: time.sleep(_PAUSE_SECONDS),
            progress=progress,
        )
        ends = [worker.end() for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    results = rows([_named(worker) for worker in workers], measured, len(questions), seed=seed)
    costs = [_costs(*each) for each in zip(workers, measured, ends, strict=True)]
    return {
        "tokens": chosen,
        "cpus": cpus or None,
        "input": "question" if all("start_logits" in worker.opened["outputs"] for worker in workers) else "input",
        "left_out": left_out,
        "unsteady": [str(worker.setup) for worker, each in zip(workers, measured, strict=True) if not each.is_steady],
        "results": [{**row, **costs[index % len(workers)]} for index, row in enumerate(results)],
    }


def _named(worker: Worker) -> dict[str, Any]:
    setup = worker.setup
    return {
        "model": setup.model,
        "runtime": setup.runtime,
        "precision": worker.opened["precision"],
        "device": setup.device,
        **({"compute_units": setup.compute_units} if setup.compute_units else {}),
        "random_weights": setup.random_weights,
    }


def _costs(worker: Worker, measured: Measured, end: dict[str, Any]) -> dict[str, Any]:
    return {
        "load_ms": 1000 * worker.opened["load_s"],
        "first_call_ms": 1000 * measured.first_call if measured.warmup else None,
        "peak_bytes": end["peak_bytes"],
        **({"device_peak_bytes": end["device_peak_bytes"]} if end["device_peak_bytes"] is not None else {}),
        "bytes": worker.setup.bytes,
    }


def _length(workers: Sequence[Worker]) -> int:
    """384 tokens, or the longest below it that every model takes; the shortest above it where there is none."""
    longest = MAX_LENGTH
    for worker in workers:
        path = Path(worker.setup.folder) / "config.json"
        config = read_json(path) if path.is_file() else None
        if isinstance(config, dict) and isinstance(config.get("max_position_embeddings"), int):
            longest = min(longest, usable_positions(config))
    fixed = [set(worker.opened["lengths"]) for worker in workers if worker.opened["lengths"] is not None]
    if not fixed:
        return longest
    common = set.intersection(*fixed)
    if not common:
        raise UserError(
            "the models take no length in common",
            "give --tokens 0: each question is then padded to the least length that a model takes",
        )
    return max((length for length in common if length <= longest), default=min(common))


def _check_memory(setup: Setup) -> None:
    """Refuse to open one more model where memory is short: a machine that swaps measures its disk. Linux alone says."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return
    fields = dict(line.split(":", 1) for line in lines)
    available = 1024 * int(fields["MemAvailable"].split()[0])
    # A runtime may hold weights twice while it loads, and brings up to half a gigabyte of libraries.
    needed = 2 * setup.bytes + 5 * 10**8
    if available < needed:
        raise UserError(
            f"{setup}: {available / 1e9:.1f} GB of memory are free, opening it beside the others may take "
            f"{needed / 1e9:.1f} GB",
            "give fewer models, or fewer runtimes with --runtime",
        )
