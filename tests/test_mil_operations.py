"""Every operation of a Core ML program, built, saved, read back and run: against NumPy, SciPy, or values by hand."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special
import torch
from mil_programs import mb, save_program

from edge_distil.errors import UserError
from edge_distil.runtimes.mil import Interpreter, read_program
from edge_distil.runtimes.mil.operations import OPERATIONS
from edge_distil.runtimes.mil.program import Program, Value

Arrays = Sequence[np.ndarray]


def array(*shape: int, low: float = -3, high: float = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def ints(*values: Any) -> np.ndarray:
    return np.array(values, dtype=np.int32)


def run(
    body: Callable[..., Any], inputs: Arrays, path: Path, *, opset: int = 16, rounding: str = "fp32"
) -> list[np.ndarray]:
    program = read_program(save_program(body, inputs, path / "p.mlpackage", opset=opset))
    found = Interpreter(program, rounding)(dict(zip(program.inputs, inputs, strict=True)))
    return [found[name].numpy() for name in program.outputs]


X, Y = array(2, 3, 4), array(2, 3, 4, seed=1)
ROW = array(4, seed=2)
POSITIVE = array(2, 3, 4, low=0.1, high=3)
UNIT = array(2, 3, 4, low=-0.9, high=0.9)
WHOLE = ints([-7, 5, 0], [9, -2, 4])
TIES = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.4, -0.6], dtype=np.float32)

UNARY: dict[str, tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]] = {
    "abs": (X, np.abs),
    "acos": (UNIT, np.arccos),
    "asin": (UNIT, np.arcsin),
    "atan": (X, np.arctan),
    "atanh": (UNIT, np.arctanh),
    "ceil": (X, np.ceil),
    "cos": (X, np.cos),
    "cosh": (X, np.cosh),
    "erf": (X, scipy.special.erf),
    "exp": (X, np.exp),
    "exp2": (X, np.exp2),
    "floor": (X, np.floor),
    "identity": (X, lambda x: x),
    "relu": (X, lambda x: np.maximum(x, 0)),
    "relu6": (4 * X, lambda x: np.clip(x, 0, 6)),
    "round": (TIES, np.round),
    "sigmoid": (X, scipy.special.expit),
    "sign": (np.array([-2, 0, 3], dtype=np.float32), np.sign),
    "silu": (X, lambda x: x * scipy.special.expit(x)),
    "sin": (X, np.sin),
    "sinh": (X, np.sinh),
    "softplus": (X, lambda x: np.log1p(np.exp(x))),
    "softsign": (X, lambda x: x / (1 + np.abs(x))),
    "sqrt": (POSITIVE, np.sqrt),
    "square": (X, np.square),
    "tan": (UNIT, np.tan),
    "tanh": (X, np.tanh),
}
BINARY: dict[str, tuple[np.ndarray, np.ndarray, Callable[[np.ndarray, np.ndarray], np.ndarray]]] = {
    "add": (X, ROW, np.add),
    "floor_div": (X, ROW, np.floor_divide),
    "maximum": (X, ROW, np.maximum),
    "minimum": (X, ROW, np.minimum),
    "mod": (X, ROW, np.mod),
    "mul": (X, ROW, np.multiply),
    "pow": (POSITIVE, ROW, np.power),
    "real_div": (X, ROW, np.divide),
    "sub": (X, ROW, np.subtract),
}
COMPARISONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "equal": np.equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "not_equal": np.not_equal,
}
REDUCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "reduce_l1_norm": lambda x, **k: np.abs(x).sum(**k),
    "reduce_l2_norm": lambda x, **k: np.sqrt(np.square(x).sum(**k)),
    "reduce_log_sum": lambda x, **k: np.log(x.sum(**k)),
    "reduce_log_sum_exp": lambda x, **k: scipy.special.logsumexp(x, **k),
    "reduce_max": np.max,
    "reduce_mean": np.mean,
    "reduce_min": np.min,
    "reduce_prod": np.prod,
    "reduce_sum": np.sum,
    "reduce_sum_square": lambda x, **k: np.square(x).sum(**k),
}


def normed(x: np.ndarray, axes: tuple[int, ...], epsilon: float) -> np.ndarray:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    weights = np.exp(x - x.max(axis, keepdims=True))
    return weights / weights.sum(axis, keepdims=True)


def convolved(
    x: np.ndarray,
    weight: np.ndarray,
    around: Sequence[tuple[int, int]],
    strides: Sequence[int],
    dilations: Sequence[int],
    groups: int = 1,
) -> np.ndarray:
    """A convolution as its definition says, one output at a time."""
    x = np.pad(x, [(0, 0), (0, 0), *around])
    kernel = weight.shape[2:]
    sizes = [
        (size - (taps - 1) * dilation - 1) // stride + 1
        for size, taps, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True)
    ]
    out = np.zeros((len(x), len(weight), *sizes), dtype=np.float32)
    width = weight.shape[1]
    for channel in range(len(weight)):
        group = channel // (len(weight) // groups)
        for place in np.ndindex(*sizes):
            window = tuple(
                slice(at * stride, at * stride + (taps - 1) * dilation + 1, dilation)
                for at, taps, stride, dilation in zip(place, kernel, strides, dilations, strict=True)
            )
            seen = x[(slice(None), slice(group * width, (group + 1) * width), *window)]
            out[(slice(None), channel, *place)] = (seen * weight[channel]).sum(axis=tuple(range(1, x.ndim)))
    return out


IMAGE = array(2, 4, 7, 6)
SIGNAL = array(1, 2, 9)
KERNEL = array(6, 4, 3, 2, seed=3)
TAPS = array(3, 2, 3, seed=4)
TOKENS, TABLE = ints([[1, 0, 3], [2, 2, 4]]), array(5, 3)
WEIGHT, BIAS = array(5, 4, seed=5), array(5, seed=6)
QUERY, KEY, VALUE = array(2, 3, 5, 4), array(2, 3, 6, 4, seed=1), array(2, 3, 6, 7, seed=2)
KEPT = np.array([[1, 1, 0, 1, 1, 0]] * 5, dtype=bool)
ATTENTION = QUERY @ KEY.swapaxes(-1, -2) / 2
GAMMA, BETA = array(4, seed=7), array(4, seed=8)

# What is built, its inputs, what it gives, and by which opset. One case for every mode of an operation.
Case = tuple[Callable[..., Any], Arrays, Any, int]
CASES: dict[str, Case] = {
    **{f"{name}": ((lambda x, n=name: getattr(mb, n)(x=x)), [x], f(x), 16) for name, (x, f) in UNARY.items()},
    **{
        f"{name}": ((lambda x, y, n=name: getattr(mb, n)(x=x, y=y)), [x, y], f(x, y), 16)
        for name, (x, y, f) in BINARY.items()
    },
    **{
        f"{name}": (
            (lambda x, y, n=name: mb.cast(x=getattr(mb, n)(x=x, y=y), dtype="int32")),
            [WHOLE, WHOLE * ints(1, -1, 1)],
            f(WHOLE, WHOLE * ints(1, -1, 1)),
            16,
        )
        for name, f in COMPARISONS.items()
    },
    **{
        f"{name} {bits}": (
            (
                lambda x, y, n=name: mb.cast(
                    x=getattr(mb, n)(x=mb.cast(x=x, dtype="bool"), y=mb.cast(x=y, dtype="bool")), dtype="int32"
                )
            ),
            [ints(0, 0, 1, 1), ints(0, 1, 0, 1)],
            ints(*map(int, bits)),
            16,
        )
        for name, bits in (("logical_and", "0001"), ("logical_or", "0111"), ("logical_xor", "0110"))
    },
    **{
        f"{name} {axes} {keep}": (
            (lambda x, n=name, a=axes, k=keep: getattr(mb, n)(x=x, axes=a, keep_dims=k)),
            [POSITIVE],
            f(POSITIVE, axis=tuple(axes), keepdims=keep),
            16,
        )
        for name, f in REDUCTIONS.items()
        for axes, keep in (([-1], False), ([0, 2], True))
    },
    "logical_not": (
        lambda x: mb.cast(x=mb.logical_not(x=mb.cast(x=x, dtype="bool")), dtype="int32"),
        [ints(0, 3, -1)],
        ints(1, 0, 0),
        16,
    ),
    "reduce_sum over all": (lambda x: mb.reduce_sum(x=x), [X], X.sum(), 16),
    "reduce_sum of integers": (lambda x: mb.reduce_sum(x=x, axes=[0]), [WHOLE], ints(2, 3, 4), 16),
    "reduce_argmax": (lambda x: mb.reduce_argmax(x=x, axis=1), [X], X.argmax(1), 16),
    "reduce_argmax uint16": (
        lambda x: mb.cast(x=mb.reduce_argmax(x=x, keep_dims=True, output_dtype="uint16"), dtype="int32"),
        [X],
        X.argmax(-1, keepdims=True),
        17,
    ),
    "reduce_argmin": (lambda x: mb.reduce_argmin(x=x, axis=0, keep_dims=True), [X], X.argmin(0, keepdims=True), 16),
    "add of integers": (lambda x, y: mb.add(x=x, y=y), [WHOLE, WHOLE], 2 * WHOLE, 16),
    "floor_div of integers": (lambda x: mb.floor_div(x=x, y=np.int32(2)), [WHOLE], ints([-4, 2, 0], [4, -1, 2]), 16),
    "mod of integers": (lambda x: mb.mod(x=x, y=np.int32(3)), [WHOLE], ints([2, 2, 0], [0, 1, 1]), 16),
    "inverse": (lambda x: mb.inverse(x=x, epsilon=0.5), [POSITIVE], 1 / (POSITIVE + 0.5), 16),
    "inverse by default": (lambda x: mb.inverse(x=x), [POSITIVE], 1 / (POSITIVE + 1e-4), 16),
    "log": (lambda x: mb.log(x=x, epsilon=0.5), [POSITIVE], np.log(POSITIVE + 0.5), 16),
    "log by default": (lambda x: mb.log(x=x), [POSITIVE], np.log(POSITIVE), 16),
    "rsqrt": (lambda x: mb.rsqrt(x=x, epsilon=0.5), [POSITIVE], (POSITIVE + 0.5) ** -0.5, 16),
    "rsqrt by default": (lambda x: mb.rsqrt(x=x), [POSITIVE], POSITIVE**-0.5, 17),
    "clip": (lambda x: mb.clip(x=x, alpha=-1.0, beta=0.5), [X], np.clip(X, -1, 0.5), 16),
    "threshold": (lambda x: mb.threshold(x=x, alpha=0.5), [X], np.maximum(X, 0.5), 16),
    "gelu by default": (lambda x: mb.gelu(x=x), [X], X / 2 * (1 + scipy.special.erf(X / 2**0.5)), 16),
    "gelu exact": (lambda x: mb.gelu(x=x, mode="EXACT"), [X], X / 2 * (1 + scipy.special.erf(X / 2**0.5)), 16),
    "gelu tanh": (
        lambda x: mb.gelu(x=x, mode="TANH_APPROXIMATION"),
        [X],
        X / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (X + 0.044715 * X**3))),
        16,
    ),
    "gelu sigmoid": (
        lambda x: mb.gelu(x=x, mode="SIGMOID_APPROXIMATION"),
        [X],
        X * scipy.special.expit(1.702 * X),
        16,
    ),
    "leaky_relu": (lambda x: mb.leaky_relu(x=x, alpha=0.2), [X], np.where(X >= 0, X, 0.2 * X), 16),
    "prelu": (
        lambda x: mb.prelu(x=x, alpha=np.float32([0.1, 0.2, 0.3, 0.4])),
        [IMAGE],
        np.where(IMAGE >= 0, IMAGE, IMAGE * np.float32([0.1, 0.2, 0.3, 0.4])[:, None, None]),
        16,
    ),
    "elu": (lambda x: mb.elu(x=x, alpha=0.7), [X], np.where(X > 0, X, 0.7 * np.expm1(X)), 16),
    "scaled_tanh": (lambda x: mb.scaled_tanh(x=x, alpha=1.7, beta=0.6), [X], 1.7 * np.tanh(0.6 * X), 16),
    "sigmoid_hard": (lambda x: mb.sigmoid_hard(x=x, alpha=0.2, beta=0.4), [X], np.clip(0.2 * X + 0.4, 0, 1), 16),
    "linear_activation": (lambda x: mb.linear_activation(x=x, alpha=2.0, beta=0.5), [X], 2 * X + 0.5, 16),
    "clamped_relu": (
        lambda x: mb.clamped_relu(x=x, alpha=0.3, beta=1.0),
        [X],
        np.minimum(np.where(X >= 0, X, 0.3 * X), 1),
        16,
    ),
    "thresholded_relu": (lambda x: mb.thresholded_relu(x=x, alpha=1.0), [X], np.where(X >= 1, X, 0), 16),
    "softmax": (lambda x: mb.softmax(x=x, axis=1), [X], softmax(X, 1), 16),
    "softmax by default": (lambda x: mb.softmax(x=x), [X], softmax(X), 16),
    "select": (
        lambda x, y: mb.select(cond=mb.greater(x=x, y=y), a=x, b=y),
        [X, ROW],
        np.maximum(X, ROW),
        16,
    ),
    "cast to integers": (lambda x: mb.cast(x=x, dtype="int32"), [TIES], np.trunc(TIES), 16),
    "cast to bytes": (
        lambda x: mb.cast(x=mb.cast(x=x, dtype="uint8"), dtype="int32"),
        [np.float32([0, 3.9, 255])],
        ints(0, 3, 255),
        17,
    ),
    "cast to floats": (lambda x: mb.cast(x=x, dtype="fp32"), [WHOLE], WHOLE, 16),
    "linear": (lambda x: mb.linear(x=x, weight=WEIGHT, bias=BIAS), [X], X @ WEIGHT.T + BIAS, 16),
    "linear without bias": (lambda x: mb.linear(x=x, weight=WEIGHT), [X], X @ WEIGHT.T, 16),
    "matmul": (lambda x, y: mb.matmul(x=x, y=y), [X, array(4, 2)], X @ array(4, 2), 16),
    "matmul transposed": (
        lambda x, y: mb.matmul(x=x, y=y, transpose_x=True, transpose_y=True),
        [array(3, 1, 4, 2), array(5, 6, 4)],
        array(3, 1, 4, 2).swapaxes(-1, -2) @ array(5, 6, 4).swapaxes(-1, -2),
        16,
    ),
    "matmul transposed on one side": (
        lambda x, y: mb.matmul(x=x, y=y, transpose_y=True),
        [QUERY, KEY],
        QUERY @ KEY.swapaxes(-1, -2),
        16,
    ),
    "matmul of a vector": (lambda x, y: mb.matmul(x=x, y=y), [ROW, array(4, 2)], ROW @ array(4, 2), 16),
    "einsum": (
        lambda x, y: mb.einsum(values=(x, y), equation="nchw,nwhu->nchu"),
        [array(2, 3, 1, 5), array(2, 5, 4, 6)],
        np.einsum("nchw,nwhu->nchu", array(2, 3, 1, 5).repeat(4, 2), array(2, 5, 4, 6)),
        16,
    ),
    "einsum of rank 3": (
        lambda x, y: mb.einsum(values=(x, y), equation="chw,whr->chr"),
        [array(3, 4, 5), array(5, 4, 6)],
        np.einsum("chw,whr->chr", array(3, 4, 5), array(5, 4, 6)),
        16,
    ),
    "layer_norm": (
        lambda x: mb.layer_norm(x=x, axes=[-1], gamma=GAMMA, beta=BETA, epsilon=1e-3),
        [X],
        normed(X, (2,), 1e-3) * GAMMA + BETA,
        16,
    ),
    "layer_norm of two dimensions": (
        lambda x: mb.layer_norm(x=x, axes=[1, 2], gamma=array(3, 4), epsilon=0.1),
        [X],
        normed(X, (1, 2), 0.1) * array(3, 4),
        16,
    ),
    "layer_norm of an inner dimension": (
        lambda x: mb.layer_norm(x=x, axes=[1], gamma=array(3), beta=array(3, seed=1), epsilon=0.1),
        [X],
        normed(X, (1,), 0.1) * array(3)[:, None] + array(3, seed=1)[:, None],
        16,
    ),
    "layer_norm of all": (lambda x: mb.layer_norm(x=x, axes=[0, 1, 2]), [X], normed(X, (0, 1, 2), 1e-5), 16),
    "batch_norm": (
        lambda x: mb.batch_norm(x=x, mean=array(3), variance=POSITIVE[0, :, 0], gamma=array(3), beta=array(3)),
        [X],
        (X - array(3)[:, None]) / np.sqrt(POSITIVE[0, :, :1] + 1e-5) * array(3)[:, None] + array(3)[:, None],
        16,
    ),
    "instance_norm": (
        lambda x: mb.instance_norm(x=x, gamma=array(4), beta=array(4, seed=1), epsilon=0.1),
        [IMAGE],
        normed(IMAGE, (2, 3), 0.1) * array(4)[:, None, None] + array(4, seed=1)[:, None, None],
        16,
    ),
    "l2_norm": (
        lambda x: mb.l2_norm(x=x, epsilon=0.5),
        [IMAGE],
        IMAGE / np.sqrt(np.square(IMAGE).sum((1, 2, 3), keepdims=True) + 0.5),
        16,
    ),
    "conv 1x1": (
        lambda x: mb.conv(x=x, weight=array(5, 4, 1, 1), bias=BIAS),
        [IMAGE],
        np.einsum("oc,nchw->nohw", array(5, 4), IMAGE) + BIAS[:, None, None],
        16,
    ),
    "conv valid": (
        lambda x: mb.conv(x=x, weight=KERNEL, pad_type="valid", strides=[2, 1]),
        [IMAGE],
        convolved(IMAGE, KERNEL, [(0, 0)] * 2, (2, 1), (1, 1)),
        16,
    ),
    "conv custom": (
        lambda x: mb.conv(x=x, weight=KERNEL, pad_type="custom", pad=[2, 0, 1, 3], dilations=[1, 2]),
        [IMAGE],
        convolved(IMAGE, KERNEL, [(2, 0), (1, 3)], (1, 1), (1, 2)),
        16,
    ),
    # 7 and 6 come out as 4 and 6, for which the strided windows want 9 and 7: the odd one goes to the end.
    "conv same": (
        lambda x: mb.conv(x=x, weight=KERNEL, pad_type="same", strides=[2, 1]),
        [IMAGE],
        convolved(IMAGE, KERNEL, [(1, 1), (0, 1)], (2, 1), (1, 1)),
        16,
    ),
    "conv same_lower": (
        lambda x: mb.conv(x=x, weight=KERNEL, pad_type="same_lower", strides=[2, 1]),
        [IMAGE],
        convolved(IMAGE, KERNEL, [(1, 1), (1, 0)], (2, 1), (1, 1)),
        16,
    ),
    "conv in groups": (
        lambda x: mb.conv(x=x, weight=KERNEL[:, :2], groups=2),
        [IMAGE],
        convolved(IMAGE, KERNEL[:, :2], [(0, 0)] * 2, (1, 1), (1, 1), groups=2),
        16,
    ),
    "conv of one dimension": (
        lambda x: mb.conv(x=x, weight=TAPS, pad_type="custom", pad=[0, 2], strides=[3]),
        [SIGNAL],
        convolved(SIGNAL, TAPS, [(0, 2)], (3,), (1,)),
        17,
    ),
    "scaled_dot_product_attention": (
        lambda x, y, z: mb.scaled_dot_product_attention(query=x, key=y, value=z),
        [QUERY, KEY, VALUE],
        softmax(ATTENTION) @ VALUE,
        18,
    ),
    "scaled_dot_product_attention with a mask of bools": (
        lambda x, y, z: mb.scaled_dot_product_attention(query=x, key=y, value=z, attn_mask=KEPT),
        [QUERY, KEY, VALUE],
        softmax(np.where(KEPT, ATTENTION, -np.inf)) @ VALUE,
        18,
    ),
    "scaled_dot_product_attention with a mask that is added": (
        lambda x, y, z: mb.scaled_dot_product_attention(query=x, key=y, value=z, attn_mask=array(5, 6)),
        [QUERY, KEY, VALUE],
        softmax(ATTENTION + array(5, 6)) @ VALUE,
        18,
    ),
    "cumsum": (lambda x: mb.cumsum(x=x, axis=1), [X], X.cumsum(1), 16),
    "cumsum of integers": (lambda x: mb.cumsum(x=x), [WHOLE], WHOLE.cumsum(0), 16),
    "cumsum exclusive": (
        lambda x: mb.cumsum(x=x, axis=0, exclusive=True),
        [ints(3, 1, 4, 1)],
        ints(0, 3, 4, 8),
        16,
    ),
    "cumsum reverse": (lambda x: mb.cumsum(x=x, axis=0, reverse=True), [ints(3, 1, 4, 1)], ints(9, 6, 5, 1), 16),
    "cumsum exclusive and reverse": (
        lambda x: mb.cumsum(x=x, axis=0, exclusive=True, reverse=True),
        [ints(3, 1, 4, 1)],
        ints(6, 5, 1, 0),
        16,
    ),
    "transpose": (lambda x: mb.transpose(x=x, perm=[2, 0, 1]), [X], X.transpose(2, 0, 1), 16),
    "reshape": (lambda x: mb.reshape(x=x, shape=[3, 8]), [X], X.reshape(3, 8), 16),
    "reshape of what is left": (lambda x: mb.reshape(x=x, shape=[4, -1]), [X], X.reshape(4, 6), 16),
    "reshape with zeros from the first": (lambda x: mb.reshape(x=x, shape=[0, -1, 2]), [X], X.reshape(2, 6, 2), 16),
    "reshape with zeros from the last": (
        lambda x: mb.reshape(x=x, shape=[1, 0, -1, 0]),
        [array(2, 50)],
        array(2, 50).reshape(1, 1, 2, 50),
        17,
    ),
    "reshape with zeros to fewer dimensions": (lambda x: mb.reshape(x=x, shape=[-1, 0]), [X], X.reshape(6, 4), 17),
    "reshape by what is computed": (
        lambda x, y: mb.reshape(
            x=x, shape=mb.concat(values=(mb.slice_by_size(x=y, begin=[1], size=[1]), [-1]), axis=0)
        ),
        [X, ints(9, 3)],
        X.reshape(3, 8),
        16,
    ),
    "expand_dims": (lambda x: mb.expand_dims(x=x, axes=[0, -1, 2]), [X[0]], X[0].reshape(1, 3, 1, 4, 1), 16),
    "squeeze": (lambda x: mb.squeeze(x=x), [X[None, :, None]], X, 16),
    "squeeze of one dimension": (lambda x: mb.squeeze(x=x, axes=[-3]), [X[None, :, None]], X[None], 16),
    "concat": (lambda x, y: mb.concat(values=(x, y, x), axis=-2), [X, Y], np.concatenate([X, Y, X], 1), 16),
    "concat interleaved": (
        lambda x, y: mb.concat(values=(x, y), axis=0, interleave=True),
        [ints([1, 2], [3, 4]), ints([5, 6], [7, 8])],
        ints([1, 2], [5, 6], [3, 4], [7, 8]),
        16,
    ),
    "concat interleaved in the last dimension": (
        lambda x, y: mb.concat(values=(x, y), axis=-1, interleave=True),
        [ints([1, 2], [3, 4]), ints([5, 6], [7, 8])],
        ints([1, 5, 2, 6], [3, 7, 4, 8]),
        16,
    ),
    "concat of scalars": (
        lambda x: mb.concat(values=(mb.squeeze(x=x), np.int32(7)), axis=0),
        [ints(3)],
        ints(3, 7),
        16,
    ),
    "split": (lambda x: mb.split(x=x, num_splits=2, axis=-1), [X], [X[..., :2], X[..., 2:]], 16),
    "split by sizes": (lambda x: mb.split(x=x, split_sizes=[2, 1], axis=1), [X], [X[:, :2], X[:, 2:]], 16),
    "stack": (lambda x, y: mb.stack(values=(x, y), axis=1), [X, Y], np.stack([X, Y], 1), 16),
    "slice_by_index": (
        lambda x: mb.slice_by_index(x=x, begin=[0, 1, -3], end=[1, 3, -1]),
        [X],
        X[0:1, 1:3, -3:-1],
        16,
    ),
    "slice_by_index with masks": (
        lambda x: mb.slice_by_index(
            x=x, begin=[1, 9, 1], end=[9, 2, 9], begin_mask=[False, True, False], end_mask=[True, False, True]
        ),
        [X],
        X[1:, :2, 1:],
        16,
    ),
    "slice_by_index with strides": (
        lambda x: mb.slice_by_index(
            x=x,
            begin=[0, 2, 0],
            end=[2, 0, 0],
            stride=[1, -1, -2],
            begin_mask=[False, False, True],
            end_mask=[False, False, True],
        ),
        [X],
        X[0:2, 2:0:-1, ::-2],
        16,
    ),
    "slice_by_index squeezed": (
        lambda x: mb.slice_by_index(
            x=x, begin=[-1, 0, 2], end=[0, 0, 0], squeeze_mask=[True, False, True], end_mask=[False, True, False]
        ),
        [X],
        X[-1, :, 2],
        16,
    ),
    "slice_by_size": (
        lambda x: mb.slice_by_size(x=x, begin=[0, 1, 1], size=[2, 1, -1]),
        [X],
        X[:, 1:2, 1:],
        16,
    ),
    "gather": (lambda x: mb.gather(x=TABLE, indices=x), [TOKENS], TABLE[TOKENS], 16),
    "gather of one place": (
        lambda x, y: mb.gather(x=x, indices=mb.squeeze(x=y)),
        [ROW, ints(2)],
        ROW[2],
        16,
    ),
    "gather in another dimension": (
        lambda x, y: mb.gather(x=x, indices=y, axis=-1),
        [X, TOKENS % 4],
        X[..., TOKENS % 4],
        15,
    ),
    "gather from the end": (lambda x: mb.gather(x=TABLE, indices=x), [ints(-1, 0, -5)], TABLE[[4, 0, 0]], 16),
    "gather in batches": (
        lambda x, y: mb.gather(x=x, indices=y, axis=2, batch_dims=1),
        [X, ints([3, 0], [1, 1])],
        np.stack([X[0][:, [3, 0]], X[1][:, [1, 1]]]),
        16,
    ),
    "gather with validation": (
        lambda x: mb.gather(x=TABLE, indices=x, validate_indices=True),
        [TOKENS],
        TABLE[TOKENS],
        17,
    ),
    "gather_along_axis": (
        lambda x, y: mb.gather_along_axis(x=x, indices=y, axis=1),
        [WHOLE, ints([2, -1], [0, 1])],
        ints([0, 0], [9, -2]),
        16,
    ),
    "gather_nd": (
        lambda x, y: mb.gather_nd(x=x, indices=y),
        [X, ints([1, 2], [0, -1])],
        np.stack([X[1, 2], X[0, 2]]),
        16,
    ),
    "gather_nd in batches": (
        lambda x, y: mb.gather_nd(x=x, indices=y, batch_dims=1),
        [X, ints([[2, 1]], [[0, 3]])],
        np.array([[X[0, 2, 1]], [X[1, 0, 3]]]),
        17,
    ),
    "shape": (lambda x: mb.shape(x=x), [X], ints(2, 3, 4), 16),
    "fill": (lambda x: mb.fill(shape=mb.shape(x=x), value=1.5), [X], np.full((2, 3, 4), 1.5), 16),
    "fill by default": (lambda x: mb.fill(shape=mb.shape(x=x)), [X], np.zeros((2, 3, 4)), 16),
    "fill_like": (lambda x: mb.fill_like(ref_tensor=x, value=np.int32(7)), [X], np.full((2, 3, 4), 7), 16),
    "range_1d": (
        lambda x: mb.range_1d(start=np.int32(2), end=mb.squeeze(x=x), step=np.int32(3)),
        [ints(11)],
        ints(2, 5, 8),
        16,
    ),
    "tile": (lambda x: mb.tile(x=x, reps=[2, 1, 3]), [X], np.tile(X, (2, 1, 3)), 16),
    "band_part": (
        lambda x: mb.band_part(x=x, lower=1, upper=0),
        [X],
        np.tril(X) - np.tril(X, -2),
        16,
    ),
    "band_part by default": (lambda x: mb.band_part(x=x), [X], X, 16),
    "one_hot": (
        lambda x: mb.one_hot(indices=x, one_hot_vector_size=np.int32(3)),
        [ints(2, 0, 5)],
        ints([0, 0, 1], [1, 0, 0], [0, 0, 0]),
        16,
    ),
    "one_hot in the first dimension": (
        lambda x: mb.one_hot(indices=x, one_hot_vector_size=np.int32(2), axis=0, on_value=0.5, off_value=-1.0),
        [ints(1, 0)],
        np.array([[-1, 0.5], [0.5, -1]]),
        16,
    ),
    "reverse": (lambda x: mb.reverse(x=x, axes=[-1]), [X], X[..., ::-1], 16),
    "reverse of all": (lambda x: mb.reverse(x=x), [X], X[::-1, ::-1, ::-1], 16),
    "pad": (
        lambda x: mb.pad(x=x, pad=[1, 0, 2, 3], mode="constant", constant_val=9.0),
        [X],
        np.pad(X, [(0, 0), (1, 0), (2, 3)], constant_values=9),
        16,
    ),
    "pad reflected": (
        lambda x: mb.pad(x=x, pad=[2, 1], mode="reflect"),
        [X],
        np.pad(X, [(0, 0), (0, 0), (2, 1)], mode="reflect"),
        16,
    ),
    "pad replicated": (
        lambda x: mb.pad(x=x, pad=[2, 1], mode="replicate"),
        [X],
        np.pad(X, [(0, 0), (0, 0), (2, 1)], mode="edge"),
        16,
    ),
    "argsort": (lambda x: mb.argsort(x=x, axis=1), [X], np.argsort(-X, 1), 16),
    "argsort ascending": (lambda x: mb.argsort(x=x, ascending=True), [X], np.argsort(X, -1), 16),
    "topk": (
        lambda x: mb.topk(x=x, k=2, axis=-1),
        [X],
        [-np.sort(-X, -1)[..., :2], np.argsort(-X, -1)[..., :2]],
        15,
    ),
    "topk ascending without indices": (
        lambda x: mb.topk(x=x, k=2, axis=1, ascending=True, return_indices=False),
        [X],
        np.sort(X, 1)[:, :2],
        16,
    ),
    # 2.5 and 3.5 steps go to the even number; what the type cannot hold is held at its end.
    "quantize": (
        lambda x: mb.cast(x=mb.quantize(input=x, scale=np.float32(0.5), output_dtype="int8"), dtype="int32"),
        [np.float32([1.25, 1.75, -1.25, -0.2, 100, -100])],
        ints(2, 4, -2, 0, 127, -128),
        17,
    ),
    "quantize with a zero point": (
        lambda x: mb.cast(
            x=mb.quantize(input=x, scale=np.float32(0.5), zero_point=np.uint8(100), output_dtype="uint8"), dtype="int32"
        ),
        [np.float32([1.25, -60, 80])],
        ints(102, 0, 255),
        17,
    ),
    "quantize along an axis": (
        lambda x: mb.cast(
            x=mb.quantize(
                input=x, scale=np.float32([0.5, 2]), zero_point=np.int8([0, 10]), axis=0, output_dtype="int8"
            ),
            dtype="int32",
        ),
        [np.float32([[1, 2], [4, -6]])],
        ints([2, 4], [12, 7]),
        17,
    ),
    "dequantize": (
        lambda x: mb.dequantize(input=mb.cast(x=x, dtype="int8"), scale=np.float32(0.5), zero_point=np.int8(-3)),
        [ints(-128, 0, 127)],
        np.array([-62.5, 1.5, 65]),
        17,
    ),
    "dequantize along an axis": (
        lambda x: mb.dequantize(input=mb.cast(x=x, dtype="uint8"), scale=np.float32([0.5, 2]), axis=-1),
        [ints([3, 3], [255, 1])],
        np.array([[1.5, 6], [127.5, 2]]),
        17,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_operation_gives_what_its_definition_says(name, tmp_path):
    body, inputs, expected, opset = CASES[name]
    found = run(body, inputs, tmp_path, opset=opset)
    for value, right in zip(found, expected if isinstance(expected, list) else [expected], strict=True):
        assert value.shape == np.shape(right)
        np.testing.assert_allclose(value, right, rtol=2e-5, atol=2e-6)


def packed(bits: Sequence[int], width: int) -> np.ndarray:
    """Values of `width` bits in bytes, the first in the least significant bits."""
    stream = "".join(format(value, f"0{width}b")[::-1] for value in bits)
    return np.uint8([int(stream[at : at + 8][::-1], 2) for at in range(0, len(stream), 8)])


STEPS = np.int8([[-128, 5, 127], [0, -3, 2]])
PALETTE = np.float32([0.5, -1, 2, 7])
INDICES = [3, 0, 1, 2, 2]
MASK = np.uint8([[1, 0, 1], [0, 0, 1]])
DATA_MASK = np.uint8([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1], [1, 1, 0, 0]])
COLUMNS = np.float32([[0.1, 0.2, 0.3, 0.4]])


def as_bits(values: Any, dtype: str) -> np.ndarray:
    """Values of a type of less than a byte, as the builder knows them."""
    from coremltools.converters.mil.mil import types

    return np.array(values).astype(types.nptype_from_builtin(types.string_to_builtin(dtype)))


def block_scaled(rows: int, columns: int, dtype: str) -> Any:
    low, high = (-8, 7) if dtype == "int4" else (0, 2 ** int(dtype.removeprefix("uint")) - 1)
    return np.random.default_rng(1).integers(low, high + 1, (rows, columns))


# A compressed constant, what it is decompressed to, and by which opset.
COMPRESSED: dict[str, tuple[Callable[[], Any], Any, int]] = {
    "affine": (
        lambda: mb.constexpr_affine_dequantize(
            quantized_data=STEPS, zero_point=np.int8(-3), scale=np.float32(0.5), axis=np.int32(0)
        ),
        0.5 * (STEPS.astype(float) + 3),
        16,
    ),
    "affine along an axis": (
        lambda: mb.constexpr_affine_dequantize(
            quantized_data=STEPS, zero_point=np.int8([1, 2, 3]), scale=np.float32([0.5, 1, 2]), axis=np.int32(-1)
        ),
        np.float32([0.5, 1, 2]) * (STEPS.astype(float) - [1, 2, 3]),
        16,
    ),
    **{
        f"palette of {width} bits, packed": (
            lambda width=width: mb.constexpr_lut_to_dense(
                indices=packed(np.arange(15) * 7 % 2**width, width), lut=array(2**width), shape=np.uint32([3, 5])
            ),
            array(2**width)[(np.arange(15) * 7 % 2**width).reshape(3, 5)],
            16,
        )
        for width in (1, 2, 4, 6, 8)
    },
    "sparse, packed": (
        lambda: mb.constexpr_sparse_to_dense(
            nonzero_data=np.float32([4, 5, 6]), mask=packed(MASK.ravel(), 1), shape=np.uint32([2, 3])
        ),
        np.array([[4, 0, 5], [0, 0, 6]]),
        16,
    ),
    "cast": (
        lambda: mb.constexpr_cast(source_val=np.float16([[1.5, -0.1]]), output_dtype="fp32"),
        np.float16([[1.5, -0.1]]).astype(np.float32),
        16,
    ),
    "cast, iOS 18": (
        lambda: mb.constexpr_cast(source_val=np.float16([[1.5, -0.1]]), output_dtype="fp32"),
        np.float16([[1.5, -0.1]]).astype(np.float32),
        18,
    ),
    **{
        f"blocks of {dtype}": (
            lambda dtype=dtype: mb.constexpr_blockwise_shift_scale(
                data=as_bits(block_scaled(4, 6, dtype), dtype), scale=array(4, 2), offset=as_bits([[1, 2]] * 4, dtype)
            ),
            array(4, 2).repeat(3, 1) * (block_scaled(4, 6, dtype) - np.array([[1, 2]] * 4).repeat(3, 1)),
            18,
        )
        for dtype in ("int4", "uint4", "uint8")
    },
    "blocks without an offset": (
        lambda: mb.constexpr_blockwise_shift_scale(data=STEPS, scale=np.float32([[0.5], [2]])),
        STEPS * np.float32([[0.5], [2]]),
        18,
    ),
    **{
        f"palette of {width} bits": (
            lambda width=width: mb.constexpr_lut_to_dense(
                indices=as_bits((np.arange(15) * 7 % 2**width).reshape(3, 5), f"uint{width}"),
                lut=array(1, 1, 2**width, 1),
            ),
            array(2**width)[(np.arange(15) * 7 % 2**width).reshape(3, 5)],
            18,
        )
        for width in (1, 2, 3, 4, 6, 8)
    },
    # The two cases of the definition: a table for each half of the rows, and entries of several values.
    "palettes of groups": (
        lambda: mb.constexpr_lut_to_dense(
            indices=as_bits([[2, 3], [3, 0], [1, 0], [3, 0], [2, 1], [0, 3]], "uint2"),
            lut=np.float32([1, 5, 9, 13, 2, 10, 18, 26]).reshape(2, 1, 4, 1),
        ),
        np.array([[9, 13], [13, 1], [5, 1], [26, 2], [18, 10], [2, 26]]),
        18,
    ),
    "palette of vectors down the rows": (
        lambda: mb.constexpr_lut_to_dense(
            indices=as_bits([[0, 0], [1, 0]], "uint1"),
            lut=np.float32([1, 2, 3, 10, 20, 30]).reshape(1, 1, 2, 3),
            vector_axis=np.int32(0),
        ),
        np.array([[1, 1], [2, 2], [3, 3], [10, 1], [20, 2], [30, 3]]),
        18,
    ),
    "palette of vectors along the rows": (
        lambda: mb.constexpr_lut_to_dense(
            indices=as_bits([[0, 0], [1, 0]], "uint1"),
            lut=np.float32([1, 2, 3, 10, 20, 30]).reshape(1, 1, 2, 3),
            vector_axis=np.int32(-1),
        ),
        np.array([[1, 2, 3, 1, 2, 3], [10, 20, 30, 1, 2, 3]]),
        18,
    ),
    "palette of bytes that are scaled": (
        lambda: mb.constexpr_blockwise_shift_scale(
            data=mb.constexpr_lut_to_dense(
                indices=as_bits([[2, 3], [3, 0]], "uint2"), lut=np.int8([-4, 0, 5, 9]).reshape(1, 1, 4, 1)
            ),
            scale=np.float32([[0.5]]),
        ),
        np.array([[2.5, 4.5], [4.5, -2]]),
        18,
    ),
    "sparse": (
        lambda: mb.constexpr_sparse_to_dense(nonzero_data=np.float32([4, 5, 6]), mask=as_bits(MASK, "uint1")),
        np.array([[4, 0, 5], [0, 0, 6]]),
        18,
    ),
    # By hand, from the definition's own example.
    "sparse and scaled": (
        lambda: sparse_to_dense(
            mb.constexpr_sparse_blockwise_shift_scale(
                data_mask=as_bits(DATA_MASK, "uint1"),
                nonzero_data=np.int8([10, 11, 3, 4, 5, 6, 7, 8, 9]),
                scale=COLUMNS,
                offset=np.int8([[1, 2, 3, 4]]),
            )
        ),
        np.array([[0.9, 1.8, 0, 0], [0.2, 0.4, 0.6, 0], [0, 0, 0.9, 1.2], [0.7, 1.4, 0, 0]]),
        18,
    ),
    "sparse palette": (
        lambda: sparse_to_dense(
            mb.constexpr_lut_to_sparse(
                indices_mask=as_bits(MASK, "uint1"),
                indices_nonzero_data=as_bits([1, 0, 1], "uint1"),
                lut=np.float32([2, 3]).reshape(1, 1, 2, 1),
            )
        ),
        np.array([[3, 0, 2], [0, 0, 3]]),
        18,
    ),
    "sparse palette of vectors": (
        lambda: sparse_to_dense(
            mb.constexpr_lut_to_sparse(
                indices_mask=as_bits(MASK, "uint1"),
                indices_nonzero_data=as_bits([1, 0, 1], "uint1"),
                lut=np.float32([2, 20, 3, 30]).reshape(1, 1, 2, 2),
                vector_axis=np.int32(0),
            )
        ),
        np.array([[3, 0, 2], [30, 0, 20], [0, 0, 3], [0, 0, 30]]),
        18,
    ),
}


def sparse_to_dense(mask_and_data: Any) -> Any:
    mask, data = mask_and_data
    return mb.constexpr_sparse_to_dense(nonzero_data=data, mask=mask)


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_constant_is_decompressed_as_its_definition_says(name, tmp_path):
    build, expected, opset = COMPRESSED[name]
    zeros = np.zeros(expected.shape, dtype=np.float32)
    (found,) = run(lambda x: mb.add(x=x, y=build()), [zeros], tmp_path, opset=opset)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_every_operation_of_the_table_has_a_case():
    compressed = {name for name in OPERATIONS if name.startswith("constexpr_")}
    assert set(OPERATIONS) - compressed == {name.split()[0] for name in CASES}
    builders = [sparse_to_dense, *(build for build, _, _ in COMPRESSED.values())]
    assert compressed <= {name for build in builders for name in build.__code__.co_names}


HALF = {"x": array(2, 3, 4).astype(np.float16), "y": array(2, 3, 4, seed=1).astype(np.float16)}
# Each is computed in more digits by NumPy and rounded once, as fp16 with sums in fp32 is.
ROUNDED: dict[str, tuple[Callable[..., Any], Callable[..., np.ndarray]]] = {
    "add": (lambda x, y: mb.add(x=x, y=y), np.add),
    "mul": (lambda x, y: mb.mul(x=x, y=y), np.multiply),
    "exp": (lambda x, y: mb.exp(x=mb.add(x=x, y=y)), lambda x, y: np.exp(np.float16(x + y).astype(np.float64))),
    "softmax": (lambda x, y: mb.softmax(x=x), lambda x, y: softmax(x)),
    "matmul": (lambda x, y: mb.matmul(x=x, y=y, transpose_y=True), lambda x, y: x @ y.swapaxes(-1, -2)),
    "reduce_sum": (lambda x, y: mb.reduce_sum(x=x, axes=[1]), lambda x, y: x.sum(1)),
    "moved": (
        lambda x, y: mb.mul(x=mb.transpose(x=mb.add(x=x, y=y), perm=[0, 2, 1]), y=np.float16(3)),
        lambda x, y: 3 * np.float16(x + y).astype(np.float64).swapaxes(1, 2),
    ),
}


@pytest.mark.parametrize("name", ROUNDED)
def test_fp16_result_is_rounded_after_every_operation(name, tmp_path):
    body, compute = ROUNDED[name]
    (found,) = run(body, list(HALF.values()), tmp_path, rounding="fp16")
    expected = compute(*(values.astype(np.float64) for values in HALF.values()))
    # Double and single precision may fall to different sides of a tie: one step of fp16, where they do at all.
    np.testing.assert_array_equal(found, found.astype(np.float16))
    np.testing.assert_allclose(found, expected.astype(np.float16), rtol=2**-10, atol=2**-24)
    assert (found == expected.astype(np.float16)).mean() > 0.9
    (exact,) = run(body, list(HALF.values()), tmp_path / "again", rounding="fp32")
    assert not np.array_equal(exact, exact.astype(np.float16))


def test_fp16_overflows_to_infinity_and_fp32_does_not(tmp_path):
    x = np.float16([[60000, -60000, 1]])

    def body(x: Any) -> Any:
        return mb.add(x=x, y=np.float16(6000))

    assert run(body, [x], tmp_path / "a", rounding="fp16")[0].tolist() == [[np.inf, -54016, 6000]]
    assert run(body, [x], tmp_path / "b", rounding="fp32")[0].tolist() == [[66000, -54000, 6001]]


def test_sums_of_fp16_are_taken_in_fp32(tmp_path):
    """2048 + 1 is 2048 in fp16: sums in fp16 would lose every one of the ones."""
    x = np.ones((1, 65), dtype=np.float16)
    weight = np.float16([[2048, *[1] * 64]])
    (found,) = run(lambda x: mb.linear(x=x, weight=weight, bias=np.float16([3])), [x], tmp_path, rounding="fp16")
    assert found.tolist() == [[2116]]  # 2115, rounded to a multiple of 2 once


def test_fp32_values_of_a_program_are_not_rounded(tmp_path):
    x = np.float32([[1 / 3, 70000]])
    (found,) = run(lambda x: mb.add(x=x, y=np.float32(0)), [x], tmp_path / "a", rounding="fp16")
    assert found.tolist() == x.tolist()
    through = run(lambda x: mb.cast(x=mb.cast(x=x, dtype="fp16"), dtype="fp32"), [x], tmp_path / "b", rounding="fp16")
    assert through[0].tolist() == [[float(np.float16(1 / 3)), np.inf]]
    both = run(lambda x: (mb.cast(x=x, dtype="fp16"), mb.relu(x=x)), [x], tmp_path / "c", rounding="fp16")
    assert both[1].tolist() == x.tolist()  # the cast has left its argument alone


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda x: mb.non_zero(x=x), "non_zero non_zero_0: is of a type that is not known here"),
        (lambda x: mb.max_pool(x=x, kernel_sizes=[2], pad_type="valid"), "max_pool max_pool_0: is of a type that"),
    ],
)
def test_unknown_operation_is_refused_by_name_before_anything_runs(body, message, tmp_path):
    program = read_program(save_program(body, [X], tmp_path / "p.mlpackage"))
    with pytest.raises(UserError, match=message):
        Interpreter(program)


@pytest.mark.parametrize(
    ("body", "argument", "value"),
    [
        (lambda x: mb.gelu(x=x, mode="EXACT", name="out"), "mode", "FASTEST"),
        (lambda x: mb.cast(x=x, dtype="int32", name="out"), "dtype", "fp64"),
        (lambda x: mb.pad(x=x, pad=[1, 1], mode="reflect", name="out"), "mode", "circular"),
    ],
)
def test_unknown_mode_is_refused_by_name_before_anything_runs(body, argument, value, tmp_path):
    program = read_program(save_program(body, [X], tmp_path / "p.mlpackage"))
    operations = []
    for operation in program.operations:
        if operation.type != "const":
            mode = replace(constant_of(program, operation.arguments[argument][0]), source=value)
            operation = replace(operation, arguments=operation.arguments | {argument: (mode,)})
        operations.append(operation)
    changed = replace(program, operations=tuple(operations))
    with pytest.raises(UserError, match=rf"out: its {argument} '{value}' is not known here"):
        Interpreter(changed)


def constant_of(program: Program, name: Any) -> Value:
    return next(each.arguments["val"][0] for each in program.operations if each.name == name)  # type: ignore[return-value]


@pytest.mark.parametrize("validate", [True, False])
def test_negative_index_is_out_of_bounds_from_ios_17_on(validate, tmp_path):
    def body(x: Any) -> Any:
        return mb.gather(x=TABLE, indices=x, validate_indices=validate, name="word")

    with pytest.raises(UserError, match="gather word: the index -1 is not between 0 and 4"):
        run(body, [ints(-1)], tmp_path, opset=17)


@pytest.mark.parametrize("index", [5, -6])
def test_index_out_of_bounds_is_refused(index, tmp_path):
    with pytest.raises(UserError, match=f"gather word: the index {index} is not between -5 and 4"):
        run(lambda x: mb.gather(x=TABLE, indices=x, name="word"), [ints(index)], tmp_path)


def test_quotient_of_integers_is_refused(tmp_path):
    with pytest.raises(UserError, match="real_div half: the quotient of integers is not defined"):
        run(lambda x: mb.real_div(x=x, y=np.int32(2), name="half"), [WHOLE], tmp_path)


def test_observer_sees_every_result_in_order_and_names_the_first_that_is_infinite(tmp_path):
    def body(x: Any) -> Any:
        squared = mb.mul(x=x, y=x, name="squared")
        return mb.sub(x=squared, y=squared, name="difference")

    x = np.float16([[300, 2]])
    program = read_program(save_program(body, [x], tmp_path / "p.mlpackage"))
    seen: list[tuple[str, str, bool]] = []
    Interpreter(program, "fp16")(
        {"x": x}, lambda operation, name, value: seen.append((operation.type, name, bool(torch.isfinite(value).all())))
    )
    assert seen == [("mul", "squared", False), ("sub", "difference", False)]


def test_interpreter_may_be_called_again_and_leaves_its_inputs_alone(tmp_path):
    x = array(2, 3)
    program = read_program(save_program(lambda x: mb.relu(x=mb.add(x=x, y=x)), [x], tmp_path / "p.mlpackage"))
    interpreter = Interpreter(program)
    first, before = interpreter({"x": x}), x.copy()
    assert interpreter({"x": x})[next(iter(first))].equal(next(iter(first.values())))
    assert np.array_equal(x, before)


def test_inputs_of_other_names_or_shapes_are_refused(tmp_path):
    program = read_program(save_program(lambda x: mb.relu(x=x), [X], tmp_path / "p.mlpackage"))
    with pytest.raises(UserError, match="takes x, given are y"):
        Interpreter(program)({"y": X})
    with pytest.raises(UserError, match=r"x has the shape \(3, 4\), which is not among \(\(2, 3, 4\),\)"):
        Interpreter(program)({"x": X[0]})


def test_result_of_another_shape_than_is_declared_is_refused(tmp_path):
    program = read_program(save_program(lambda x: mb.transpose(x=x, perm=[1, 0, 2]), [X], tmp_path / "p.mlpackage"))
    turned = program.operations[-1]
    declared = replace(turned.outputs[0], type=replace(turned.outputs[0].type, shape=(2, 3, 4)))
    changed = replace(program, operations=(*program.operations[:-1], replace(turned, outputs=(declared,))))
    with pytest.raises(UserError, match=r"transpose transpose_0: has the shape \(3, 2, 4\), declared is \(2, 3, 4\)"):
        Interpreter(changed)({"x": X})
