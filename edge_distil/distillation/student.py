"""The student: half of the teacher's layers, no token-type embeddings, no pooler (Sanh et al., 2019, section 3).

A BERT teacher gives a DistilBERT. A RoBERTa teacher gives a shorter RoBERTa, as the published DistilRoBERTa is one.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from transformers import (
    BertConfig,
    DistilBertConfig,
    DistilBertForMaskedLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

from edge_distil.errors import UserError

# DistilBERT's name of each part of a layer, and BERT's.
_LAYER = {
    "attention.q_lin": "attention.self.query",
    "attention.k_lin": "attention.self.key",
    "attention.v_lin": "attention.self.value",
    "attention.out_lin": "attention.output.dense",
    "sa_layer_norm": "attention.output.LayerNorm",
    "ffn.lin1": "intermediate.dense",
    "ffn.lin2": "output.dense",
    "output_layer_norm": "output.LayerNorm",
}
_HEAD = {
    "distilbert.embeddings.LayerNorm": "bert.embeddings.LayerNorm",
    "vocab_transform": "cls.predictions.transform.dense",
    "vocab_layer_norm": "cls.predictions.transform.LayerNorm",
}


def teacher_layers(count: int) -> list[int]:
    """Which of the teacher's layers the student starts from: half of them, evenly spaced from first to last.

    An odd count is rounded down. Twelve give 0, 2, 4, 7, 9, 11, the published recipe's choice. Raises `UserError` for
    fewer than two.
    """
    if count < 2:
        raise UserError(f"the teacher has {count} layer, which cannot be halved", "use a teacher of two layers or more")
    wanted = count // 2
    return [round(index * (count - 1) / max(wanted - 1, 1)) for index in range(wanted)]


def student_config(teacher: Any, layers: int) -> DistilBertConfig | RobertaConfig:
    """The configuration of a student of `layers` layers with the teacher's sizes.

    Raises `UserError` for a teacher that is neither a BERT nor a RoBERTa, and for a BERT without GELU.
    """
    if isinstance(teacher, RobertaConfig) and teacher.model_type == "roberta":
        return RobertaConfig.from_dict({**teacher.to_dict(), "num_hidden_layers": layers})
    if not isinstance(teacher, BertConfig) or teacher.model_type != "bert":
        raise UserError(f"a {teacher.model_type!r} model cannot be the teacher", "give a BERT or RoBERTa teacher")
    if teacher.hidden_act != "gelu":
        raise UserError(
            f"the teacher's hidden_act is {teacher.hidden_act!r}, DistilBERT's is 'gelu'", "use a GELU teacher"
        )
    return DistilBertConfig(
        vocab_size=teacher.vocab_size,
        max_position_embeddings=teacher.max_position_embeddings,
        n_layers=layers,
        n_heads=teacher.num_attention_heads,
        dim=teacher.hidden_size,
        hidden_dim=teacher.intermediate_size,
        dropout=teacher.hidden_dropout_prob,
        attention_dropout=teacher.attention_probs_dropout_prob,
        initializer_range=teacher.initializer_range,
        pad_token_id=teacher.pad_token_id,
        tie_word_embeddings=teacher.tie_word_embeddings,
    )


def student_of(
    teacher: PreTrainedModel,
    *,
    init: Literal["teacher", "random"] = "teacher",
    layers: Sequence[int] | None = None,
    fold_token_types: bool = True,
) -> PreTrainedModel:
    """A masked-LM student of a masked-LM teacher: a DistilBERT of a BERT, a RoBERTa of a RoBERTa.

    `layers` are the teacher layers that the student has counterparts of, ascending; None means `teacher_layers`. With
    `init` "teacher" the student starts from them, the embeddings and the head; with "random" every weight is drawn as
    the library draws it, and `layers` says only how many.

    `fold_token_types` adds the embedding of token type 0, which BERT adds to every token of plain text and DistilBERT
    has no place for, to the position embeddings: the first layer's input is then exactly the teacher's. The published
    recipe drops it. A RoBERTa student keeps its one token type, so there is nothing to fold.

    Raises `UserError` for `layers` that the teacher does not have, and as `teacher_layers` and `student_config` do.
    """
    count = teacher.config.num_hidden_layers
    if layers is None:
        layers = teacher_layers(count)
    elif not layers or list(layers) != sorted(set(layers) & set(range(count))):
        raise UserError(
            f"layers {', '.join(map(str, layers)) or '(none)'}: are not some of 0 to {count - 1} in order",
            f"give --layers numbers from 0 to {count - 1}, each once and ascending",
        )
    config = student_config(teacher.config, len(layers))
    student = RobertaForMaskedLM(config) if isinstance(config, RobertaConfig) else DistilBertForMaskedLM(config)
    if init == "teacher":
        source = teacher.state_dict()
        if isinstance(config, RobertaConfig):
            student.load_state_dict(_roberta_weights(source, layers))
        else:
            student.load_state_dict(_distilbert_weights(source, layers, fold_token_types))
    return student


def _distilbert_weights(
    source: Mapping[str, torch.Tensor], layers: Sequence[int], fold_token_types: bool
) -> dict[str, torch.Tensor]:
    """A DistilBERT's weights by name, out of a BERT's."""
    pairs = dict(_HEAD)
    for mine, theirs in enumerate(layers):
        for student_part, teacher_part in _LAYER.items():
            pairs[f"distilbert.transformer.layer.{mine}.{student_part}"] = f"bert.encoder.layer.{theirs}.{teacher_part}"
    weights = {
        f"{to}.{kind}": source[f"{origin}.{kind}"] for to, origin in pairs.items() for kind in ("weight", "bias")
    }
    words, positions, token_types = (
        f"embeddings.{part}_embeddings.weight" for part in ("word", "position", "token_type")
    )
    weights[f"distilbert.{words}"] = source[f"bert.{words}"]
    weights[f"distilbert.{positions}"] = source[f"bert.{positions}"]
    if fold_token_types:
        weights[f"distilbert.{positions}"] = source[f"bert.{positions}"] + source[f"bert.{token_types}"][0]
    weights["vocab_projector.weight"] = source["cls.predictions.decoder.weight"]
    weights["vocab_projector.bias"] = source["cls.predictions.bias"]
    return weights


def _roberta_weights(source: Mapping[str, torch.Tensor], layers: Sequence[int]) -> dict[str, torch.Tensor]:
    """A shorter RoBERTa's weights by name: the chosen layers renumbered, everything else as it is."""
    prefix = "roberta.encoder.layer."
    weights = {name: weight for name, weight in source.items() if not name.startswith(prefix)}
    for mine, theirs in enumerate(layers):
        origin = f"{prefix}{theirs}."
        weights |= {
            f"{prefix}{mine}.{name.removeprefix(origin)}": weight
            for name, weight in source.items()
            if name.startswith(origin)
        }
    return weights
