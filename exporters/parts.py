"""The parts of a model that can be stored in different precisions, whatever the format.

Shapes: L tokens.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from exporters.encoder import MaskedLMHead, PlainEncoder, TextClassificationHead


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


def modules_of(model: PlainEncoder, part: str) -> list[nn.Linear | nn.Embedding]:
    """The layers that make up a part of `parts`; those of one part share their input."""
    prefix, _, last = part.rpartition(".")
    names = [f"{prefix}.{role}" for role in ("query", "key", "value")] if last == "attention" else [part]
    modules = [model.get_submodule(name) for name in names]
    assert all(isinstance(module, nn.Linear | nn.Embedding) for module in modules)
    return modules  # type: ignore[return-value]


@torch.inference_mode()
def logits_of(model: PlainEncoder, samples: Sequence[np.ndarray]) -> torch.Tensor:
    """All logits for inputs of token ids, int64 [1, L] each, in one vector."""
    outputs = (model(ids := torch.from_numpy(sample), torch.ones_like(ids)) for sample in samples)
    return torch.cat([logits.flatten() for output in outputs for logits in output])
