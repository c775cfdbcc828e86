"""Training on a corpus: the step does not depend on how it is cut, and a run that is killed loses nothing."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from edge_distil import stages
from edge_distil.distillation.corpus_trainer import CorpusTraining
from edge_distil.distillation.trainer import LossWeights
from edge_distil.errors import UserError
from edge_distil.unfinished import UnfinishedRun

# Exact in what the curve and the weights are: dropout on, a warm-up and a decay, two passes over the blocks.
OPTIONS: dict[str, Any] = {"batch_size": 4, "max_steps": 24, "dropout": 0.1, "learning_rate": 1e-3, "warmup": 0.2}


def train(output: Path, teacher: Path, corpus: Path, **changes: Any) -> dict[str, Any]:
    keys = {"resume", "overwrite", "weights", "config"}
    stage = {key: changes.pop(key) for key in keys & changes.keys()}
    options = {**OPTIONS, **changes}
    return stages.train(
        output,
        teacher=str(teacher),
        corpus=[corpus],
        block_length=64,
        training=CorpusTraining(**options),
        **{"weights": LossWeights(), "config": {"options": str(options)}, **stage},
    )


def curve(folder: Path) -> list[dict[str, float]]:
    """The metrics without the clock's."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same_run(one: Path, other: Path) -> None:
    assert curve(one) == curve(other)
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, weights(other)[name]), name


# How a step is cut


@pytest.mark.parametrize("ce_on", ["all", "masked"])
def test_the_gradient_does_not_depend_on_how_the_step_is_cut(
    tmp_path: Path, bert_mlm: Path, corpus_file: Path, ce_on: Any
) -> None:
    options = {"precision": "fp32", "dropout": 0.0, "weights": LossWeights(alpha_mse=0.1, ce_on=ce_on)}
    curves = []
    for micro_batch in (4, 1):
        output = tmp_path / str(micro_batch)
        train(output, bert_mlm, corpus_file, micro_batch=micro_batch, **options)
        curves.append(curve(output))
    for whole, cut in zip(*curves, strict=True):
        assert whole["tokens"] == cut["tokens"]
        for name in ("loss", "ce", "mlm", "cos", "mse", "grad_norm"):
            assert cut[name] == pytest.approx(whole[name], rel=1e-4), name
    assert curves[1][0]["grad_norm"] == pytest.approx(curves[0][0]["grad_norm"], rel=1e-5)


def test_a_step_that_cannot_be_cut_evenly_is_refused(tmp_path: Path, bert_mlm: Path, corpus_file: Path) -> None:
    with pytest.raises(UserError, match="--batch-size 4 cannot be cut"):
        train(tmp_path / "out", bert_mlm, corpus_file, micro_batch=3)


MANY: list[Any] = ["--block-length", 64, "--batch-size", 4, "--max-steps", 20, "--precision", "fp32"]
MANY += ["--dropout", 0, "--learning-rate", 1e-3]


def on_two(*program: Any, settings: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program in two processes that know each other."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={_free_port()}"]
    command = [str(part) for part in [*launcher, *program]]
    environment = {**os.environ, **(settings or {})}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def assert_same_curve(one: Path, other: Path) -> None:
    """Equal but for the order of sums."""
    for left, right in zip(curve(one), curve(other), strict=True):
        assert left["tokens"] == right["tokens"]
        for name in ("loss", "ce", "mlm", "cos", "grad_norm"):
            assert right[name] == pytest.approx(left[name], rel=1e-4), name


def test_two_processes_give_the_curve_of_one(tmp_path: Path, bert_mlm: Path, corpus_file: Path) -> None:
    common = ["train", "--teacher", bert_mlm, "--corpus", corpus_file, *MANY]
    _run([sys.executable, "-m", "edge_distil", *common, "--output", tmp_path / "one"])
    done = on_two("-m", "edge_distil", *common, "--output", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert_same_curve(tmp_path / "one", tmp_path / "two")
    assert not list(tmp_path.glob("*.unfinished"))


def test_a_model_sharded_over_two_processes_is_trained_saved_and_resumed_as_on_one(
    tmp_path: Path, bert_mlm: Path, corpus_file: Path
) -> None:
    common = ["train", "--teacher", bert_mlm, "--corpus", corpus_file, *MANY]
    _run([sys.executable, "-m", "edge_distil", *common, "--output", tmp_path / "one"])
    sharded = [Path(__file__).with_name("fsdp_on_cpu.py"), *common, "--output", tmp_path / "two", "--resume"]
    fsdp = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}
    fsdp |= {"FSDP_TRANSFORMER_CLS_TO_WRAP": "TransformerBlock", "PYTHONPATH": str(Path(__file__).parent.parent)}
    cut = on_two(*sharded, settings={**fsdp, "STOP_AFTER": "10"})
    assert "stopped by SIGTERM after step 10 of 20, which is saved" in cut.stderr
    resumed = on_two(*sharded, settings=fsdp)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_curve(tmp_path / "one", tmp_path / "two")
    for name, tensor in weights(tmp_path / "one").items():
        assert weights(tmp_path / "two")[name] == pytest.approx(tensor, abs=1e-4), name


