"""Operations on each element alone: arithmetic, comparisons, activations, casts and quantisation."""

from collections.abc import Callable
from typing import Literal

import torch
from torch.nn import functional

from edge_distil.runtimes.mil.registry import TORCH_DTYPES, RefusedError, operation

Unary = Callable[[torch.Tensor], torch.Tensor]
Binary = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _enter_unary(name: str, function: Unary, exact: bool) -> None:
    def run(x: torch.Tensor) -> torch.Tensor:
        return function(x)

    operation(name, exact=exact)(run)


def _enter_binary(name: str, function: Binary, exact: bool) -> None:
    def run(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return function(x, y)

    operation(name, exact=exact)(run)


_UNARY: dict[str, Unary] = {
    "acos": torch.acos,
    "asin": torch.asin,
    "atan": torch.atan,
    "atanh": torch.atanh,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "softplus": functional.softplus,
    "softsign": functional.softsign,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tan": torch.tan,
    "tanh": torch.tanh,
}
_EXACT_UNARY: dict[str, Unary] = {
    "abs": torch.abs,
    "ceil": torch.ceil,
    "floor": torch.floor,
    "identity": lambda x: x,
    "logical_not": torch.logical_not,
    "relu": torch.relu,
    "relu6": functional.relu6,
    "round": torch.round,
    "sign": torch.sign,
}
_BINARY: dict[str, Binary] = {
    "add": torch.add,
    "floor_div": torch.floor_divide,
    "mod": torch.remainder,
    "mul": torch.mul,
    "pow": torch.pow,
    "sub": torch.sub,
}
_EXACT_BINARY: dict[str, Binary] = {
    "equal": torch.eq,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "not_equal": torch.ne,
}
for _name, _function in _UNARY.items():
    _enter_unary(_name, _function, exact=False)
for _name, _function in _EXACT_UNARY.items():
    _enter_unary(_name, _function, exact=True)
for _name, _pair in _BINARY.items():
    _enter_binary(_name, _pair, exact=False)
for _name, _pair in _EXACT_BINARY.items():
    _enter_binary(_name, _pair, exact=True)


@operation()
def real_div(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x / y. MIL gives integers an integer result and does not say how it is rounded: they are refused."""
    if not x.is_floating_point():
        raise RefusedError("the quotient of integers is not defined, floor_div is")
    return x / y


@operation()
def inverse(x: torch.Tensor, epsilon: float = 1e-4) -> torch.Tensor:
    return 1 / (x + epsilon)


@operation()
def log(x: torch.Tensor, epsilon: float = 1e-45) -> torch.Tensor:
    return torch.log(x + epsilon)


@operation()
def rsqrt(x: torch.Tensor, epsilon: float = 1e-12) -> torch.Tensor:
    return torch.rsqrt(x + epsilon)


@operation(exact=True)
def clip(x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    """x within [alpha, beta]. NaN stays NaN."""
    return x.clamp(alpha, beta)


@operation(exact=True)
def threshold(x: torch.Tensor, alpha: float) -> torch.Tensor:
    return x.clamp(min=alpha)


@operation()
def gelu(
    x: torch.Tensor, mode: Literal["EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION"] = "EXACT"
) -> torch.Tensor:
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return functional.gelu(x, approximate="tanh" if mode == "TANH_APPROXIMATION" else "none")


@operation()
def leaky_relu(x: torch.Tensor, alpha: float) -> torch.Tensor:
    return functional.leaky_relu(x, alpha)


@operation()
def prelu(x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """As a leaky ReLU, with its own alpha for each channel, which is the second dimension."""
    return functional.prelu(x, alpha)


@operation()
def elu(x: torch.Tensor, alpha: float) -> torch.Tensor:
    return functional.elu(x, alpha)


@operation()
def scaled_tanh(x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    return alpha * torch.tanh(beta * x)


@operation()
def sigmoid_hard(x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    return (alpha * x + beta).clamp(0, 1)


@operation()
def linear_activation(x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    return alpha * x + beta


@operation()
def clamped_relu(x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    return torch.where(x >= 0, x, alpha * x).clamp(max=beta)


@operation(exact=True)
def thresholded_relu(x: torch.Tensor, alpha: float) -> torch.Tensor:
    return torch.where(x >= alpha, x, torch.zeros_like(x))


@operation(exact=True)
def select(cond: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.where(cond, a, b)


@operation()
def cast(
    x: torch.Tensor, dtype: Literal["fp16", "fp32", "int8", "uint8", "int16", "uint16", "int32", "bool"]
) -> torch.Tensor:
    """Floats become integers towards zero. Always a copy, so that rounding the result leaves x alone."""
    return x.to(TORCH_DTYPES[dtype], copy=True)


def along(axis: int | None, vector: torch.Tensor, rank: int) -> torch.Tensor:
    """A vector laid along one axis of a tensor of this rank; a scalar as it is."""
    if axis is None or vector.ndim == 0:
        return vector
    return vector.reshape([-1 if dimension == axis % rank else 1 for dimension in range(rank)])


@operation()
def quantize(
    input: torch.Tensor,
    scale: torch.Tensor,
    output_dtype: Literal["int8", "uint8"],
    zero_point: torch.Tensor | None = None,
    axis: int | None = None,
) -> torch.Tensor:
    """round(input / scale) + zero_point, a half going to the even number, and held within the range of the type."""
    limits = torch.iinfo(TORCH_DTYPES[output_dtype])
    steps = torch.round(input / along(axis, scale, input.ndim))
    if zero_point is not None:
        steps = steps + along(axis, zero_point, input.ndim)
    return steps.clamp(limits.min, limits.max).to(TORCH_DTYPES[output_dtype])


@operation()
def dequantize(
    input: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None = None, axis: int | None = None
) -> torch.Tensor:
    """scale * (input - zero_point)."""
    steps = input.float()
    if zero_point is not None:
        steps = steps - along(axis, zero_point, input.ndim)
    return steps * along(axis, scale, input.ndim)
