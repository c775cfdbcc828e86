"""Operations that take sums: products of matrices, convolutions, norms, soft-max, attention, reductions.

Sums are taken in fp32, whatever the type of the result: what is rounded is the whole sum.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch.nn import functional

from edge_distil.runtimes.mil.registry import Tensors, operation


@operation()
def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return functional.linear(x, weight, bias)


@operation()
def matmul(x: torch.Tensor, y: torch.Tensor, transpose_x: bool = False, transpose_y: bool = False) -> torch.Tensor:
    """The product over the last two dimensions; the others broadcast. A vector has nothing to transpose."""
    if transpose_x and x.ndim > 1:
        x = x.transpose(-1, -2)
    if transpose_y and y.ndim > 1:
        y = y.transpose(-1, -2)
    return x @ y


@operation()
def einsum(values: Tensors, equation: str) -> torch.Tensor:
    return torch.einsum(equation, *values)


@operation()
def conv(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    strides: list[int] | None = None,
    pad_type: Literal["valid", "custom", "same", "same_lower"] = "valid",
    pad: list[int] | None = None,
    dilations: list[int] | None = None,
    groups: int = 1,
) -> torch.Tensor:
    """Convolution over one, two or three dimensions.

    "same" pads so that a dimension of n comes out as ceil(n / stride): what cannot be halved goes to the end, with
    "same_lower" to the beginning.
    """
    kernel = weight.shape[2:]
    strides = strides or [1] * len(kernel)
    dilations = dilations or [1] * len(kernel)
    around = [(0, 0)] * len(kernel)
    if pad_type == "custom" and pad:
        around = list(zip(pad[::2], pad[1::2], strict=True))
    elif pad_type in ("same", "same_lower"):
        for index, (size, taps, stride, dilation) in enumerate(
            zip(x.shape[2:], kernel, strides, dilations, strict=True)
        ):
            total = max(0, (-(-size // stride) - 1) * stride + (taps - 1) * dilation + 1 - size)
            less, more = total // 2, total - total // 2
            around[index] = (more, less) if pad_type == "same_lower" else (less, more)
    if any(before or after for before, after in around):
        x = functional.pad(x, [amount for pair in reversed(around) for amount in pair])
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[len(kernel) - 1]
    return convolve(x, weight, bias, stride=strides, dilation=dilations, groups=groups)


@operation()
def softmax(x: torch.Tensor, axis: int = -1) -> torch.Tensor:
    return x.softmax(axis)


@operation()
def layer_norm(
    x: torch.Tensor,
    axes: list[int] | None = None,
    gamma: torch.Tensor | None = None,
    beta: torch.Tensor | None = None,
    epsilon: float = 1e-5,
) -> torch.Tensor:
    """Normalisation over some dimensions, all by default; gamma and beta have the sizes of those dimensions."""
    normed = sorted(axis % x.ndim for axis in axes) if axes is not None else list(range(x.ndim))
    sizes = [x.shape[axis] for axis in normed]
    if normed == list(range(x.ndim - len(normed), x.ndim)):
        return functional.layer_norm(x, sizes, gamma, beta, epsilon)
    variance, mean = torch.var_mean(x, normed, correction=0, keepdim=True)
    result = (x - mean) * torch.rsqrt(variance + epsilon)
    shape = [size if axis in normed else 1 for axis, size in enumerate(x.shape)]
    if gamma is not None:
        result = result * gamma.reshape(shape)
    return result if beta is None else result + beta.reshape(shape)


@operation()
def batch_norm(
    x: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    gamma: torch.Tensor | None = None,
    beta: torch.Tensor | None = None,
    epsilon: float = 1e-5,
) -> torch.Tensor:
    return functional.batch_norm(x, mean, variance, gamma, beta, eps=epsilon)


@operation()
def instance_norm(
    x: torch.Tensor, gamma: torch.Tensor | None = None, beta: torch.Tensor | None = None, epsilon: float = 1e-5
) -> torch.Tensor:
    return functional.instance_norm(x, weight=gamma, bias=beta, eps=epsilon)


@operation()
def l2_norm(x: torch.Tensor, epsilon: float = 1e-6) -> torch.Tensor:
    """Over the last three dimensions."""
    return x * torch.rsqrt(x.square().sum((-3, -2, -1), keepdim=True) + epsilon)


@operation()
def scaled_dot_product_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None
) -> torch.Tensor:
    """softmax(query keyᵀ / √E + mask) value. A mask of bools says what takes part."""
    return functional.scaled_dot_product_attention(query, key, value, attn_mask)


_Reduction = Callable[[torch.Tensor, list[int], bool], torch.Tensor]


def _product(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


_REDUCTIONS: dict[str, tuple[_Reduction, bool]] = {
    "reduce_l1_norm": (lambda x, axes, keep: x.abs().sum(axes, keep, dtype=x.dtype), False),
    "reduce_l2_norm": (lambda x, axes, keep: x.square().sum(axes, keep).sqrt(), False),
    "reduce_log_sum": (lambda x, axes, keep: x.sum(axes, keep).log(), False),
    "reduce_log_sum_exp": (torch.logsumexp, False),
    "reduce_max": (torch.amax, True),
    "reduce_mean": (torch.mean, False),
    "reduce_min": (torch.amin, True),
    "reduce_prod": (_product, False),
    "reduce_sum": (lambda x, axes, keep: x.sum(axes, keep, dtype=x.dtype), False),
    "reduce_sum_square": (lambda x, axes, keep: x.square().sum(axes, keep, dtype=x.dtype), False),
}


def _enter_reduction(name: str, reduce: _Reduction, exact: bool) -> None:
    def run(x: torch.Tensor, axes: list[int] | None = None, keep_dims: bool = False) -> torch.Tensor:
        return reduce(x, list(range(x.ndim)) if axes is None else axes, keep_dims)

    operation(name, exact=exact)(run)


for _name, (_reduction, _exact) in _REDUCTIONS.items():
    _enter_reduction(_name, _reduction, _exact)


@operation(exact=True)
def reduce_argmax(
    x: torch.Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: Literal["int32", "uint16"] = "int32"
) -> torch.Tensor:
    return x.argmax(axis, keep_dims).int()


@operation(exact=True)
def reduce_argmin(
    x: torch.Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: Literal["int32", "uint16"] = "int32"
) -> torch.Tensor:
    return x.argmin(axis, keep_dims).int()


@operation()
def cumsum(x: torch.Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> torch.Tensor:
    """Running sums along an axis; an exclusive one leaves its own element out, a reverse one begins at the end."""
    if reverse:
        x = x.flip(axis)
    result = x.cumsum(axis, dtype=x.dtype)
    if exclusive:
        result = result.roll(1, axis)
        result.select(axis, 0).zero_()
    return result.flip(axis) if reverse else result
