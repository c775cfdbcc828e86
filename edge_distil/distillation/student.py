"""The student: half of the teacher's layers, no token-type embeddings, no pooler (Sanh et al., 2019, section 3)."""

from typing import cast

import torch
from transformers import BertConfig, DistilBertConfig, DistilBertForMaskedLM, PreTrainedModel

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

    Twelve give 0, 2, 4, 7, 9, 11, the published recipe's choice. Raises `UserError` for fewer than two.
    """
    if count < 2:
        raise UserError(f"the teacher has {count} layer, which cannot be halved", "use a teacher of two layers or more")
    wanted = count // 2
    return [round(index * (count - 1) / max(wanted - 1, 1)) for index in range(wanted)]


def student_config(teacher: BertConfig, layers: int) -> DistilBertConfig:
    """DistilBERT's configuration with the teacher's sizes and `layers` layers."""
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
    )


@torch.no_grad()
def student_of(teacher: PreTrainedModel) -> DistilBertForMaskedLM:
    """A student of a masked-LM BERT, initialised from its embeddings, its head and every second layer of it.

    The embedding of token type 0, which the teacher adds to every token of plain text, is folded into the student's
    position embeddings: so the first layer's input is exactly the teacher's. Raises `UserError` as `teacher_layers`
    and `student_config` do.
    """
    chosen = teacher_layers(teacher.config.num_hidden_layers)
    student = DistilBertForMaskedLM(student_config(cast(BertConfig, teacher.config), len(chosen)))
    source = teacher.state_dict()
    pairs = dict(_HEAD)
    for mine, theirs in enumerate(chosen):
        for student_part, teacher_part in _LAYER.items():
            pairs[f"distilbert.transformer.layer.{mine}.{student_part}"] = f"bert.encoder.layer.{theirs}.{teacher_part}"
    weights = {
        f"{to}.{kind}": source[f"{origin}.{kind}"].clone()
        for to, origin in pairs.items()
        for kind in ("weight", "bias")
    }
    embeddings = "embeddings.{}_embeddings.weight"
    weights["distilbert." + embeddings.format("word")] = source["bert." + embeddings.format("word")].clone()
    weights["distilbert." + embeddings.format("position")] = (
        source["bert." + embeddings.format("position")] + source["bert." + embeddings.format("token_type")][0]
    )
    weights["vocab_projector.weight"] = source["cls.predictions.decoder.weight"].clone()
    weights["vocab_projector.bias"] = source["cls.predictions.bias"].clone()
    student.load_state_dict(weights)
    student.tie_weights()
    return student
