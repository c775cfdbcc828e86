"""Static quantisation: the range of every product's input, found beforehand on real texts.

Rows are what reaches a part for one token, [K] values each.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from exporters.encoder import PlainEncoder
from exporters.parts import logits_of, modules_of

Method = Literal["minmax", "percentile", "entropy"]

_PERCENTILE = 99.99  # of the values on either side; the few beyond it are clipped
_ROWS = 256  # kept of every part, spread over all samples
_BINS = 2048
_SHARES = np.linspace(1.0, 0.3, 36)  # of the full range, tried by "entropy"
# Smoothing costs a multiplication of every input: it has to take away this much of the error.
_WORTH_SMOOTHING = 0.8


@dataclass(frozen=True, slots=True, eq=False)
class Activation:
    """How the input [B, L, K] of a part becomes uint8: round(x / `smoothing` / `scale`) + `zero_point`.

    `smoothing` [K] evens out channels that are far larger than the others, and the weights take it up (Xiao et al.,
    2023, "SmoothQuant"); None divides by nothing.
    """

    scale: float
    zero_point: int
    smoothing: np.ndarray | None = None


@dataclass(slots=True)
class _Seen:
    """What reached one part."""

    low: float = 0.0
    high: float = 0.0
    rows: list[torch.Tensor] = field(default_factory=list)


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


@contextmanager
def _watched(model: PlainEncoder, parts: Sequence[str], rows: int) -> Iterator[dict[str, _Seen]]:
    """Note what reaches the parts while the block runs; `rows` of each call are kept."""
    seen = {part: _Seen() for part in parts}
    chance = torch.Generator().manual_seed(0)

    def note(of_part: _Seen) -> Any:
        def hook(_: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            states_TK = given[0].reshape(-1, given[0].shape[-1])
            of_part.low = min(of_part.low, float(states_TK.min()))
            of_part.high = max(of_part.high, float(states_TK.max()))
            of_part.rows.append(states_TK[torch.randperm(len(states_TK), generator=chance)[:rows]].clone())

        return hook

    hooks = [modules_of(model, part)[0].register_forward_pre_hook(note(seen[part])) for part in parts]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _clipped(values: np.ndarray, low: float, high: float, method: Method) -> tuple[float, float]:
    """The range to be represented, out of the whole one."""
    if method == "percentile":
        share = np.percentile(values, [100 - _PERCENTILE, _PERCENTILE])
        return min(0.0, float(share[0])), max(0.0, float(share[1]))
    if method == "entropy":
        counts, _ = np.histogram(values, _BINS, (low, high))
        kept = min(_SHARES, key=lambda share: _divergence(counts, low, high, share))
        return low * kept, high * kept
    return low, high


def _divergence(counts_B: np.ndarray, low: float, high: float, share: float) -> float:
    """KL(values || values in 256 steps of a share of the range), from their histogram over the whole range."""
    centres_B = low + (np.arange(_BINS) + 0.5) * (high - low) / _BINS
    step = share * (high - low) / 255
    codes_B = np.rint(np.clip(centres_B, share * low, share * high) / step).astype(int)
    codes_B -= codes_B.min()
    occupied_B = counts_B > 0
    sums = np.bincount(codes_B, counts_B)
    bins = np.bincount(codes_B, occupied_B)
    # Within a step all values look alike, and those clipped look like the outermost.
    spread_B = np.where(occupied_B, (sums / np.maximum(bins, 1))[codes_B], 0)
    p_B, q_B = counts_B[occupied_B] / counts_B.sum(), spread_B[occupied_B] / spread_B.sum()
    return float((p_B * np.log(p_B / q_B)).sum())


def _activation(rows_RK: torch.Tensor, low: float, high: float, method: Method, smoothing: Any = None) -> Activation:
    low, high = _clipped(rows_RK.numpy().ravel(), low, high, method)
    scale = max((high - low) / 255, 1e-12)
    return Activation(scale, int(np.clip(np.rint(-low / scale), 0, 255)), smoothing)


def _error(rows_RK: torch.Tensor, weight_NK: torch.Tensor, activation: Activation) -> float:
    """Squared error of the product from rounding its input and its weight, whose channels have a scale each."""
    factors = 1.0 if activation.smoothing is None else torch.from_numpy(activation.smoothing)
    scaled_NK = weight_NK * factors
    scales_N1 = scaled_NK.abs().amax(dim=1, keepdim=True) / 127
    stored_NK = (scaled_NK / scales_N1).round() * scales_N1 / factors
    return float((rounded(rows_RK, activation) @ stored_NK.T - rows_RK @ weight_NK.T).square().sum())


def calibrate(
    model: PlainEncoder, parts: Sequence[str], samples: Sequence[np.ndarray], method: Method = "minmax"
) -> dict[str, Activation]:
    """How the inputs of the parts become uint8, by part, from samples of token ids, int64 [1, L] each.

    "minmax" represents all that was seen, "percentile" leaves out the outermost values, "entropy" takes the range whose
    256 steps tell the values apart best. Channels are smoothed where that takes a fifth of the error away (Xiao et
    al., 2023, with a migration strength of one half).
    """
    with _watched(model, parts, max(1, _ROWS // len(samples))) as seen:
        logits_of(model, samples)
    return {part: _calibrated(model, part, of_part, method) for part, of_part in seen.items()}


@torch.inference_mode()
def _calibrated(model: PlainEncoder, part: str, seen: _Seen, method: Method) -> Activation:
    rows_RK = torch.cat(seen.rows)
    weight_NK = torch.cat([module.weight for module in modules_of(model, part)])
    plain = _activation(rows_RK, seen.low, seen.high, method)
    largest_K = rows_RK.abs().amax(dim=0).clamp(min=1e-5)
    factors_K = (largest_K / weight_NK.abs().amax(dim=0).clamp(min=1e-5)).sqrt()
    smooth_RK = rows_RK / factors_K
    smooth = _activation(smooth_RK, float(smooth_RK.min()), float(smooth_RK.max()), method, factors_K.numpy())
    better = _error(rows_RK, weight_NK, smooth) < _WORTH_SMOOTHING * _error(rows_RK, weight_NK, plain)
    return smooth if better else plain
