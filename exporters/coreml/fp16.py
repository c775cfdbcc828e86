"""A `PlainEncoder` whose every intermediate value is finite and meaningful in fp16, in the layout that it has.

In exact arithmetic it equals the plain one. What fp16 asks for (largest value 65504, smallest normal one 2⁻¹⁴, about
6.1e-5):

* BERT's epsilon of 1e-12 is zero in fp16, and what coremltools makes of it, 6e-8, is subnormal, which an accelerator
  may take for zero: a constant row would be 0 / 0. The fp16 program gets 2⁻¹⁴ at least (`exporters.coreml.conversion`).
* That is little against the variance of what the layers add up, about 1, and much against that of the embeddings, about
  0.003 in BERT. So their sum is multiplied by a power of two beforehand, which is exact, and the norm takes it away.
* Scores are scaled before they are summed: the query is divided, not the product.
* The mask adds -10000, not -inf: a row that is all padding has equal scores, and a soft-max of them is finite.
"""

import math
from dataclasses import replace

import torch
from torch import nn

from exporters.encoder import Embeddings, EncoderConfig, Head, Layer, MaskedLMHead, PlainEncoder

SMALLEST_NORMAL = 2.0**-14

# That the embeddings' sums are scaled to: its square is far above the epsilon, and the sum of 1024 squares within fp16.
_DEVIATION = 4.0
# Of what a masked-LM's head normalises: deviations of 0.04 and up, and values up to 2048 remain within fp16.
_HEAD_SCALE = 32.0


class ScaledEmbeddings(Embeddings):
    """Embeddings whose sum is scaled by a power of two before it is normalised.

    `fixed` inputs are as long as the table of positions, which is then no operation in the program but a constant.
    """

    scale = 1.0
    fixed = True

    def positions(self, input_ids_BL: torch.Tensor) -> torch.Tensor:
        """The embeddings [L, H] of the positions of an input."""
        return self.position.weight if self.fixed else self.position.weight[: input_ids_BL.shape[1]]

    def forward(self, input_ids_BL: torch.Tensor) -> torch.Tensor:
        """Token ids [B, L] to hidden states [B, L, H]."""
        hidden_BLH = self.summed(input_ids_BL, self.positions(input_ids_BL))
        return self.norm(hidden_BLH if self.scale == 1 else hidden_BLH * self.scale)


class ScaledLayer(Layer):
    """A layer whose queries are scaled before they meet the keys."""

    def scores(self, query_BNLD: torch.Tensor, key_BNLD: torch.Tensor) -> torch.Tensor:
        """As `Layer.scores`."""
        return (query_BNLD * self.head_size**-0.5) @ key_BNLD.transpose(2, 3)


class ScaledMaskedLMHead(MaskedLMHead):
    """A head whose transformed states are scaled by a power of two before they are normalised."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.norm.eps *= _HEAD_SCALE**2

    def forward(self, hidden_BLH: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """As `MaskedLMHead.forward`."""
        return (self.decoder(self.norm(nn.functional.gelu(self.transform(hidden_BLH)) * _HEAD_SCALE)),)


class Fp16Encoder(PlainEncoder):
    """See the module."""

    def __init__(self, config: EncoderConfig, head: type[Head]) -> None:
        super().__init__(config, ScaledMaskedLMHead if head is MaskedLMHead else head)
        self.embeddings = ScaledEmbeddings(config)
        self.layers = nn.ModuleList(ScaledLayer(config) for _ in range(config.num_hidden_layers))


def without_memory(kind: type[PlainEncoder], model: PlainEncoder, *, longest: int, fixed: bool) -> PlainEncoder:
    """The model as another kind of encoder, for inputs of up to `longest` tokens, sharing the memory of its weights.

    `fixed` says that inputs are never shorter.
    """
    with torch.device("meta"):
        twin = kind(replace(model.config, max_position_embeddings=longest), type(model.head))
    weights = model.state_dict()
    twin.load_state_dict(
        weights | {"embeddings.position.weight": weights["embeddings.position.weight"][:longest]}, assign=True
    )
    if isinstance(twin.head, MaskedLMHead) and is_tied(model):
        twin.head.decoder.weight = twin.embeddings.word.weight
    assert isinstance(twin.embeddings, ScaledEmbeddings)
    twin.embeddings.fixed = fixed
    return twin.eval()


def is_tied(model: PlainEncoder) -> bool:
    """Whether a masked-LM's last product is with the table of word embeddings itself."""
    return isinstance(model.head, MaskedLMHead) and model.head.decoder.weight is model.embeddings.word.weight


def fp16_encoder(model: PlainEncoder, *, longest: int, fixed: bool) -> PlainEncoder:
    """The model with all that fp16 asks for, for inputs of up to `longest` tokens."""
    twin = without_memory(Fp16Encoder, model, longest=longest, fixed=fixed)
    embeddings = twin.embeddings
    assert isinstance(embeddings, ScaledEmbeddings)
    tables = [table.weight for table in (embeddings.word, embeddings.position, embeddings.segment) if table is not None]
    with torch.no_grad():
        variance = sum(float(table.var(dim=1, correction=0).mean()) for table in tables)
    embeddings.scale = 2.0 ** round(math.log2(_DEVIATION) - math.log2(variance) / 2)
    embeddings.norm.eps *= embeddings.scale**2
    return twin
