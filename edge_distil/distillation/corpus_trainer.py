"""Training on a corpus: what pre-training and general distillation share, on one process or many.

A `transformers.Trainer` does the loop, the devices and the processes. Three things are done otherwise here:

* **Means are of the whole step.** A loss is summed over a micro-batch and divided by the tokens of all micro-batches on
  all processes, so that a step's gradient does not depend on how its blocks were cut.
* **Checkpoints are whole, safe and exact.** Safetensors and JSON, never pickle; a run that is resumed computes what it
  would have computed, bit for bit where the hardware does.
* **Metrics are ours**, summed since the last line, and the sum is part of the checkpoint.
"""

import json
import math
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor
from torch.utils.data import SequentialSampler
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from edge_distil import cpu, training
from edge_distil.console import progress
from edge_distil.corpus.masking import Masking, collate
from edge_distil.corpus.stream import Blocks, Stream
from edge_distil.errors import UserError
from edge_distil.models import supports_bf16
from edge_distil.report.curves import LOSSES
from edge_distil.signals import first_signal
from edge_distil.training import Processes, TrainedModel
from edge_distil.unfinished import UnfinishedRun

_FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)
_STATE = "state.json"
_PREFIX = "model."  # of the names of a `LossModule`'s weights
_LOG_EVERY = 10


