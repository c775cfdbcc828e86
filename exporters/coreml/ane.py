"""The encoder in the form that the Neural Engine is fast with, from the same weights as `exporters.encoder`.

Apple's guidance on transformers for the Neural Engine, written out: states are channels first, [B, H, 1, L], so that
the last axis is the long one; linear layers are 1×1 convolutions; attention is one small product for each head, with
no reshaping in between; norms run over the channels. All of it is finite in fp16, as in `exporters.coreml.fp16`.

Shapes: B batch, L tokens, H hidden size, D size of a head, K tokens attended to, Q tokens that attend, V vocabulary,
C classes.
"""

import math
from typing import Any

import torch
from torch import nn

from exporters.coreml.fp16 import SMALLEST_NORMAL, ScaledEmbeddings, without_memory
from exporters.encoder import (
    MASKED_SCORE,
    EncoderConfig,
    Head,
    MaskedLMHead,
    PlainEncoder,
    QuestionAnsweringHead,
    TextClassificationHead,
)


class Pointwise(nn.Conv2d):
    """A linear layer over the channels of [B, H, 1, L]. Loads the matrix of an `nn.Linear`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, kernel_size=1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict[f"{prefix}weight"] = state_dict[f"{prefix}weight"].reshape(self.weight.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of [B, H, 1, L], with no square of a large number and no quotient of small ones.

    A row is first divided by its largest deviation, so that squares lie between 0 and 1 and their mean between 1 / H
    and 1. A row without any deviation becomes zero.
    """

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.bias = nn.Parameter(torch.empty(size))
        self.root_eps = max(math.sqrt(eps), SMALLEST_NORMAL)

    def forward(self, hidden_BH1L: torch.Tensor) -> torch.Tensor:
        """States [B, H, 1, L] to normalised ones."""
        smallest = torch.tensor(SMALLEST_NORMAL)
        centred_BH1L = hidden_BH1L - hidden_BH1L.mean(dim=1, keepdim=True)
        largest_B11L = torch.maximum(centred_BH1L.abs().amax(dim=1, keepdim=True), smallest)
        scaled_BH1L = centred_BH1L / largest_B11L
        # A quotient of tensors: of a number, the converter makes an inverse with an epsilon of its own.
        root_eps_B11L = torch.tensor(self.root_eps) / largest_B11L
        variance_B11L = scaled_BH1L.square().mean(dim=1, keepdim=True) + root_eps_B11L.square()
        normed_BH1L = scaled_BH1L * torch.maximum(variance_B11L, smallest).rsqrt()
        return normed_BH1L * self.weight[:, None, None] + self.bias[:, None, None]


class AneEmbeddings(ScaledEmbeddings):
    """As the plain ones, then channels first and normalised there."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.norm = ChannelNorm(config.hidden_size, config.layer_norm_eps)  # type: ignore[assignment]

    def forward(self, input_ids_BL: torch.Tensor) -> torch.Tensor:
        """Token ids [B, L] to hidden states [B, H, 1, L]."""
        hidden_BLH = self.summed(input_ids_BL, self.positions(input_ids_BL))
        return self.norm(hidden_BLH.transpose(1, 2).unsqueeze(2))


class AneLayer(nn.Module):
    """One transformer layer, with attention head by head."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.head_size = hidden // config.num_attention_heads
        self.query = Pointwise(hidden, hidden)
        self.key = Pointwise(hidden, hidden)
        self.value = Pointwise(hidden, hidden)
        self.attention_output = Pointwise(hidden, hidden)
        self.attention_norm = ChannelNorm(hidden, config.layer_norm_eps)
        self.intermediate = Pointwise(hidden, config.intermediate_size)
        self.output = Pointwise(config.intermediate_size, hidden)
        self.output_norm = ChannelNorm(hidden, config.layer_norm_eps)

    def forward(self, hidden_BH1L: torch.Tensor, mask_BK11: torch.Tensor) -> torch.Tensor:
        """Hidden states [B, H, 1, L] to hidden states [B, H, 1, L]. The mask is added to the attention scores."""
        query_BH1Q = self.query(hidden_BH1L)
        # Scaled after the transposition: the converter would multiply a scale into the weights of a convolution.
        key_BK1H = self.key(hidden_BH1L).transpose(1, 3) * self.head_size**-0.5
        value_BH1K = self.value(hidden_BH1L)
        contexts = []
        for query_BD1Q, key_BK1D, value_BD1K in zip(
            query_BH1Q.split(self.head_size, dim=1),
            key_BK1H.split(self.head_size, dim=3),
            value_BH1K.split(self.head_size, dim=1),
            strict=True,
        ):
            scores_BK1Q = torch.einsum("bchq,bkhc->bkhq", query_BD1Q, key_BK1D) + mask_BK11
            contexts.append(torch.einsum("bkhq,bchk->bchq", scores_BK1Q.softmax(dim=1), value_BD1K))
        context_BH1L = torch.cat(contexts, dim=1)
        hidden_BH1L = self.attention_norm(self.attention_output(context_BH1L) + hidden_BH1L)
        return self.output_norm(self.output(nn.functional.gelu(self.intermediate(hidden_BH1L))) + hidden_BH1L)


