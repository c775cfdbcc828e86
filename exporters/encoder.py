"""The plain encoder that both exporters start from, equal to the library's BERT and DistilBERT.

The library's own modules build their masks with operations that converters do not know. This one is written out: two
inputs, an explicit additive mask that is finite in fp16, position and segment ids computed inside. It loads the weights
of a library model, and a test holds it against that model at 60 dB.

Shapes: B batch, L tokens, H hidden size, N attention heads, D = H / N, V vocabulary, C classes.
"""

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from edge_distil.errors import UserError

# Far below any score and within fp16's range (65504); exp(-10000) is zero in fp32 and in fp16.
MASKED_SCORE = -1e4


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """The sizes of an encoder, under BERT's names. `type_vocab_size` is 0 for DistilBERT, which has no segments.

    `classes` counts for a text classifier alone.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float
    sep_id: int
    classes: int


class Embeddings(nn.Module):
    """Sum of the word, position and segment embeddings, normalised."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.sep_id = config.sep_id
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.segment = nn.Embedding(config.type_vocab_size, config.hidden_size) if config.type_vocab_size else None
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, input_ids_BL: torch.Tensor) -> torch.Tensor:
        """Token ids [B, L] to hidden states [B, L, H]."""
        return self.norm(self.summed(input_ids_BL, self.position.weight[: input_ids_BL.shape[1]]))

    def summed(self, input_ids_BL: torch.Tensor, positions_LH: torch.Tensor) -> torch.Tensor:
        """The sum [B, L, H] of the embeddings, before its normalisation."""
        hidden_BLH = self.word(input_ids_BL) + positions_LH
        if self.segment is not None and self.segment.num_embeddings > 1:
            # 0 up to and including the first [SEP], 1 after it, as `runtimes.torch.token_type_ids` has it. A comparison
            # and no clamp: coremltools gives a clamp with one bound the other bound -inf.
            is_sep_BL = (input_ids_BL == self.sep_id).int()
            hidden_BLH = hidden_BLH + self.segment((is_sep_BL.cumsum(dim=1) - is_sep_BL > 0).int())
        elif self.segment is not None:
            hidden_BLH = hidden_BLH + self.segment.weight[0]
        return hidden_BLH


class Layer(nn.Module):
    """One transformer layer: self-attention and feed-forward, each followed by a residual sum and a normalisation."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.heads = config.num_attention_heads
        self.head_size = hidden // self.heads
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.attention_output = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, config.layer_norm_eps)
        self.intermediate = nn.Linear(hidden, config.intermediate_size)
        self.output = nn.Linear(config.intermediate_size, hidden)
        self.output_norm = nn.LayerNorm(hidden, config.layer_norm_eps)

    def forward(self, hidden_BLH: torch.Tensor, mask_B11L: torch.Tensor) -> torch.Tensor:
        """Hidden states [B, L, H] to hidden states [B, L, H]. The mask is added to the attention scores."""
        B, L, _ = hidden_BLH.shape

        def per_head(states_BLH: torch.Tensor) -> torch.Tensor:
            return states_BLH.reshape(B, L, self.heads, self.head_size).transpose(1, 2)

        query_BNLD, key_BNLD, value_BNLD = (
            per_head(projection(hidden_BLH)) for projection in (self.query, self.key, self.value)
        )
        scores_BNLL = self.scores(query_BNLD, key_BNLD) + mask_B11L
        context_BLH = (scores_BNLL.softmax(dim=-1) @ value_BNLD).transpose(1, 2).flatten(2)
        hidden_BLH = self.attention_norm(self.attention_output(context_BLH) + hidden_BLH)
        return self.output_norm(self.output(nn.functional.gelu(self.intermediate(hidden_BLH))) + hidden_BLH)

    def scores(self, query_BNLD: torch.Tensor, key_BNLD: torch.Tensor) -> torch.Tensor:
        """How much each token attends to each other one, [B, N, L, L], before the mask."""
        return query_BNLD @ key_BNLD.transpose(2, 3) * self.head_size**-0.5


class QuestionAnsweringHead(nn.Module):
    """One start and one end logit for every token."""

    output_names = ("start_logits", "end_logits")

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.qa_outputs = nn.Linear(config.hidden_size, 2)

    def forward(self, hidden_BLH: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Hidden states [B, L, H] to start logits [B, L] and end logits [B, L]."""
        logits_BL2 = self.qa_outputs(hidden_BLH)
        return logits_BL2[:, :, 0], logits_BL2[:, :, 1]


