"""Attention, dropout and clipping that train fast on a CPU, and hold little memory until the backward pass.

The library's attention passes over the scores of a whole batch a dozen times, through memory, and torch draws every
random number of a dropout by itself. Here scores are worked on in portions that stay in a core's cache, one number is
kept of each for the backward pass, and random numbers are drawn four at a time.

B rows, H heads, L tokens a row, D the width of a head.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

ATTENTION = "edge_distil_cpu"  # the name under which the library finds it

# Scores that are worked on at once: with their temporaries they fit into the cache of a core.
_SCORES = 2**20
# Of the 16-bit random numbers 15 bits are used: the number less the limit then has the sign of "dropped".
_VALUES = 2**15
_SIGN = -(2**15)


def prepare(model: PreTrainedModel) -> None:
    """Give a model this module's attention and dropout. Its weights and its `state_dict` stay as they are."""
    model.set_attn_implementation(ATTENTION)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p).train(child.training))


def _drop_signs(shape: torch.Size, probability: float) -> tuple[torch.Tensor, float]:
    """int16 numbers, negative where an element is to be dropped, and what to multiply the others by.

    The probability is rounded to a 32,768th.
    """
    # Four 16-bit numbers out of each that the generator draws.
    drawn = torch.empty((shape.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    limit = round(probability * _VALUES)
    signs = drawn[: shape.numel()].view(shape).bitwise_and_(_VALUES - 1).sub_(limit)
    return signs, _VALUES / (_VALUES - limit)


def clip_gradients(parameters: Iterable[torch.Tensor], max_norm: float) -> torch.Tensor:
    """`torch.nn.utils.clip_grad_norm_`, without the pass over all gradients that multiplies them by 1; the norm."""
    with_gradient = [parameter for parameter in parameters if parameter.grad is not None]
    norm = get_total_norm([parameter.grad for parameter in with_gradient if parameter.grad is not None])
    if not norm <= max_norm:  # so written, it also holds for NaN
        clip_grads_with_norm_(with_gradient, max_norm, norm)
    return norm


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, probability: float) -> torch.Tensor:
        signs, scale = _drop_signs(values.shape, probability)
        kept = signs >= 0
        ctx.save_for_backward(kept)
        ctx.scale = scale
        return values * _factors(kept, scale, values.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (kept,) = ctx.saved_tensors
        return gradients[0] * _factors(kept, ctx.scale, gradients[0].dtype), None


def _factors(kept: torch.Tensor, scale: float, dtype: torch.dtype) -> torch.Tensor:
    # A product of a bool and a float takes five times as long as both steps.
    return kept.to(dtype).mul_(scale)


class Dropout(nn.Dropout):
    """`torch.nn.Dropout` with random numbers drawn four at a time, from torch's own generator."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As in `torch.nn.Dropout`; a probability of 1 gives zeros."""
        if not self.training or self.p == 0:
            return input
        return torch.zeros_like(input) if self.p == 1 else _Dropout.apply(input, self.p)


class _Attention(torch.autograd.Function):
    """softmax(scale · Q Kᵀ + mask), with dropout, times V. Of every score one number stays for the backward pass.

    It is the probability, its sign turned where it is dropped, so that no mask has to be kept beside it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query_BHLD: torch.Tensor,
        key_BHLD: torch.Tensor,
        value_BHLD: torch.Tensor,
        mask_B1LL: torch.Tensor,
        scale: float,
        dropout: float,
    ) -> torch.Tensor:
        output_BHLD = torch.empty_like(query_BHLD)
        rows, heads, length, _ = query_BHLD.shape
        signed_BHLL = query_BHLD.new_empty((rows, heads, length, length))
        kept_scale = 1.0
        with torch.autocast("cpu", enabled=False):
            for part in _parts(rows, heads, length):
                keys = key_BHLD[part].transpose(-1, -2)
                scores = torch.baddbmm(mask_B1LL[part[0]], query_BHLD[part], keys, alpha=scale)
                signed = torch.softmax(scores, dim=-1)
                if dropout:
                    signs, kept_scale = _drop_signs(signed.shape, dropout)
                    signed = _with_sign(signed, signs)
                signed_BHLL[part] = signed
                torch.matmul(signed.relu_(), value_BHLD[part], out=output_BHLD[part])
        if dropout:
            output_BHLD.mul_(kept_scale)
        ctx.save_for_backward(query_BHLD, key_BHLD, value_BHLD, signed_BHLL, output_BHLD)
        ctx.scale, ctx.kept_scale = scale, kept_scale
        return output_BHLD

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        query_BHLD, key_BHLD, value_BHLD, signed_BHLL, output_BHLD = ctx.saved_tensors
        given_BHLD = gradients[0].contiguous()
        # Σ P · d P over the keys of a query, which is also its output times the output's gradient.
        sums_BHL1 = (given_BHLD * output_BHLD).sum(dim=-1, keepdim=True)
        given_BHLD = given_BHLD * ctx.kept_scale
        to_query, to_key, to_value = (torch.empty_like(tensor) for tensor in (query_BHLD, key_BHLD, value_BHLD))
        rows, heads, length, _ = query_BHLD.shape
        with torch.autocast("cpu", enabled=False):
            for part in _parts(rows, heads, length):
                signed, given = signed_BHLL[part], given_BHLD[part]
                kept = signed.relu()
                torch.matmul(kept.transpose(-1, -2), given, out=to_value[part])
                # d scores = P (d P − Σ P · d P), where d P is 0 for what was dropped
                gradient = kept.mul_(torch.matmul(given, value_BHLD[part].transpose(-1, -2)))
                gradient.addcmul_(signed.abs(), sums_BHL1[part], value=-1).mul_(ctx.scale)
                torch.matmul(gradient, key_BHLD[part], out=to_query[part])
                torch.matmul(gradient.transpose(-1, -2), query_BHLD[part], out=to_key[part])
        return to_query, to_key, to_value, None, None, None


def _with_sign(values: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
    """Positive values, negative where the int16 `signs` are. In place in bf16, which has the same number of bits."""
    if values.dtype == torch.bfloat16:
        values.view(torch.int16).bitwise_or_(signs.bitwise_and_(_SIGN))
        return values
    return torch.where(signs < 0, values.neg(), values)


def _parts(rows: int, heads: int, length: int) -> list[tuple[int, slice]]:
    """(row, heads) of every portion."""
    at_once = max(1, _SCORES // length**2)
    return [(row, slice(first, first + at_once)) for row in range(rows) for first in range(0, heads, at_once)]


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """The library's attention interface: [B, H, L, D] each and a mask, True where to attend; gives [B, L, H, D].

    Every token must have one that it may attend to.
    """
    # Without a backward pass the fused kernel is the fastest, and in fp32 too; in bf16 its backward pass took up to
    # three times as long as this module's (two cores with AMX).
    is_trained = torch.is_grad_enabled() and query.requires_grad
    if dropout == 1 or not (dropout or (is_trained and query.dtype == torch.bfloat16)):
        output = F.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
        )
        return output.transpose(1, 2).contiguous(), None
    rows, length, width = len(query), *query.shape[2:]
    mask_B1LL = query.new_zeros((1, 1, 1, 1) if attention_mask is None else attention_mask.shape)
    if attention_mask is not None:
        mask_B1LL.masked_fill_(attention_mask.logical_not(), torch.finfo(query.dtype).min)
    output = _Attention.apply(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        mask_B1LL.expand(rows, 1, length, length),
        width**-0.5 if scaling is None else scaling,
        dropout,
    )
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