class AneQuestionAnsweringHead(QuestionAnsweringHead):
    """One start and one end logit for every token."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.qa_outputs = Pointwise(config.hidden_size, 2)  # type: ignore[assignment]

    def forward(self, hidden_BH1L: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Hidden states [B, H, 1, L] to start logits [B, L] and end logits [B, L]."""
        logits_B21L = self.qa_outputs(hidden_BH1L)
        return logits_B21L[:, 0, 0], logits_B21L[:, 1, 0]


class AneMaskedLMHead(MaskedLMHead):
    """One logit for every word of the vocabulary and every token.

    The last product is no convolution: its matrix is the table of word embeddings, stored once for both.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.transform = Pointwise(config.hidden_size, config.hidden_size)  # type: ignore[assignment]
        self.norm = ChannelNorm(config.hidden_size, config.layer_norm_eps)  # type: ignore[assignment]

    def forward(self, hidden_BH1L: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Hidden states [B, H, 1, L] to logits [B, L, V]."""
        words_BH1L = self.norm(nn.functional.gelu(self.transform(hidden_BH1L)))
        return (self.decoder(words_BH1L.squeeze(2).transpose(1, 2)),)


class AneTextClassificationHead(TextClassificationHead):
    """One logit for every class, from the hidden state of [CLS]."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.pooler = Pointwise(config.hidden_size, config.hidden_size)  # type: ignore[assignment]
        self.classifier = Pointwise(config.hidden_size, config.classes)  # type: ignore[assignment]

    def forward(self, hidden_BH1L: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Hidden states [B, H, 1, L] to logits [B, C]."""
        logits_BC11 = self.classifier(self.activation(self.pooler(hidden_BH1L[:, :, :, :1])))
        return (logits_BC11[:, :, 0, 0],)


_HEADS: dict[type[Head], type[Head]] = {
    QuestionAnsweringHead: AneQuestionAnsweringHead,
    MaskedLMHead: AneMaskedLMHead,
    TextClassificationHead: AneTextClassificationHead,
}


class AneEncoder(PlainEncoder):
    """See the module. Has the weights of `PlainEncoder`, under the same names."""

    def __init__(self, config: EncoderConfig, head: type[Head]) -> None:
        super().__init__(config, _HEADS[head])
        self.embeddings = AneEmbeddings(config)
        self.layers = nn.ModuleList(AneLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """As `PlainEncoder.forward`."""
        hidden_BH1L = self.embeddings(input_ids)
        mask_BK11 = (1 - attention_mask[:, :, None, None].to(hidden_BH1L.dtype)) * MASKED_SCORE
        for layer in self.layers:
            hidden_BH1L = layer(hidden_BH1L, mask_BK11)
        return self.head(hidden_BH1L)


def ane_encoder(model: PlainEncoder, *, longest: int, fixed: bool) -> PlainEncoder:
    """The model in the channels-first form, for inputs of up to `longest` tokens; `fixed`: and never shorter."""
    return without_memory(AneEncoder, model, longest=longest, fixed=fixed)