# Killed and resumed


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_cut_off_and_resumed_is_the_uninterrupted_one(
    tmp_path: Path, bert_mlm: Path, corpus_file: Path, monkeypatch: pytest.MonkeyPatch, precision: Any
) -> None:
    train(tmp_path / "whole", bert_mlm, corpus_file, precision=precision)
    steps = _Stops(monkeypatch)
    # In the middle of a metrics line's steps, on its end, and right after the pass over the blocks began anew.
    for stop_after in (7, 10, 17):
        steps.stop_after(stop_after)
        with pytest.raises(UserError, match=f"stopped by SIGTERM after step {stop_after} of 24, which is saved"):
            train(tmp_path / "cut", bert_mlm, corpus_file, precision=precision, resume=True)
        assert not (tmp_path / "cut").exists()
    steps.stop_after(None)
    train(tmp_path / "cut", bert_mlm, corpus_file, precision=precision, resume=True)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    assert not UnfinishedRun(tmp_path / "cut").folder.exists()


def test_kill_9_at_random_moments_loses_nothing(tmp_path: Path, bert_mlm: Path, corpus_file: Path) -> None:
    command = [sys.executable, "-m", "edge_distil", "train", "--teacher", bert_mlm, "--corpus", corpus_file]
    command += ["--block-length", 64, "--batch-size", 4, "--max-steps", 60, "--dropout", 0.1, "--save-minutes", 0]
    begun = time.monotonic()
    _run([*command, "--output", tmp_path / "whole"])
    duration = time.monotonic() - begun
    moments = random.Random(0)
    for _ in range(2):
        process = subprocess.Popen([str(part) for part in [*command, "--output", tmp_path / "cut", "--resume"]])
        time.sleep(moments.uniform(0.5, 1.0) * duration)
        process.kill()
        process.wait()
    if not (tmp_path / "cut").exists():
        _run([*command, "--output", tmp_path / "cut", "--resume"])
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_sigterm_saves_and_says_how_to_go_on(tmp_path: Path, bert_mlm: Path, corpus_file: Path) -> None:
    command = [sys.executable, "-m", "edge_distil", "train", "--teacher", bert_mlm, "--corpus", corpus_file]
    command += ["--block-length", 64, "--batch-size", 4, "--max-steps", 100000, "--output", tmp_path / "out"]
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)
    metrics = UnfinishedRun(tmp_path / "out").metrics_file
    deadline = time.monotonic() + 120
    while not metrics.is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "error: stopped by SIGTERM after step" in stderr
    assert "hint: go on with --resume" in stderr
    assert "Traceback" not in stderr
    assert UnfinishedRun(tmp_path / "out").latest() is not None


