"""Operations that move values, pick some or make them up: none of them rounds."""

from math import prod
from typing import Literal

import torch
from torch.nn import functional

from edge_distil.runtimes.mil.registry import RefusedError, Tensors, operation


@operation(exact=True)
def transpose(x: torch.Tensor, perm: list[int]) -> torch.Tensor:
    return x.permute(perm)


@operation(exact=True)
def reshape(x: torch.Tensor, shape: list[int], opset: int) -> torch.Tensor:
    """-1 is what is left. 0 is the size that x has in the same place: from iOS 17 on counted from the last dimension,
    with 1 where x has none, before that from the first, where both must have as many."""
    if 0 in shape and opset < 17 and len(shape) != x.ndim:
        raise RefusedError(f"a shape of {len(shape)} sizes with a 0 among them, for {x.ndim} dimensions")
    sizes = [1] * (len(shape) - x.ndim) + list(x.shape[max(0, x.ndim - len(shape)) :])
    return x.reshape([size or sizes[index] for index, size in enumerate(shape)])


@operation(exact=True)
def expand_dims(x: torch.Tensor, axes: list[int]) -> torch.Tensor:
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operation(exact=True)
def squeeze(x: torch.Tensor, axes: list[int] | None = None) -> torch.Tensor:
    """Without its dimensions of 1, or those among `axes` that are."""
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


@operation(exact=True)
def concat(values: Tensors, axis: int, interleave: bool = False) -> torch.Tensor:
    """One after the other; interleaved, their elements taking turns. Scalars make a vector."""
    values = [value.reshape(1) if value.ndim == 0 else value for value in values]
    if interleave:
        return torch.stack(values, axis % values[0].ndim + 1).flatten(axis % values[0].ndim, axis % values[0].ndim + 1)
    return torch.cat(values, axis)


@operation(exact=True)
def split(
    x: torch.Tensor, axis: int, num_splits: int | None = None, split_sizes: list[int] | None = None
) -> tuple[torch.Tensor, ...]:
    if split_sizes is None:
        if num_splits is None or x.shape[axis] % num_splits:
            raise RefusedError(f"{x.shape[axis]} cannot be split into {num_splits} equal parts")
        split_sizes = [x.shape[axis] // num_splits] * num_splits
    return x.split(split_sizes, axis)


@operation(exact=True)
def stack(values: Tensors, axis: int) -> torch.Tensor:
    return torch.stack(values, axis)


@operation(exact=True)
def slice_by_index(
    x: torch.Tensor,
    begin: list[int],
    end: list[int],
    stride: list[int] | None = None,
    begin_mask: list[bool] | None = None,
    end_mask: list[bool] | None = None,
    squeeze_mask: list[bool] | None = None,
) -> torch.Tensor:
    """x[begin:end:stride] in every dimension, as NumPy has it. Where a mask is true, that bound is the array's own;
    where the squeeze mask is, only the element at `begin` is taken and the dimension goes."""
    none = [False] * x.ndim
    squeezed = [axis for axis, mask in enumerate(squeeze_mask or none) if mask]
    for axis, size in enumerate(x.shape):
        first = None if (begin_mask or none)[axis] else begin[axis]
        if axis in squeezed:
            place = range(size)[first or 0]
            x = x.narrow(axis, place, 1)
            continue
        taken = range(size)[
            slice(first, None if (end_mask or none)[axis] else end[axis], stride[axis] if stride else 1)
        ]
        if taken.step > 0:
            x = x[(slice(None),) * axis + (slice(taken.start, taken.stop, taken.step),)]
        else:  # torch takes no negative steps
            x = x.index_select(axis, torch.tensor(taken))
    return x.squeeze(tuple(squeezed)) if squeezed else x


@operation(exact=True)
def slice_by_size(x: torch.Tensor, begin: list[int], size: list[int]) -> torch.Tensor:
    """`size` elements from `begin` on in every dimension; -1 takes all that are left."""
    for axis, (first, count) in enumerate(zip(begin, size, strict=True)):
        x = x.narrow(axis, first, x.shape[axis] - first if count == -1 else count)
    return x


def _places(indices: torch.Tensor, size: int, opset: int) -> torch.Tensor:
    """Indices as torch takes them, once it is sure that they are ones: from iOS 17 on a negative index is none."""
    least = 0 if opset >= 17 else -size
    if indices.numel():
        low, high = (int(bound) for bound in indices.aminmax())
        if low < least or high >= size:
            bad = low if low < least else high
            raise RefusedError(f"the index {bad} is not between {least} and {size - 1}")
    indices = indices.long()
    return indices if opset >= 17 else torch.where(indices < 0, indices + size, indices)


@operation(exact=True)
def gather(
    x: torch.Tensor,
    indices: torch.Tensor,
    opset: int,
    axis: int = 0,
    batch_dims: int = 0,
    validate_indices: bool = False,
) -> torch.Tensor:
    """Slices of x along an axis. The first `batch_dims` dimensions of both go together.

    MIL leaves open what an index out of bounds gives; here it is refused, whether it is to be validated or not.
    """
    axis %= x.ndim
    places = _places(indices, x.shape[axis], opset)
    if batch_dims:
        lead = x.shape[:batch_dims]
        rows = zip(
            x.reshape(prod(lead), *x.shape[batch_dims:]),
            places.reshape(prod(lead), *places.shape[batch_dims:]),
            strict=True,
        )
        found = torch.stack([_take(row, of_row, axis - batch_dims) for row, of_row in rows])
        return found.reshape(*lead, *found.shape[1:])
    return _take(x, places, axis)


def _take(x: torch.Tensor, places: torch.Tensor, axis: int) -> torch.Tensor:
    found = x.index_select(axis, places.reshape(-1))
    return found.reshape((*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]))


