"""Masked-language-model training of a teacher, from scratch or continued from an encoder that has no head yet."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import BertConfig, BertForMaskedLM, PreTrainedModel, set_seed

from edge_distil import training
from edge_distil.console import progress
from edge_distil.corpus.masking import MaskedBlock, Masking, collate
from edge_distil.corpus.stream import Blocks
from edge_distil.distillation.corpus_trainer import CorpusTraining, LossModule, train_on_corpus
from edge_distil.distillation.fused import HeadWeights, head_losses
from edge_distil.distillation.packed import packed_inputs
from edge_distil.tokenization import special_tokens
from edge_distil.training import TrainedModel
from edge_distil.unfinished import UnfinishedRun

# How `new_teacher` starts: the longest sinusoid's period over 2π, in tokens; how large positions are beside the other
# embeddings; how much larger than usual the queries are that equal their keys.
_LONGEST_WAVELENGTH, _POSITION_SCALE, _LIKENESS_SCALE = 100.0, 1.5, 1.5


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


def before_projection(model: Any, hidden_ND: torch.Tensor) -> torch.Tensor:
    """A masked-LM head up to its vocabulary projection: dense layer, GELU, layer norm. [N, D] to [N, D]."""
    if model.config.model_type == "bert":
        return model.cls.predictions.transform(hidden_ND)
    if model.config.model_type == "roberta":
        return model.lm_head.layer_norm(F.gelu(model.lm_head.dense(hidden_ND)))
    return model.vocab_layer_norm(model.activation(model.vocab_transform(hidden_ND)))


def head_inputs(
    model: PreTrainedModel, batch: Mapping[str, torch.Tensor], rows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of some tokens of a batch: the last hidden states, and what goes into the vocabulary projection; each [N, D].

    `batch` is one of `corpus.masking.collate`; `rows` [N] says where the tokens stand in the flattened batch.
    """
    inputs = packed_inputs(model, batch["input_ids"], batch["piece_ids"], batch["position_ids"])
    hidden_BLD = model.base_model(**inputs).last_hidden_state
    hidden_ND = hidden_BLD.flatten(0, 1).index_select(0, rows)
    return hidden_ND, before_projection(model, hidden_ND)


@torch.no_grad()
def masked_lm_metrics(model: PreTrainedModel, blocks: Sequence[MaskedBlock]) -> dict[str, float]:
    """Masked-LM loss (nats), its perplexity and the accuracy (percent) on masked blocks."""
    model.eval()
    loss = correct = count = 0.0
    with progress("measuring", len(blocks)) as advance:
        for first in range(0, len(blocks), 16):
            batch = {k: v.to(model.device) for k, v in collate(blocks[first : first + 16]).items()}
            labels_M = batch["labels"]
            _, transformed_MD = head_inputs(model, batch, batch["order"][: len(labels_M)])
            logits_MV = model.get_output_embeddings()(transformed_MD)
            loss += F.cross_entropy(logits_MV.float(), labels_M, reduction="sum").item()
            correct += (logits_MV.argmax(dim=-1) == labels_M).sum().item()
            count += len(labels_M)
            advance(16)
    mean = loss / max(count, 1)
    return {"mlm_loss": mean, "mlm_perplexity": math.exp(min(mean, 50)), "mlm_accuracy": 100 * correct / max(count, 1)}


class _MaskedLanguageModelling(LossModule):
    """A masked-LM model whose loss is L_mlm, mean over the masked tokens of the whole step."""

    def forward(self, *, tokens: torch.Tensor, masked: torch.Tensor, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        weights = HeadWeights(alpha_mlm=1.0, tokens=tokens, masked=masked)
        _, transformed_MD = head_inputs(self.model, batch, batch["order"][: len(batch["labels"])])
        loss, _ = head_losses(transformed_MD, self.model.get_output_embeddings(), batch["labels"], weights)
        return {"loss": loss}


def pretrain(
    make_model: Callable[[], PreTrainedModel],
    blocks: Blocks,
    masking: Masking,
    options: CorpusTraining,
    run: UnfinishedRun,
) -> TrainedModel:
    """Train the model that `make_model` gives (called after seeding) on masked blocks.

    Metrics: held-out `mlm_loss`, `mlm_perplexity` and `mlm_accuracy`, `steps` and `tokens` seen. Raises `UserError` for
    a corpus of less than two blocks, and as `corpus_trainer.train_on_corpus` does.
    """
    set_seed(options.seed)
    model = make_model()
    training.prepare(model, options.dropout)
    stream = options.stream(blocks, masking)
    module = _MaskedLanguageModelling(model)
    result = train_on_corpus(module, stream, options, run, "pre-training", weight_decay=0.01)
    return replace(result, metrics={**masked_lm_metrics(result.model, stream.measured()), **result.metrics})