def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, bert_mlm: Path, corpus_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "whole", bert_mlm, corpus_file)
    steps = _Stops(monkeypatch)
    for stop_after in (6, 12):
        steps.stop_after(stop_after)
        with pytest.raises(UserError, match="stopped by"):
            train(tmp_path / "cut", bert_mlm, corpus_file, resume=True)
    steps.stop_after(None)
    run = UnfinishedRun(tmp_path / "cut")
    newest = run.latest()
    assert newest is not None
    assert newest.name == "checkpoint-12"
    with (newest / "optimizer.safetensors").open("r+b") as file:
        file.truncate(1000)
    train(tmp_path / "cut", bert_mlm, corpus_file, resume=True)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_old_checkpoints_rotate_and_nothing_is_pickled(
    tmp_path: Path, bert_mlm: Path, corpus_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _Stops(monkeypatch).stop_after(9)
    with pytest.raises(UserError, match="stopped by"):
        train(tmp_path / "out", bert_mlm, corpus_file, save_minutes=0.0)
    run = UnfinishedRun(tmp_path / "out")
    assert sorted(path.name for path in run.folder.glob("checkpoint-*")) == ["checkpoint-8", "checkpoint-9"]
    suffixes = {path.suffix for path in run.folder.rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".jsonl", ".safetensors", ".yaml"}


def test_a_finished_run_is_not_done_again(tmp_path: Path, bert_mlm: Path, corpus_file: Path) -> None:
    first = train(tmp_path / "out", bert_mlm, corpus_file)
    before = (tmp_path / "out" / "edge_distil.json").stat().st_mtime_ns
    again = train(tmp_path / "out", bert_mlm, corpus_file, resume=True)
    assert again["metrics"] == first["metrics"]
    assert (tmp_path / "out" / "edge_distil.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="already holds an earlier result"):
        train(tmp_path / "out", bert_mlm, corpus_file, resume=True, config={"seed": 1})


def test_no_pass_over_the_corpus_is_refused() -> None:
    with pytest.raises(UserError, match="leaves nothing to train"):
        CorpusTraining(epochs=0.0)


# What stops a run


def test_an_unfinished_run_is_neither_lost_nor_mixed_up(
    tmp_path: Path, bert_mlm: Path, corpus_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = _Stops(monkeypatch)
    steps.stop_after(5)
    with pytest.raises(UserError, match="stopped by"):
        train(tmp_path / "out", bert_mlm, corpus_file, config={"seed": 0})
    with pytest.raises(UserError, match="holds an unfinished run"):
        train(tmp_path / "out", bert_mlm, corpus_file, config={"seed": 0})
    with pytest.raises(UserError, match="was begun with seed 0, not 1"):
        train(tmp_path / "out", bert_mlm, corpus_file, config={"seed": 1}, resume=True)
    assert UnfinishedRun(tmp_path / "out").latest() is not None
    steps.stop_after(None)
    train(tmp_path / "out", bert_mlm, corpus_file, config={"seed": 1}, overwrite=True)
    assert curve(tmp_path / "out")[0]["step"] == 10


def test_a_loss_that_is_no_number_stops_the_run_before_it_is_saved(
    tmp_path: Path, bert_mlm: Path, corpus_file: Path
) -> None:
    with pytest.raises(UserError, match=r"is (nan|inf) at step"):
        train(tmp_path / "out", bert_mlm, corpus_file, learning_rate=1e30, warmup=0.0, save_minutes=0.0)
    checkpoint = UnfinishedRun(tmp_path / "out").latest()
    assert checkpoint is None or all(w.isfinite().all() for w in weights(checkpoint).values())
    assert not (tmp_path / "out").exists()


def test_a_disk_that_cannot_be_written_leaves_the_checkpoints_before_it(
    tmp_path: Path, bert_mlm: Path, corpus_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves: list[int] = []
    write = UnfinishedRun.save

    def fill_up(run: UnfinishedRun, step: int, fill: Callable[[Path], None]) -> None:
        def full(folder: Path) -> None:
            fill(folder)
            if len(saves) > 2:
                raise OSError(28, "No space left on device")

        saves.append(step)
        write(run, step, full)

    monkeypatch.setattr(UnfinishedRun, "save", fill_up)
    with pytest.raises(UserError, match="cannot be written: No space left on device"):
        train(tmp_path / "out", bert_mlm, corpus_file, save_minutes=0.0)
    run = UnfinishedRun(tmp_path / "out")
    newest = run.latest()
    assert newest is not None
    assert newest.name == "checkpoint-2"
    assert not list(run.folder.glob(".*"))


# The curve of a short run


def test_the_golden_curve(tmp_path: Path, bert_mlm: Path, corpus_file: Path) -> None:
    train(tmp_path / "out", bert_mlm, corpus_file, precision="fp32", dropout=0.0)
    found = [(row["step"], row["ce"], row["mlm"], row["cos"]) for row in curve(tmp_path / "out")]
    for row, expected in zip(found, GOLDEN, strict=True):
        assert row == pytest.approx(expected, rel=1e-3)


# Step, L_ce, L_mlm, L_cos: recorded from this code, so that a change of the mathematics does not go by unseen.
GOLDEN = [
    (10, 0.510803, 8.519368, 0.199115),
    (20, 0.092073, 8.420549, 0.107395),
    (24, 0.061690, 8.351640, 0.083531),
]


class _Stops:
    """Sends this process SIGTERM after a given step of a run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from edge_distil.distillation import corpus_trainer

        self.after: int | None = None
        on_step_end = corpus_trainer._Steps.on_step_end

        def stopping(steps: Any, args: Any, state: Any, control: Any, **rest: Any) -> None:
            if state.global_step == self.after:
                os.kill(os.getpid(), signal.SIGTERM)
            on_step_end(steps, args, state, control, **rest)

        monkeypatch.setattr(corpus_trainer._Steps, "on_step_end", stopping)

    def stop_after(self, step: int | None) -> None:
        self.after = step


def _run(command: list[Any]) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def _free_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