@dataclass(frozen=True, slots=True)
class CorpusTraining:
    """How long and how fast to train on a corpus.

    `batch_size` counts the blocks of one step, over all processes and micro-batches: it decides what is computed.
    `micro_batch` counts those that one device has at a time (0: see `cut`): it decides what fits.
    `max_steps` above 0 overrides `epochs`; `warmup` is a fraction of all steps; `dropout` None keeps the model's own.
    Raises `UserError` where that makes no step.
    """

    epochs: float = 1.0
    max_steps: int = 0
    batch_size: int = 32
    micro_batch: int = 0
    learning_rate: float = 5e-4
    warmup: float = 0.05
    dropout: float | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: int = 0
    save_minutes: float = 10.0

    def __post_init__(self) -> None:
        training.check_duration(self.epochs, self.max_steps)

    @property
    def in_bf16(self) -> bool:
        """Whether matrix products run in bf16; "auto" takes it where the hardware has instructions for it."""
        return supports_bf16() if self.precision == "auto" else self.precision == "bf16"

    def stream(self, blocks: Blocks, masking: Masking) -> Stream:
        """The masked blocks that the run reads."""
        length = Stream(blocks, masking, items=0, seed=self.seed).epoch_length
        steps = self.max_steps or math.ceil(self.epochs * length / self.batch_size)
        return Stream(blocks, masking, items=steps * self.batch_size, seed=self.seed)

    def cut(self, processes: int, block_length: int) -> tuple[int, int]:
        """A step's blocks as (micro-batch, micro-batches on each process).

        Where no size is given: at most 32 blocks on a GPU, on a CPU so many as make 1,024 tokens. On two cores more was
        no faster, and took more memory. Raises `UserError` when a rest is left.
        """
        share, rest = divmod(self.batch_size, processes)
        most = 32 if torch.cuda.is_available() else max(1, 1024 // block_length)
        micro = self.micro_batch or next(size for size in range(min(share, most), 0, -1) if share % size == 0)
        if rest or share % micro:
            raise UserError(
                f"--batch-size {self.batch_size} cannot be cut into {processes} processes × --micro-batch {micro}",
                "choose a batch size that is a multiple of both",
            )
        return micro, share // micro


class LossModule(nn.Module):
    """A model together with its losses: the forward of one micro-batch, which `Trainer` spreads over devices.

    The forward takes what `corpus.masking.collate` gives, and the numbers of `tokens` and `masked` tokens of the whole
    step. It returns `loss` and, for looking at, its parts.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model


class CorpusTrainer(Trainer):
    """Trains a `LossModule` on a `Stream`."""

    def __init__(
        self, module: LossModule, args: TrainingArguments, stream: Stream, *, run: UnfinishedRun, save_minutes: float
    ) -> None:
        super().__init__(module, args, data_collator=collate, train_dataset=stream)
        # Says that `compute_loss` divides by the counts of `get_batch_samples` itself.
        self.model_accepts_loss_kwargs = True
        self.run = run
        self.stream = stream
        self.save_minutes = save_minutes
        self.tokens_seen = self.tokens_before = 0
        self.begun = self.seconds_before = 0.0
        self.learning_rate: Any = 0.0
        self.stopped_by: int | None = None
        self.sums: dict[str, torch.Tensor] = {}
        self.summed_steps = 0

    @property
    def schedule(self) -> torch.optim.lr_scheduler.LRScheduler:
        """The learning rate's schedule, which is there once training has begun."""
        assert self.lr_scheduler is not None
        return self.lr_scheduler

    @property
    def seconds(self) -> float:
        """Time spent in training, that of earlier parts of a resumed run included."""
        return self.seconds_before + time.monotonic() - self.begun

    def _get_train_sampler(self, *_: Any, **__: Any) -> SequentialSampler:
        return SequentialSampler(self.stream)  # the stream is shuffled already

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, torch.Tensor]], torch.Tensor]:
        """The micro-batches of one step, and the numbers of real and of masked tokens in them on all processes."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        counts = torch.tensor(
            [sum(len(batch["order"]) for batch in batches), sum(len(batch["labels"]) for batch in batches)],
            device=device,
        )
        counts = self.accelerator.reduce(counts, "sum")
        self.tokens_seen += int(counts[0])
        return batches, counts.clamp(min=1)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The module's loss. Times the number of processes, because gradients are averaged over them, not summed."""
        assert isinstance(num_items_in_batch, torch.Tensor)
        tokens, masked = num_items_in_batch
        outputs = model(**inputs, tokens=tokens, masked=masked)
        for name, value in outputs.items():
            self._add(name, value.detach())
        loss = outputs["loss"] * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _add(self, name: str, value: torch.Tensor) -> None:
        self.sums[name] = self.sums.get(name, torch.zeros((), device=value.device, dtype=torch.float64)) + value

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        if self.args.device.type == "cpu" and not self.is_fsdp_enabled:
            norm = cpu.clip_gradients(model.parameters(), self.args.max_grad_norm)
        else:
            norm = super()._clip_grad_norm(model)
        if isinstance(norm, DTensor):  # of FSDP's shards
            norm = norm.full_tensor()
        # The same on every process: each adds its share of the sum.
        self._add("grad_norm", torch.as_tensor(norm, device=self.args.device) / self.accelerator.num_processes)
        return norm

    def log_step(self) -> dict[str, float]:
        """Close the sums since the last line and write the line. Raises `UserError` when one is no number."""
        names = sorted(self.sums)
        sums = torch.stack([self.sums[name] for name in names])
        means = dict(zip(names, (self.accelerator.reduce(sums, "sum") / self.summed_steps).tolist(), strict=True))
        self._check_finite(means)
        row = {
            "step": self.state.global_step,
            "loss": means.pop("loss"),
            **means,
            "learning_rate": self.learning_rate,
            "tokens": self.tokens_seen,
            "seconds": round(self.seconds, 3),
        }
        if self.is_world_process_zero():
            self.run.add_metrics(row)
        self.sums, self.summed_steps = {}, 0
        return row

    def _check_finite(self, means: dict[str, float]) -> None:
        for name, value in means.items():
            if not math.isfinite(value):
                kept = self.run.latest()
                raise UserError(
                    f"{name} is {value} at step {self.state.global_step}",
                    "lower --learning-rate, or check the data; "
                    + (f"{kept} stands" if kept else "no checkpoint had been written yet"),
                )

    # Checkpoints: written by the first process, from what all of them give.

    def _save_checkpoint(self, *_: Any, **__: Any) -> None:
        if self.sums:
            self._check_finite({name: value.item() for name, value in self.sums.items()})
        module = self.accelerator.unwrap_model(self.model)
        weights = get_model_state_dict(self.model_wrapped, options=_FULL)
        optimizer: dict[str, Any] = get_optimizer_state_dict(self.model_wrapped, _bare(self.optimizer), options=_FULL)
        random = {"cpu": self.accelerator.gather(torch.get_rng_state().to(self.args.device)[None]).cpu()}
        if torch.cuda.is_available():
            random["cuda"] = self.accelerator.gather(torch.cuda.get_rng_state().to(self.args.device)[None]).cpu()
        names = sorted(self.sums)
        sums = torch.stack([self.sums[name] for name in names]) if names else torch.zeros(0, device=self.args.device)
        sums = self.accelerator.reduce(sums, "sum")
        if self.is_world_process_zero():
            tensors = {f"{name}/{k}": v for name, state in optimizer["state"].items() for k, v in state.items()}
            state = {
                "param_groups": optimizer["param_groups"],
                "schedule": {k: v for k, v in self.schedule.state_dict().items() if k != "lr_lambdas"},
                "sums": dict(zip(names, sums.tolist(), strict=True)),
                "summed_steps": self.summed_steps,
                "tokens_seen": self.tokens_seen,
                "seconds": self.seconds,
                "processes": self.accelerator.num_processes,
            }

            def write(folder: Path) -> None:
                student = {k.removeprefix(_PREFIX): v for k, v in weights.items() if k.startswith(_PREFIX)}
                module.model.save_pretrained(folder, state_dict=student)
                save_file(tensors, folder / "optimizer.safetensors")
                save_file(random, folder / "random.safetensors")
                (folder / _STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
                self.state.save_to_json(str(folder / "trainer_state.json"))

            self.run.save(self.state.global_step, write)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        wrapped: Any = model if model is not None else self.model
        module = self.accelerator.unwrap_model(wrapped)
        folder = Path(resume_from_checkpoint)
        files = sorted(folder.glob("model*.safetensors"))
        weights: dict[str, Any] = {f"{_PREFIX}{k}": v for file in files for k, v in load_file(file).items()}
        tied = {f"{_PREFIX}{name}" for name in getattr(module.model, "all_tied_weights_keys", {})}
        if (set(weights) ^ set(module.state_dict())) - tied:
            raise UserError(f"{folder}: does not hold this model", "start anew with --overwrite")
        set_model_state_dict(wrapped, weights, options=StateDictOptions(full_state_dict=True, strict=False))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        folder = Path(checkpoint)
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        of_parameters: dict[str, dict[str, torch.Tensor]] = {}
        for name, tensor in load_file(folder / "optimizer.safetensors").items():
            parameter, _, part = name.rpartition("/")
            of_parameters.setdefault(parameter, {})[part] = tensor
        saved: Any = {"state": of_parameters, "param_groups": state["param_groups"]}
        set_optimizer_state_dict(self.model_wrapped, _bare(self.optimizer), saved, options=_FULL)
        self.schedule.load_state_dict({**self.schedule.state_dict(), **state["schedule"]})
        shares = self.accelerator.num_processes
        self.sums = {
            name: torch.tensor(value / shares, device=self.args.device, dtype=torch.float64)
            for name, value in state["sums"].items()
        }
        self.summed_steps = state["summed_steps"]
        self.tokens_seen = self.tokens_before = state["tokens_seen"]
        self.seconds_before = state["seconds"]

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        random = load_file(Path(checkpoint) / "random.safetensors")
        process = self.accelerator.process_index
        if process < len(random["cpu"]):
            # Copies: torch 2.13 crashes on a state that is a view into a larger tensor.
            torch.set_rng_state(random["cpu"][process].clone())
            if "cuda" in random and torch.cuda.is_available():
                torch.cuda.set_rng_state(random["cuda"][process].clone())


class _Steps(TrainerCallback):
    """After each step: metrics, progress, checkpoints, and a stop where a signal asked for one."""

    def __init__(self, trainer: CorpusTrainer, advance: Any) -> None:
        self.trainer = trainer
        self.advance = advance
        self.saved = time.monotonic()

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.trainer.begun = self.saved = time.monotonic()

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.trainer.learning_rate = self.trainer.schedule.get_last_lr()[0]

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        trainer, now = self.trainer, time.monotonic()
        trainer.summed_steps += 1
        last = state.global_step >= state.max_steps
        self.advance()
        if last or state.global_step % _LOG_EVERY == 0:
            row = trainer.log_step()
            pace = (trainer.tokens_seen - trainer.tokens_before) / (now - trainer.begun)
            self.advance(0, status=f"loss {row['loss']:.3f}, {pace:,.0f} tokens/s")
        wanted = torch.tensor(
            [trainer.stopped_by is not None, now - self.saved >= 60 * trainer.save_minutes], device=args.device
        )
        # A signal may have reached one process alone, and their clocks differ: any one decides for all.
        stop, due = trainer.accelerator.reduce(wanted.int(), "sum").tolist()
        if last or stop or due:
            control.should_save = True
            self.saved = now
        if stop:
            control.should_training_stop = True


def train_on_corpus(
    module: LossModule,
    stream: Stream,
    options: CorpusTraining,
    run: UnfinishedRun,
    description: str,
    **optimizer: Any,
) -> TrainedModel:
    """Train a module's model in place, from the newest checkpoint of `run` where there is one.

    `optimizer` goes to `training.training_arguments`. Metrics: the last losses, as `train_…`; `steps`, `tokens` and
    `train_seconds`, those of earlier parts of the run included. SIGTERM and SIGINT write a checkpoint after
    the step at hand and raise `UserError`, as do a loss that is no number and a disk that cannot be written.
    """
    micro_batch, accumulate = options.cut(Processes().count, len(stream.blocks[0].input_ids))
    with TemporaryDirectory() as scratch:
        args = training.training_arguments(
            scratch,
            epochs=1,
            max_steps=len(stream) // options.batch_size,
            batch_size=micro_batch,
            accumulate=accumulate,
            learning_rate=options.learning_rate,
            warmup=options.warmup,
            bf16=options.in_bf16,
            seed=options.seed,
            **optimizer,
        )
        trainer = CorpusTrainer(module, args, stream, run=run, save_minutes=options.save_minutes)
        curve = _train(trainer, description)
    losses = {f"train_{name}": value for name, value in curve[-1].items() if name in LOSSES} if curve else {}
    cost = {"steps": trainer.state.global_step, "tokens": trainer.tokens_seen, "train_seconds": trainer.seconds}
    metrics = {**losses, **cost}
    model = module.model
    if trainer.is_fsdp_enabled:  # this process has a shard of it; the last checkpoint has it whole
        model = type(model).from_pretrained(run.latest(), local_files_only=True, use_safetensors=True)
    return TrainedModel(model, metrics, curve)


def _train(trainer: CorpusTrainer, description: str) -> list[dict[str, float]]:
    checkpoint = trainer.run.latest()
    done = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    if trainer.is_world_process_zero():
        trainer.run.metrics(last_step=done)
    trainer.remove_callback(PrinterCallback)

    def stop(number: int) -> None:
        trainer.stopped_by = number

    # The run ends after the step at hand; a second signal ends it at once.
    with progress(description, trainer.args.max_steps) as advance, first_signal(stop, ignore_more=False):
        advance(done)
        trainer.add_callback(_Steps(trainer, advance))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.stopped_by is not None and trainer.state.global_step < trainer.args.max_steps:
        name = signal.Signals(trainer.stopped_by).name
        raise UserError(
            f"stopped by {name} after step {trainer.state.global_step} of {trainer.args.max_steps}, which is saved",
            "go on with --resume",
        )
    return trainer.run.metrics()


def _bare(optimizer: Any) -> torch.optim.Optimizer:
    return getattr(optimizer, "optimizer", optimizer)  # without accelerate's wrapper
