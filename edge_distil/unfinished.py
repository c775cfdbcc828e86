"""The folder of a run that is not finished: its last checkpoints and its loss curve, kept beside its output.

`runs/student` is being trained in `runs/student.unfinished`, which vanishes when `runs/student` stands. A checkpoint in
it appears whole, with the checksum of every file, or not at all.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from edge_distil.checkpoints import new_folder, read_json, read_manifest, write_manifest
from edge_distil.console import note
from edge_distil.errors import UserError
from edge_distil.report.curves import tensorboard

_KEPT = 2
# These say how and where a run is done, not what it computes: they may change when it is resumed.
_FREE_OPTIONS = frozenset({"output", "resume", "save_minutes", "workers", "micro_batch"})


class UnfinishedRun:
    """The checkpoints and the metrics of one run. In a run of many processes only the first one writes."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.absolute().with_name(f"{output.absolute().name}.unfinished")
        self._add_events: Callable[[Mapping[str, float]], None] | None = None

    def begin(self, config: Mapping[str, Any], inputs: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
        """Make the folder, or check that the run that it holds is the one asked for.

        Raises `UserError` when there is a run that nobody asked to resume, or one of other options or inputs.
        """
        described = {"config": lasting(config), "inputs": json.loads(json.dumps(inputs))}
        path = self.folder / "run.json"
        if path.is_file() and not resume and not overwrite:
            raise UserError(
                f"{self.folder}: holds an unfinished run",
                "add --resume to go on with it, or --overwrite to start anew",
            )
        if path.is_file() and resume:
            self._check_same(read_json(path), described)
            for stale in self.folder.glob(".checkpoint-*"):
                shutil.rmtree(stale, ignore_errors=True)
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        with _said_plainly(self):
            self.folder.mkdir(parents=True)
            path.write_text(json.dumps(described, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            options = yaml.safe_dump(dict(config), sort_keys=False)
            (self.folder / "command.yaml").write_text(options, encoding="utf-8")

    def _check_same(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        for part in ("config", "inputs"):
            old, new = before.get(part, {}), now[part]
            differing = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
            if differing:
                name = differing[0]
                raise UserError(
                    f"{self.folder}: was begun with {name} {old.get(name)!r}, not {new.get(name)!r}",
                    f"resume it with --config {self.folder / 'command.yaml'}, or start anew with --overwrite",
                )

    def latest(self) -> Path | None:
        """The newest checkpoint that is whole; None where there is none. Damaged ones are passed over, with a note."""
        for folder in sorted(self.folder.glob("checkpoint-*"), key=_step_of, reverse=True):
            try:
                if read_manifest(folder) is not None:
                    return folder
                note(f"{folder}: has no manifest, passed over")
            except UserError as fault:
                note(f"{fault.message}: checkpoint passed over")
        return None

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Write the checkpoint of a step; `write` fills the folder that it is given. Older ones go, but for the last.

        Raises `UserError` when the disk is full or cannot be written: the checkpoints before it stand.
        """
        with _said_plainly(self):
            with new_folder(self.folder / f"checkpoint-{step}", overwrite=True) as folder:
                write(folder)
                write_manifest(
                    folder,
                    kind="training state",
                    task="masked-lm",
                    command="edge-distil",
                    config={},
                    inputs={},
                    measured={"step": step},
                )
            for old in sorted(self.folder.glob("checkpoint-*"), key=_step_of)[:-_KEPT]:
                shutil.rmtree(old)

    @property
    def metrics_file(self) -> Path:
        """One JSON object a line: the losses and the pace of every few steps."""
        return self.folder / "metrics.jsonl"

    def add_metrics(self, row: Mapping[str, Any]) -> None:
        """Append one line, and TensorBoard's events of it. Raises `UserError` as `save` does."""
        if self._add_events is None:
            shutil.rmtree(self.folder / "tensorboard", ignore_errors=True)
            self._add_events = tensorboard(self.folder / "tensorboard")
            for earlier in self.metrics():
                self._add_events(earlier)
        self._add_events(row)
        with _said_plainly(self), self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def metrics(self, last_step: int | None = None) -> list[dict[str, Any]]:
        """The lines so far. With `last_step`, those of later steps are dropped from the file: they will come again."""
        if not self.metrics_file.is_file():
            return []
        lines = self.metrics_file.read_text(encoding="utf-8").splitlines(keepends=True)
        # A run that was killed while it wrote may have left half a line, which is later than any checkpoint.
        rows = [json.loads(line) for line in lines if line.endswith("}\n")]
        if last_step is not None:
            rows = [row for row in rows if row["step"] <= last_step]
            beside = self.metrics_file.with_suffix(".new")
            beside.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            beside.replace(self.metrics_file)
        return rows

    def end(self) -> None:
        """Remove the folder: the output stands."""
        shutil.rmtree(self.folder, ignore_errors=True)


def lasting(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options that decide what a run computes, as JSON gives them back."""
    kept = {name: value for name, value in config.items() if name not in _FREE_OPTIONS}
    return json.loads(json.dumps(kept))


@contextmanager
def _said_plainly(run: UnfinishedRun) -> Iterator[None]:
    """A disk that cannot be written, told as the user's to mend."""
    try:
        yield
    except OSError as fault:
        raise UserError(
            f"{run.folder}: cannot be written: {fault.strerror or fault}",
            "make room or mend the folder, then go on with --resume: the checkpoints before it stand",
        ) from fault


def _step_of(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])
