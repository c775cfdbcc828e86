"""What each part of a graph is stored in: the precision asked for, and the parts that need a higher one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from exporters.encoder import MaskedLMHead, PlainEncoder, TextClassificationHead

Precision = Literal["fp32", "fp16", "int8", "int4"]
InputType = Literal["int64", "int32"]

# What a part falls back to where its own precision costs too much.
HIGHER: dict[Precision, Precision] = {"int8": "fp32", "int4": "int8"}


@dataclass(frozen=True, slots=True, eq=False)
class Activation:
    """How the input [B, L, K] of a part becomes uint8: round(x / `smoothing` / `scale`) + `zero_point`.

    `smoothing` [K] evens out channels that are far larger than the others, and the weights take it up (Xiao et al.,
    2023, "SmoothQuant"); None divides by nothing.
    """

    scale: float
    zero_point: int
    smoothing: np.ndarray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The precision of a graph, and of the parts that are `kept` in another one.

    `bits` are those of an int8 weight (see `quantization.int8_channels`). With `blocks_at_load`, int4 weights are made
    int8 when the graph is loaded, and computed with as such: on CPUs that is four times as fast as int4 in blocks,
    which saves memory as well as disk. `activations` holds the calibrated inputs of parts; a part that it lacks has
    its input measured as it runs ("dynamic"). `input_type` is that of the token ids and the mask: int64 as the
    ecosystem's pipelines give them, or int32 for accelerators without 64-bit integers.
    """

    precision: Precision = "fp32"
    kept: Mapping[str, Precision] = field(default_factory=dict)
    bits: int = 8
    blocks_at_load: bool = True
    activations: Mapping[str, Activation] = field(default_factory=dict)
    input_type: InputType = "int64"

    def of(self, part: str) -> Precision:
        """The precision of one part of `parts`."""
        return self.kept.get(part, self.precision)


def parts(model: PlainEncoder) -> dict[str, int]:
    """The parts of a model that can be in different precisions, and how many weights each has.

    Query, key and value share their input and are one part. The last product before the logits is none: it is two
    columns or a few, and always exact, but for a masked-LM's, which is as large as the word table.
    """
    embeddings = model.embeddings
    found = {
        "embeddings.word": embeddings.word.weight.numel(),
        "embeddings.position": embeddings.position.weight.numel(),
    }
    hidden, inner = model.config.hidden_size, model.config.intermediate_size
    for index in range(len(model.layers)):
        found[f"layers.{index}.attention"] = 3 * hidden * hidden
        found[f"layers.{index}.attention_output"] = hidden * hidden
        found[f"layers.{index}.intermediate"] = hidden * inner
        found[f"layers.{index}.output"] = hidden * inner
    if isinstance(model.head, MaskedLMHead):
        found |= {"head.transform": hidden * hidden, "head.decoder": hidden * model.config.vocab_size}
    elif isinstance(model.head, TextClassificationHead):
        found["head.pooler"] = hidden * hidden
    return found


def calibrated_parts(model: PlainEncoder) -> list[str]:
    """The parts whose input can be calibrated: all that multiply by a matrix."""
    return [part for part in parts(model) if not part.startswith("embeddings.")]
