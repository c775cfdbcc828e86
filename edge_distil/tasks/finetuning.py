"""Fine-tuning for a downstream task, alone or with a teacher: the second distillation (Sanh et al., 2019, section 3).

What is learnt comes as `Features`: the examples as token ids, and the loss of a batch of them. `tasks.spans` has those
of question answering, `tasks.classification` those of texts. B examples, L tokens of the longest of them.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers import set_seed as set_seeds

from edge_distil import training
from edge_distil.models import supports_bf16
from edge_distil.runtimes import Runtime
from edge_distil.runtimes.torch import model_inputs
from edge_distil.tokenization import SpecialTokens, pad
from edge_distil.training import TrainedModel

# Parameters of layer n, as BERT and RoBERTa, and as DistilBERT name them.
_LAYER = re.compile(r"\.(?:encoder|transformer)\.layer\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class SecondDistillation:
    """A teacher for fine-tuning: its runtime, the temperature, and the weights of its loss and of the gold one."""

    teacher: Runtime
    temperature: float = 2.0
    alpha_ce: float = 0.5
    alpha_gold: float = 0.5


@dataclass(frozen=True, slots=True)
class FineTuning:
    """How long and how fast to fine-tune.

    `max_steps` above 0 overrides `epochs`; `warmup` is a fraction of all steps; `dropout` None keeps the model's own.
    `schedule` is one of the library's names. `layer_decay` multiplies the learning rate once more with every layer from
    the head down (1: all alike). `group_by_length` puts examples of like length into one batch, which saves padding.
    With dev data, training stops after `patience` evaluations in a row without a better score (0: never); there is one
    at the end of each epoch. Raises `UserError` where that makes no step.
    """

    epochs: float = 3.0
    max_steps: int = 0
    batch_size: int = 16
    learning_rate: float = 1e-4
    warmup: float = 0.1
    weight_decay: float = 0.01
    layer_decay: float = 1.0
    dropout: float | None = None
    patience: int = 2
    seed: int = 0
    schedule: str = "linear"
    group_by_length: bool = True
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    def __post_init__(self) -> None:
        training.check_duration(self.epochs, self.max_steps)

    @property
    def in_bf16(self) -> bool:
        """Whether matrix products run in bf16; "auto" takes it where the hardware has instructions for it."""
        return supports_bf16() if self.precision == "auto" else self.precision == "bf16"


@dataclass(frozen=True, slots=True)
class Judge:
    """Scores a model on dev data: `metrics` gives its figures, of which `name` is the one to be raised."""

    metrics: Callable[[PreTrainedModel], Mapping[str, float]]
    name: str


class Features(ABC):
    """The examples of a task as token ids, with the loss of a batch. An item is one example's index."""

    def __init__(self, ids: Sequence[list[int]], special: SpecialTokens) -> None:
        self.ids = ids
        self.special = special
        self.distillation: SecondDistillation | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        # `input_ids` is what the library's length-grouping sampler measures.
        return {"index": index, "input_ids": self.ids[index]}

    def collate(self, items: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch, padded to its longest example: `input_ids`, `attention_mask`, and what `targets` adds."""
        indices = [item["index"] for item in items]
        ids_BL, mask_BL = pad([self.ids[index] for index in indices], self.special.pad)
        tensors = {"input_ids": torch.from_numpy(ids_BL), "attention_mask": torch.from_numpy(mask_BL)}
        return tensors | self.targets(indices, ids_BL.shape[1])

    def learn_from(self, distillation: SecondDistillation) -> None:
        """Run the teacher once over every example: they are fixed, so no epoch has to do it again."""
        self.cache(distillation.teacher)
        self.distillation = distillation

    def loss(self, output: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """alpha_gold × gold loss + alpha_ce × soft-target loss; the gold loss alone without a teacher."""
        gold = self.gold_loss(output, batch)
        if self.distillation is None:
            return gold
        soft = self.soft_loss(output, batch, self.distillation.temperature)
        return self.distillation.alpha_gold * gold + self.distillation.alpha_ce * soft

    def start_head(self, model: PreTrainedModel) -> None:  # noqa: B027, most heads start well as they are drawn
        """Set what a head should not have to learn, where it was never trained."""

    @abstractmethod
    def targets(self, indices: Sequence[int], width: int) -> dict[str, torch.Tensor]:
        """What the losses of these examples need, in a batch of `width` tokens."""

    @abstractmethod
    def cache(self, teacher: Runtime) -> None:
        """Keep the teacher's logits on every example."""

    @abstractmethod
    def gold_loss(self, output: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss to the gold answers."""

    @abstractmethod
    def soft_loss(self, output: Any, batch: Mapping[str, torch.Tensor], temperature: float) -> torch.Tensor:
        """The loss to the teacher's kept logits."""


class FineTuningTrainer(Trainer):
    """A `Trainer` whose loss is that of its `Features`."""

    def __init__(self, *args: Any, layer_decay: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.layer_decay = layer_decay

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The loss of `Features.loss`."""
        features = self.train_dataset
        assert isinstance(features, Features)
        unwrapped = self.accelerator.unwrap_model(model)
        output = model(**model_inputs(unwrapped, inputs["input_ids"], inputs["attention_mask"], features.special.sep))
        loss = features.loss(output, inputs)
        return (loss, output) if return_outputs else loss

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW with the groups of `parameter_groups`."""
        if self.optimizer is None:
            trained: Any = model or self.model
            self.optimizer = torch.optim.AdamW(
                parameter_groups(trained, self.args.learning_rate, self.args.weight_decay, self.layer_decay),
                lr=self.args.learning_rate,
                betas=(self.args.adam_beta1, self.args.adam_beta2),
                eps=self.args.adam_epsilon,
                fused=True,
            )
        return self.optimizer


def parameter_groups(
    model: nn.Module, learning_rate: float, weight_decay: float, layer_decay: float
) -> list[dict[str, Any]]:
    """A model's parameters by learning rate and weight decay.

    The head learns at `learning_rate`, the last layer at that times `layer_decay`, the one below at that times its
    square, and so on to the embeddings (Howard and Ruder, 2018). Biases and layer norms have no weight decay.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    # A head's names have no base model's prefix, and an embedding's no layer.
    depths = {name: int(found[1]) + 1 if (found := _LAYER.search(f".{name}")) else 0 for name, _ in named}
    deepest = max(depths.values())
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        depth = depths[name] if depths[name] or ".embeddings." in f".{name}" else deepest + 1
        rate = learning_rate * layer_decay ** (deepest + 1 - depth)
        groups.setdefault((rate, weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    return [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]


class _KeepBest(TrainerCallback):
    """Judges the model after every epoch, keeps the weights of the best, and stops when it gets no better."""

    def __init__(self, judge: Judge, patience: int) -> None:
        self.judge = judge
        self.patience = patience
        self.best: dict[str, Any] = {}
        self.weights: dict[str, torch.Tensor] = {}
        self.rows: list[dict[str, Any]] = []

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        self.look(model, state)
        best_row = max(range(len(self.rows)), key=lambda row: self.rows[row][self.judge.name])
        if self.patience and len(self.rows) - 1 - best_row >= self.patience:
            control.should_training_stop = True

    def look(self, model: PreTrainedModel, state: TrainerState) -> None:
        if self.rows and self.rows[-1]["step"] == state.global_step:
            return
        metrics = dict(self.judge.metrics(model.eval()))
        model.train()
        if not self.best or metrics[self.judge.name] > self.best[self.judge.name]:
            self.best = metrics
            self.weights = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
        self.rows.append({"step": state.global_step, **metrics})


def fine_tune(
    model: PreTrainedModel, features: Features, options: FineTuning, judge: Judge | None = None
) -> TrainedModel:
    """Fine-tune a model in place. With a judge, the weights of the epoch that it scored best are the ones that stay.

    Metrics: the `loss` at the end of the curve, where it has one, the numbers of `examples` and `steps`, and the
    judge's figures of the weights that stayed, with `dev_` before them. The curve holds a row of them for every epoch.
    Raises `UserError` for a loss that is no number.
    """
    set_seeds(options.seed)
    training.prepare(model, options.dropout)
    features.start_head(model)
    with TemporaryDirectory() as scratch:
        trainer = FineTuningTrainer(
            model,
            training.training_arguments(
                scratch,
                epochs=options.epochs,
                max_steps=options.max_steps,
                batch_size=options.batch_size,
                learning_rate=options.learning_rate,
                warmup=options.warmup,
                weight_decay=options.weight_decay,
                seed=options.seed,
                group_by_length=options.group_by_length,
                schedule=options.schedule,
                bf16=options.in_bf16,
            ),
            data_collator=features.collate,
            train_dataset=features,
            layer_decay=options.layer_decay,
        )
        kept = None
        if judge:
            kept = _KeepBest(judge, options.patience)
            trainer.add_callback(kept)
        curve: list[dict[str, Any]] = training.run(trainer, "fine-tuning")
        steps = trainer.state.global_step
    metrics: dict[str, Any] = {"examples": len(features), "steps": steps}
    if curve:
        metrics["loss"] = curve[-1]["loss"]
    if kept:
        kept.look(model, trainer.state)
        model.load_state_dict(kept.weights)
        prefixed = [{f"dev_{name}" if name != "step" else name: row[name] for name in row} for row in kept.rows]
        metrics |= {f"dev_{name}": value for name, value in kept.best.items()}
        curve = sorted([*curve, *prefixed], key=lambda row: row["step"])
    return TrainedModel(model.eval(), metrics, curve)
