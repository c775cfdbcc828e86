"""What a part's precision does to a model, told in torch, without writing a graph for every part."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from exporters.calibration import rounded
from exporters.encoder import PlainEncoder
from exporters.onnx.plan import Plan
from exporters.parts import modules_of
from exporters.quantization import channel_scales, int4_blocks, int8_channels, int8_rows


def _stored(module: nn.Linear | nn.Embedding, plan: Plan) -> torch.Tensor:
    """The weights that the plan's precision keeps, [N, K] or [R, H] as they were."""
    weight = module.weight.detach().numpy()
    if plan.precision == "int4":
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
def alone(model: PlainEncoder, plan: Plan, part: str) -> Iterator[PlainEncoder]:
    """The model with one part alone in the plan's precision, while the block runs."""
    modules = modules_of(model, part)
    before = [module.weight.data for module in modules]
    activation = plan.activations.get(part)
    hooks = []
    try:
        for module in modules:
            module.weight.data = _stored(module, plan)
            if isinstance(module, nn.Linear):
                hooks.append(module.register_forward_pre_hook(lambda _, given: (rounded(given[0], activation),)))
        yield model
    finally:
        for module, weight in zip(modules, before, strict=True):
            module.weight.data = weight
        for hook in hooks:
            hook.remove()
