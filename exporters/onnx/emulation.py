"""What a part's precision does to a model's logits, told in torch, without writing a graph for every part.

Used to rank the parts by how much they suffer, and to see the inputs that static quantisation is calibrated on.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from exporters.encoder import PlainEncoder
from exporters.onnx.plan import Activation, Plan, Precision
from exporters.onnx.quantization import channel_scales, int4_blocks, int8_channels, int8_rows


def modules_of(model: PlainEncoder, part: str) -> list[nn.Linear | nn.Embedding]:
    """The layers that make up a part of `exporters.onnx.plan.parts`; those of one part share their input."""
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


def rounded(values: torch.Tensor, activation: Activation | None) -> torch.Tensor:
    """Values after their way through uint8: with the range that they have, or with a calibrated one."""
    if activation is None:
        low, high = values.min().clamp(max=0), values.max().clamp(min=0)
        scale = ((high - low) / 255).clamp(min=1e-12)
        zero = (-low / scale).round()
        return (((values / scale).round() + zero).clamp(0, 255) - zero) * scale
    smoothing = torch.ones(()) if activation.smoothing is None else torch.from_numpy(activation.smoothing)
    codes = (values / smoothing / activation.scale).round() + activation.zero_point
    return (codes.clamp(0, 255) - activation.zero_point) * activation.scale * smoothing


def _stored(module: nn.Linear | nn.Embedding, precision: Precision, plan: Plan) -> torch.Tensor:
    """The weights that a precision keeps, [N, K] or [R, H] as they were."""
    weight = module.weight.detach().numpy()
    if precision == "int4":
        packed, scales = int4_blocks(weight)
        codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*scales.shape, -1).astype(np.float32) - 8
        values = (codes * scales[..., None]).reshape(len(weight), -1)[:, : weight.shape[1]]
        if isinstance(module, nn.Linear) and plan.blocks_at_load:
            channels_N1 = channel_scales(scales, plan.bits)[:, None]
            values = np.rint(values / channels_N1) * channels_N1
        return torch.from_numpy(values)
    if isinstance(module, nn.Embedding):
        rows, scales = int8_rows(weight)
        return torch.from_numpy(rows * scales[:, None])
    channels, scales = int8_channels(weight.T, plan.bits)
    return torch.from_numpy((channels * scales).T.copy())


@contextmanager
def _in_precision(model: PlainEncoder, part: str, precision: Precision, plan: Plan) -> Iterator[None]:
    modules = modules_of(model, part)
    before = [module.weight.data for module in modules]
    activation = plan.activations.get(part)
    hooks = []
    try:
        for module in modules:
            module.weight.data = _stored(module, precision, plan)
            if isinstance(module, nn.Linear):
                hooks.append(module.register_forward_pre_hook(lambda _, given: (rounded(given[0], activation),)))
        yield
    finally:
        for module, weight in zip(modules, before, strict=True):
            module.weight.data = weight
        for hook in hooks:
            hook.remove()


def sensitivity(
    model: PlainEncoder,
    parts: Sequence[str],
    precision: Precision,
    plan: Plan,
    samples: Sequence[np.ndarray],
    progress: Callable[[str], None] = lambda part: None,
) -> dict[str, float]:
    """The mean squared change of the logits when one part alone is in `precision`, by part, the worst first."""
    expected = logits_of(model, samples)
    errors = {}
    for part in parts:
        progress(part)
        with _in_precision(model, part, precision, plan):
            errors[part] = float((logits_of(model, samples) - expected).square().mean())
    return dict(sorted(errors.items(), key=lambda entry: -entry[1]))