class MaskedLMHead(nn.Module):
    """One logit for every word of the vocabulary and every token."""

    output_names = ("logits",)

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.transform = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, hidden_BLH: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Hidden states [B, L, H] to logits [B, L, V]."""
        return (self.decoder(self.norm(nn.functional.gelu(self.transform(hidden_BLH)))),)


class TextClassificationHead(nn.Module):
    """One logit for every class, from the hidden state of [CLS]; a regression has one class."""

    output_names = ("logits",)

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        # BERT's pooler ends in a tanh, DistilBERT's in a ReLU.
        self.activation = nn.Tanh() if config.type_vocab_size else nn.ReLU()
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, config.classes)

    def forward(self, hidden_BLH: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Hidden states [B, L, H] to logits [B, C]."""
        return (self.classifier(self.activation(self.pooler(hidden_BLH[:, 0]))),)


Head = QuestionAnsweringHead | MaskedLMHead | TextClassificationHead


class PlainEncoder(nn.Module):
    """An encoder with the head of one task. `output_names` names what a call returns, in order."""

    def __init__(self, config: EncoderConfig, head: type[Head]) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.head: Head = head(config)
        self.output_names = head.output_names

    def output_shape(self, batch: Any, length: Any) -> list[Any]:
        """The shape of each output for inputs of `batch` × `length`, which may be numbers or names."""
        if isinstance(self.head, TextClassificationHead):
            return [batch, self.config.classes]
        return [batch, length, *([self.config.vocab_size] if isinstance(self.head, MaskedLMHead) else [])]

    @classmethod
    def from_library(cls, model: PreTrainedModel, sep_id: int) -> "PlainEncoder":
        """The plain equal of a library model, in evaluation mode, sharing its weights' values and not its memory.

        `sep_id` is the id of [SEP], from which BERT's segments are computed as `runtimes.torch.token_type_ids` does.
        Raises `UserError` for a model class or an activation without a conversion.
        """
        kind = type(model).__name__
        if kind not in _CONVERSIONS:
            raise UserError(
                f"a {kind} cannot be exported, only {', '.join(_CONVERSIONS)}",
                "give a BERT or DistilBERT checkpoint for question answering, texts or masked language modelling",
            )
        read_config, head, names = _CONVERSIONS[kind]
        plain = cls(read_config(model.config, sep_id), head)
        weights = {_rename(name, names): weight for name, weight in model.state_dict().items()}
        plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
        if isinstance(plain.head, MaskedLMHead) and model.config.tie_word_embeddings:
            plain.head.decoder.weight = plain.embeddings.word.weight
        return plain.eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits, fp32, of a batch: start and end [B, L], words [B, L, V], or classes [B, C].

        Both inputs are integers [B, L].
        """
        hidden_BLH = self.embeddings(input_ids)
        mask_B11L = (1 - attention_mask[:, None, None, :].to(hidden_BLH.dtype)) * MASKED_SCORE
        for layer in self.layers:
            hidden_BLH = layer(hidden_BLH, mask_B11L)
        return self.head(hidden_BLH)


def _check_activation(value: Any, field: str) -> None:
    if value != "gelu":
        raise UserError(
            f"config.json: {field} is {value!r}, only 'gelu' can be exported",
            "export a model that was trained with the gelu activation",
        )


def _bert_config(config: Any, sep_id: int) -> EncoderConfig:
    _check_activation(config.hidden_act, "hidden_act")
    return EncoderConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        max_position_embeddings=config.max_position_embeddings,
        type_vocab_size=config.type_vocab_size,
        layer_norm_eps=config.layer_norm_eps,
        sep_id=sep_id,
        classes=config.num_labels,
    )


def _distilbert_config(config: Any, sep_id: int) -> EncoderConfig:
    _check_activation(config.activation, "activation")
    return EncoderConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.dim,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        intermediate_size=config.hidden_dim,
        max_position_embeddings=config.max_position_embeddings,
        type_vocab_size=0,
        layer_norm_eps=1e-12,  # not in the configuration: the library's class fixes it
        sep_id=sep_id,
        classes=config.num_labels,
    )


# The library's names and ours, as prefixes; `#` is the number of a layer.
_BERT_NAMES = {
    "bert.embeddings.word_embeddings": "embeddings.word",
    "bert.embeddings.position_embeddings": "embeddings.position",
    "bert.embeddings.token_type_embeddings": "embeddings.segment",
    "bert.embeddings.LayerNorm": "embeddings.norm",
    "bert.encoder.layer.#.attention.self.query": "layers.#.query",
    "bert.encoder.layer.#.attention.self.key": "layers.#.key",
    "bert.encoder.layer.#.attention.self.value": "layers.#.value",
    "bert.encoder.layer.#.attention.output.dense": "layers.#.attention_output",
    "bert.encoder.layer.#.attention.output.LayerNorm": "layers.#.attention_norm",
    "bert.encoder.layer.#.intermediate.dense": "layers.#.intermediate",
    "bert.encoder.layer.#.output.dense": "layers.#.output",
    "bert.encoder.layer.#.output.LayerNorm": "layers.#.output_norm",
    "qa_outputs": "head.qa_outputs",
    "bert.pooler.dense": "head.pooler",
    "classifier": "head.classifier",
    "cls.predictions.transform.dense": "head.transform",
    "cls.predictions.transform.LayerNorm": "head.norm",
    "cls.predictions.decoder": "head.decoder",
}
_DISTILBERT_NAMES = {
    "distilbert.embeddings.word_embeddings": "embeddings.word",
    "distilbert.embeddings.position_embeddings": "embeddings.position",
    "distilbert.embeddings.LayerNorm": "embeddings.norm",
    "distilbert.transformer.layer.#.attention.q_lin": "layers.#.query",
    "distilbert.transformer.layer.#.attention.k_lin": "layers.#.key",
    "distilbert.transformer.layer.#.attention.v_lin": "layers.#.value",
    "distilbert.transformer.layer.#.attention.out_lin": "layers.#.attention_output",
    "distilbert.transformer.layer.#.sa_layer_norm": "layers.#.attention_norm",
    "distilbert.transformer.layer.#.ffn.lin1": "layers.#.intermediate",
    "distilbert.transformer.layer.#.ffn.lin2": "layers.#.output",
    "distilbert.transformer.layer.#.output_layer_norm": "layers.#.output_norm",
    "qa_outputs": "head.qa_outputs",
    "pre_classifier": "head.pooler",
    "classifier": "head.classifier",
    "vocab_transform": "head.transform",
    "vocab_layer_norm": "head.norm",
    "vocab_projector": "head.decoder",
}
_CONVERSIONS: dict[str, tuple[Any, Any, dict[str, str]]] = {
    "BertForQuestionAnswering": (_bert_config, QuestionAnsweringHead, _BERT_NAMES),
    "BertForSequenceClassification": (_bert_config, TextClassificationHead, _BERT_NAMES),
    "BertForMaskedLM": (_bert_config, MaskedLMHead, _BERT_NAMES),
    "DistilBertForQuestionAnswering": (_distilbert_config, QuestionAnsweringHead, _DISTILBERT_NAMES),
    "DistilBertForSequenceClassification": (_distilbert_config, TextClassificationHead, _DISTILBERT_NAMES),
    "DistilBertForMaskedLM": (_distilbert_config, MaskedLMHead, _DISTILBERT_NAMES),
}


def _rename(name: str, names: dict[str, str]) -> str:
    """Our name for a weight of the library; one without a conversion (a tied duplicate, a buffer) keeps its own."""
    layer = re.search(r"\.layer\.(\d+)\.", name)
    module, _, leaf = name.rpartition(".")
    if layer:
        module = module.replace(f".layer.{layer[1]}.", ".layer.#.")
    ours = names.get(module, module)
    return f"{ours.replace('#', layer[1]) if layer else ours}.{leaf}"
