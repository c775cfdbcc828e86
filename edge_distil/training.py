"""What pre-training, distillation and fine-tuning share: how `transformers.Trainer` is set up and watched."""

import ctypes
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from edge_distil import cpu
from edge_distil.console import progress
from edge_distil.errors import UserError
from edge_distil.models import supports_bf16

# Steps between two returns of freed memory: the first step after one takes a quarter of a second longer.
_TIDY = 50
# Of a running mean of gradients. AdamW moves a weight by the mean over the root of its square's, plus 1e-8: this moves
# none. It takes more than _TIDY steps to shrink from here to what is no longer a normal number, 1e-38.
_NEGLIGIBLE = 1e-30


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A trained model, what was measured of it, and its loss curve."""

    model: PreTrainedModel
    metrics: dict[str, float]
    curve: list[dict[str, float]]


class Processes:
    """The processes of this run: one, unless `torchrun` or `accelerate launch` started more."""

    def __init__(self) -> None:
        """Join the others, where there are any."""
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.number = int(os.environ.get("RANK", "0"))
        self.is_first = self.number == 0
        if self.count > 1 and not torch.distributed.is_initialized():
            on_gpus = torch.cuda.is_available()
            if on_gpus:
                torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
            # Preparing a corpus may take the first process hours, while the others wait.
            torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo", timeout=timedelta(days=1))

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            torch.distributed.barrier()

    @contextmanager
    def first_to_go(self) -> Iterator[None]:
        """The first process does what the block says; then the others do, who find it done."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()


def keep_freed_memory() -> None:
    """Let glibc keep what a training step frees, for the next step, instead of handing it back to the kernel.

    Large tensors are otherwise mapped and zeroed anew each time: a step took 8% to 13% longer on two cores. Nothing
    happens where the C library is another one. Where batches differ in length, `return_freed_memory` has to be called
    now and then.
    """
    if library := _glibc():
        trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
        library.mallopt(trim_threshold, 2**31 - 1)
        library.mallopt(mmap_max, 0)


def return_freed_memory() -> None:
    """Hand what lies free between live tensors back to the kernel.

    Tensors of other sizes each time leave gaps that the next ones do not fit: fine-tuning MiniLM on SQuAD grew by some
    10 MB a step without end, from 1.5 GB to 7.5 GB in an hour.
    """
    if library := _glibc():
        library.malloc_trim(0)


def forget_old_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Set AdamW's running means to 0 where they are too small to move a weight, on CPUs.

    The mean of a token that no batch has had for 700 steps falls below the least normal number of fp32, stays there,
    and such numbers are slow: a step of AdamW on a BERT's word table took five times as long.
    """
    for state in optimizer.state.values():
        for name in ("exp_avg", "exp_avg_sq"):
            if name in state and state[name].device.type == "cpu":
                state[name].masked_fill_(state[name].abs() < _NEGLIGIBLE, 0)


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def training_arguments(
    scratch: str,
    *,
    epochs: float,
    max_steps: int,
    batch_size: int,
    accumulate: int = 1,
    learning_rate: float,
    warmup: float,
    weight_decay: float = 0.0,
    max_grad_norm: float = 1.0,
    adam_beta2: float = 0.999,
    adam_epsilon: float = 1e-8,
    seed: int,
    group_by_length: bool = False,
    schedule: str = "linear",
    bf16: bool | None = None,
) -> TrainingArguments:
    """`TrainingArguments` with this toolkit's choices: AdamW, no checkpoints of the library's between.

    `bf16` None takes bf16 where the hardware has it. `schedule` is one of the library's names, `warmup` a fraction of
    all steps. `max_steps` above 0 overrides `epochs`. `scratch` is a folder that may vanish afterwards, which the
    library demands even when nothing is saved.
    """
    keep_freed_memory()
    args = TrainingArguments(
        output_dir=scratch,
        num_train_epochs=epochs,
        max_steps=max_steps or -1,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulate,
        learning_rate=learning_rate,
        warmup_steps=warmup,
        weight_decay=weight_decay,
        max_grad_norm=max_grad_norm,
        adam_beta2=adam_beta2,
        adam_epsilon=adam_epsilon,
        optim="adamw_torch_fused",
        lr_scheduler_type=schedule,
        bf16=supports_bf16() if bf16 is None else bf16,
        use_cpu=not torch.cuda.is_available(),
        train_sampling_strategy="group_by_length" if group_by_length else "random",
        logging_steps=10,
        save_strategy="no",
        logging_nan_inf_filter=False,  # it would log a loss that is no number as 0
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        ddp_backend="gloo" if Processes().count > 1 and not torch.cuda.is_available() else None,
        ddp_find_unused_parameters=False,
        seed=seed,
    )
    # One process uses one GPU, more need one process each (docs/scale.md): the library would take `DataParallel`.
    args._n_gpu = min(args.n_gpu, 1)
    return args


def check_duration(epochs: float, max_steps: int) -> None:
    """Refuse a run of no step. Raises `UserError`."""
    if epochs <= 0 and max_steps <= 0:
        raise UserError("--epochs 0 leaves nothing to train", "give --epochs above 0, or --max-steps")


def prepare(model: PreTrainedModel, dropout: float | None = None) -> None:
    """Make a model ready to be trained or to teach here: on CPUs with the attention and dropout of `edge_distil.cpu`.

    `dropout` is given to every dropout layer, attention's included; None leaves them.
    """
    if not torch.cuda.is_available():
        cpu.prepare(model)
    if dropout is not None:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = dropout


class _Watch(TrainerCallback):
    """Shows progress with the loss, keeps the loss curve, and stops a run whose loss is no number.

    It keeps memory from growing and steps from slowing down, too.
    """

    def __init__(self, advance: Callable[..., None]) -> None:
        self.advance = advance
        self.curve: list[dict[str, float]] = []

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: torch.optim.Optimizer | None = None,
        **_: Any,
    ) -> None:
        self.advance()
        if state.global_step % _TIDY == 0:
            return_freed_memory()
            if optimizer:
                forget_old_gradients(optimizer)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise UserError(
                f"the loss is {logs['loss']} at step {state.global_step}", "lower --learning-rate, or check the data"
            )
        self.curve.append({"step": state.global_step, **logs})
        self.advance(0, status=f"loss {logs['loss']:.3f}")


def run(trainer: Trainer, description: str) -> list[dict[str, float]]:
    """Train to the end, with a progress bar.

    Returns the loss curve: `step`, `loss`, `learning_rate` and `grad_norm` of every tenth step. Raises `UserError` when
    the loss is no longer finite.
    """
    args = trainer.args
    steps_per_epoch = len(trainer.get_train_dataloader())
    total = args.max_steps if args.max_steps > 0 else math.ceil(steps_per_epoch * args.num_train_epochs)
    trainer.remove_callback(PrinterCallback)
    with progress(description, total) as advance:
        watch = _Watch(advance)
        trainer.add_callback(watch)
        trainer.train()
    return watch.curve