@operation(exact=True)
def gather_along_axis(
    x: torch.Tensor, indices: torch.Tensor, opset: int, axis: int = 0, validate_indices: bool = False
) -> torch.Tensor:
    return x.gather(axis, _places(indices, x.shape[axis], opset))


@operation(exact=True)
def gather_nd(
    x: torch.Tensor, indices: torch.Tensor, opset: int, batch_dims: int = 0, validate_indices: bool = False
) -> torch.Tensor:
    """Slices of x at the places that the last dimension of the indices names."""
    each = [_places(index, x.shape[batch_dims + axis], opset) for axis, index in enumerate(indices.unbind(-1))]
    grid = [
        torch.arange(size).reshape([-1 if dimension == axis else 1 for dimension in range(indices.ndim - 1)])
        for axis, size in enumerate(x.shape[:batch_dims])
    ]
    return x[(*grid, *each)]


@operation(exact=True)
def shape(x: torch.Tensor) -> torch.Tensor:
    return torch.tensor(x.shape, dtype=torch.int32)


@operation(exact=True)
def fill(shape: list[int], value: torch.Tensor | None = None) -> torch.Tensor:
    return (torch.zeros(()) if value is None else value).expand(shape)


@operation(exact=True)
def fill_like(ref_tensor: torch.Tensor, value: torch.Tensor | None = None) -> torch.Tensor:
    return (torch.zeros(()) if value is None else value).expand(ref_tensor.shape)


@operation()
def range_1d(start: torch.Tensor, end: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


@operation(exact=True)
def tile(x: torch.Tensor, reps: list[int]) -> torch.Tensor:
    return x.repeat(reps)


@operation(exact=True)
def band_part(x: torch.Tensor, lower: int = -1, upper: int = -1) -> torch.Tensor:
    """The last two dimensions without what lies further from the diagonal; -1 keeps all on that side."""
    below = torch.arange(x.shape[-2])[:, None] - torch.arange(x.shape[-1])
    kept = torch.ones_like(below, dtype=torch.bool)
    if lower >= 0:
        kept &= below <= lower
    if upper >= 0:
        kept &= -below <= upper
    return torch.where(kept, x, torch.zeros_like(x))


@operation(exact=True)
def one_hot(
    indices: torch.Tensor,
    one_hot_vector_size: int,
    axis: int = -1,
    on_value: torch.Tensor | None = None,
    off_value: torch.Tensor | None = None,
) -> torch.Tensor:
    """A new dimension at `axis`, on at the index and off elsewhere; an index out of bounds is on nowhere."""
    axis %= indices.ndim + 1
    places = torch.arange(one_hot_vector_size).reshape([-1] + [1] * (indices.ndim - axis))
    on = torch.tensor(1, dtype=torch.int32) if on_value is None else on_value
    off = torch.zeros((), dtype=on.dtype) if off_value is None else off_value
    return torch.where(indices.unsqueeze(axis) == places, on, off)


@operation(exact=True)
def reverse(x: torch.Tensor, axes: list[int] | None = None) -> torch.Tensor:
    return x.flip(list(range(x.ndim)) if axes is None else axes)


@operation(exact=True)
def pad(
    x: torch.Tensor,
    pad: list[int],
    mode: Literal["constant", "reflect", "replicate"] = "constant",
    constant_val: float = 0.0,
) -> torch.Tensor:
    """The last dimensions with so many elements before and after each; `pad` has them first dimension first."""
    pairs = [amount for index in range(len(pad) - 2, -1, -2) for amount in pad[index : index + 2]]
    return functional.pad(x, pairs, mode, constant_val) if mode == "constant" else functional.pad(x, pairs, mode)


@operation(exact=True)
def argsort(x: torch.Tensor, axis: int = -1, ascending: bool = False) -> torch.Tensor:
    return x.argsort(dim=axis, descending=not ascending, stable=True).int()


@operation(exact=True)
def topk(
    x: torch.Tensor,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: Literal["int32", "uint16"] = "int32",
) -> tuple[torch.Tensor, ...]:
    values, indices = x.topk(k, axis, largest=not ascending, sorted=True)
    return (values, indices.int()) if return_indices else (values,)
