"""Masked-language-model training of a teacher, from scratch or continued from an encoder that has no head yet."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional as F
from transformers import BertConfig, BertForMaskedLM, PreTrainedModel, Trainer, set_seed

from edge_distil import training
from edge_distil.console import progress
from edge_distil.corpus.blocks import Masking
from edge_distil.distillation.losses import masked_lm_loss
from edge_distil.errors import UserError
from edge_distil.tokenization import special_tokens

_HELD_OUT_BLOCKS = 128
# How `new_teacher` starts: the longest sinusoid's period over 2π, in tokens; how large positions are beside the other
# embeddings; how much larger than usual the queries are that equal their keys.
_LONGEST_WAVELENGTH, _POSITION_SCALE, _LIKENESS_SCALE = 100.0, 1.5, 1.5


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A trained model, what was measured of it, and its loss curve."""

    model: PreTrainedModel
    metrics: dict[str, float]
    curve: list[dict[str, float]]


def new_teacher(
    tokenizer: Tokenizer, *, layers: int, hidden_size: int, heads: int, positions: int = 512
) -> BertForMaskedLM:
    """A BERT with random weights that can already look around: a small one learns that very late by itself.

    Position embeddings are sinusoids (Vaswani et al., 2017, 3.5), of short wavelengths, and in half of the heads of
    every layer keys start equal to queries (after Trockman & Kolter, 2023, "Mimetic initialization of self-attention
    layers"), so that attention starts out on like tokens and on neighbours. The scales are the best of four settings,
    one short run each; their effect was not measured apart. `heads` must divide `hidden_size`.
    """
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * hidden_size,
            max_position_embeddings=positions,
            # BERT's 0.02 was chosen at 768. A narrower layer sums fewer terms, so the same 0.02 would make its outputs
            # small and its attention almost uniform at the start.
            initializer_range=0.02 * math.sqrt(768 / hidden_size),
            pad_token_id=special_tokens(tokenizer).pad,
        )
    )
    position_P1 = torch.arange(positions)[:, None]
    angle_PF = position_P1 * _LONGEST_WAVELENGTH ** (-torch.arange(0, hidden_size, 2) / hidden_size)
    sinusoid_PD = torch.cat([angle_PF.sin(), angle_PF.cos()], dim=1)[:, :hidden_size]
    scale = _POSITION_SCALE * model.config.initializer_range / sinusoid_PD.std()
    model.bert.embeddings.position_embeddings.weight.data.copy_(sinusoid_PD * scale)
    for layer in model.bert.encoder.layer:
        query, key = (
            part.weight.data[: hidden_size // 2] for part in (layer.attention.self.query, layer.attention.self.key)
        )
        query *= _LIKENESS_SCALE
        key.copy_(query)
    return model


def split_held_out(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Training blocks, and one in fifty (at most 128, at least one) spread over the corpus to measure on.

    Raises `UserError` when there are too few blocks to hold any out.
    """
    if len(blocks) < 2:
        raise UserError("the corpus fills less than two blocks", "give more text, or a smaller --block-length")
    wanted = min(_HELD_OUT_BLOCKS, max(1, len(blocks) // 50))
    held_out = np.zeros(len(blocks), dtype=bool)
    held_out[np.linspace(0, len(blocks) - 1, wanted).round().astype(int)] = True
    return blocks[~held_out], blocks[held_out]


def before_projection(model: Any, hidden_ND: torch.Tensor) -> torch.Tensor:
    """A masked-LM head up to its vocabulary projection: dense layer, GELU, layer norm. [N, D] to [N, D]."""
    if model.config.model_type == "bert":
        return model.cls.predictions.transform(hidden_ND)
    return model.vocab_layer_norm(model.activation(model.vocab_transform(hidden_ND)))


def masked_lm_outputs(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [M, V] and labels [M] of the M masked tokens alone: the other tokens' projections would go unused."""
    hidden_BLD = model.base_model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    masked_BL = batch["labels"] != -100
    transformed_MD = before_projection(model, hidden_BLD[masked_BL])
    return model.get_output_embeddings()(transformed_MD), batch["labels"][masked_BL]


@torch.no_grad()
def masked_lm_metrics(model: PreTrainedModel, blocks: np.ndarray, masking: Masking) -> dict[str, float]:
    """Masked-LM loss (nats), its perplexity and the accuracy (percent) on blocks, with the same masks each time."""
    model.eval()
    generator = torch.Generator().manual_seed(0)
    loss = correct = count = 0.0
    with progress("measuring", len(blocks)) as advance:
        for first in range(0, len(blocks), 16):
            batch = masking(list(blocks[first : first + 16]), generator)
            logits_MV, labels_M = masked_lm_outputs(model, {k: v.to(model.device) for k, v in batch.items()})
            loss += F.cross_entropy(logits_MV.float(), labels_M, reduction="sum").item()
            correct += (logits_MV.argmax(dim=-1) == labels_M).sum().item()
            count += len(labels_M)
            advance(16)
    mean = loss / max(count, 1)
    return {"mlm_loss": mean, "mlm_perplexity": math.exp(min(mean, 50)), "mlm_accuracy": 100 * correct / max(count, 1)}


class _MaskedLanguageModel(nn.Module):
    """A masked-LM model whose forward is its loss, so that `Trainer` can spread it over devices as it is."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        logits_MV, labels_M = masked_lm_outputs(self.model, batch)
        return {"loss": masked_lm_loss(logits_MV, labels_M)}


def pretrain(
    make_model: Callable[[], PreTrainedModel],
    tokenizer: Tokenizer,
    blocks: np.ndarray,
    *,
    epochs: float,
    max_steps: int,
    batch_size: int,
    learning_rate: float,
    warmup: float,
    dropout: float | None,
    seed: int,
) -> TrainedModel:
    """Train the model that `make_model` gives (called after seeding) on blocks int32 [N, L]; `dropout` None
    keeps its own.

    Metrics: held-out `mlm_loss`, `mlm_perplexity` and `mlm_accuracy`, and `tokens` seen. Raises `UserError` for a
    corpus of less than two blocks and for a loss that is no number.
    """
    set_seed(seed)
    model = make_model()
    training.prepare(model, dropout)
    masking = Masking(tokenizer)
    train_blocks, held_out = split_held_out(blocks)
    with TemporaryDirectory() as scratch:
        trainer = Trainer(
            _MaskedLanguageModel(model),
            training.training_arguments(
                scratch,
                epochs=epochs,
                max_steps=max_steps,
                batch_size=batch_size,
                learning_rate=learning_rate,
                warmup=warmup,
                weight_decay=0.01,
                seed=seed,
            ),
            data_collator=masking,
            train_dataset=train_blocks,
        )
        curve = training.run(trainer, "pre-training")
        steps = trainer.state.global_step
    metrics = masked_lm_metrics(model, held_out, masking)
    return TrainedModel(model, {**metrics, "steps": steps, "tokens": steps * batch_size * blocks.shape[1]}, curve)
