"""Kills a training run with SIGKILL at random moments, resumes it each time, and compares it with one left alone.

    python benchmarks/kill_and_resume.py [--kills 20] [--precision bf16]

The starter teacher and corpus, dropout on. Writes to `benchmarks/results/kill-and-resume-PRECISION.json` what each kill
left, and whether the final weights and every line of the loss curve are bit-identical.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import result_files

from edge_distil.checkpoints import sha256_file
from edge_distil.unfinished import UnfinishedRun

STEPS = 900


def command(output: Path, precision: str) -> list[str]:
    """A run of about a minute on two cores, which writes a checkpoint every second or so."""
    options: dict[str, Any] = {
        "batch-size": 4, "max-steps": STEPS, "block-length": 128, "dropout": 0.1, "precision": precision,
        "save-minutes": 0.01, "output": output,
    }  # fmt: skip
    given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return [sys.executable, "-m", "edge_distil", "train", "--resume", *given]


def checkpoints(output: Path) -> set[str]:
    """Names of the checkpoints of an unfinished run."""
    return {path.name for path in UnfinishedRun(output).folder.glob("checkpoint-*")}


def curve(folder: Path) -> list[dict[str, float]]:
    """The loss curve without the clock."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def main() -> None:
    """Run, kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    given = parser.parse_args()
    moments = random.Random(0)
    with TemporaryDirectory() as scratch:
        whole, cut = Path(scratch) / "whole", Path(scratch) / "cut"
        begun = time.monotonic()
        subprocess.run(command(whole, given.precision), check=True)
        duration = time.monotonic() - begun
        kills: list[dict[str, Any]] = []
        while len(kills) < given.kills and not cut.exists():
            before = checkpoints(cut)
            process = subprocess.Popen(command(cut, given.precision), stderr=subprocess.DEVNULL)
            # Three in four once it has written a checkpoint, the others while it starts.
            starting = moments.random() < 0.25
            while not starting and checkpoints(cut) == before and process.poll() is None:
                time.sleep(0.01)
            wait = moments.uniform(0.0, 8.0 if starting else 3.0)
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
            process.wait()
            latest = UnfinishedRun(cut).latest()
            half_written = [path.name for path in UnfinishedRun(cut).folder.glob(".checkpoint-*")]
            kills.append(
                {
                    "starting": starting,
                    "seconds": round(wait, 2),
                    "kept": latest.name if latest else None,
                    "half_written": half_written,
                }
            )
            print(kills[-1], flush=True)
        if not cut.exists():
            subprocess.run(command(cut, given.precision), check=True)
        weights = [sha256_file(folder / "model.safetensors") for folder in (whole, cut)]
        curves = [curve(folder) for folder in (whole, cut)]
        results = {
            "uninterrupted_seconds": round(duration, 1),
            "same_weights": weights[0] == weights[1],
            "same_curve": curves[0] == curves[1],
            "left_behind": sorted(path.name for path in Path(scratch).iterdir() if path not in (whole, cut)),
        }
    result_files.write(
        "kill-and-resume",
        name=f"kill-and-resume-{given.precision}",
        command=result_files.command_line(),
        configuration={"precision": given.precision, "steps": STEPS, "kills": given.kills},
        seeds=[0],
        runs=kills,
        results=results,
    )
    print(json.dumps({name: results[name] for name in ("same_weights", "same_curve", "left_behind")}))


if __name__ == "__main__":
    main()
