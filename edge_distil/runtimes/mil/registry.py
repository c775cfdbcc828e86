"""The table of operations by their MIL type, and how the arguments of each are given to the function that computes it.

A function takes the arguments under their MIL names, with MIL's defaults. The annotation of a parameter says as what it
wants the value: a tensor, a list of tensors, or, for axes, shapes, modes and the like, Python's own numbers, lists and
texts. A parameter of `Literal` type lists the modes that are implemented. `opset` is no argument of an operation: where
a function has it, it is given the release of iOS whose definition counts.

Tensors that MIL calls fp16 are held in fp32 here; who runs an operation rounds what it gives. Integers are held in
their own type, but uint16 in int32 and uint32 in int64, in which torch can compute.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import numpy as np
import torch

from edge_distil.runtimes.mil.program import Value

Tensors = list[torch.Tensor]
Function = Callable[..., Any]

TORCH_DTYPES = {
    "fp16": torch.float32,
    "fp32": torch.float32,
    "bool": torch.bool,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "int16": torch.int16,
    "uint16": torch.int32,
    "int32": torch.int32,
    "uint32": torch.int64,
    "int64": torch.int64,
    "int4": torch.int8,
    **{f"uint{bits}": torch.uint8 for bits in (1, 2, 3, 4, 6)},
}


class RefusedError(ValueError):
    """An operation is not computed for these values: its definition leaves them open, or forbids them."""


@dataclass(frozen=True, slots=True)
class Semantics:
    """How an operation is computed. `exact` ones only move or choose values: of rounded ones they give rounded ones."""

    run: Function
    exact: bool
    parameters: Mapping[str, inspect.Parameter]

    def fault(self, name: str) -> str | None:
        """Why an argument of this name cannot be given; None where it can."""
        return None if name in self.parameters and name != "opset" else f"its argument {name} is not known"

    def missing(self, given: Mapping[str, Any]) -> list[str]:
        """The names of the arguments that it needs and was not given."""
        return [
            name
            for name, parameter in self.parameters.items()
            if parameter.default is parameter.empty and name != "opset" and name not in given
        ]

    def wants_list(self, name: str) -> bool:
        return self.parameters[name].annotation == Tensors

    def wants_tensor(self, name: str) -> bool:
        return self.parameters[name].annotation in (torch.Tensor, torch.Tensor | None, Tensors)

    def modes(self, name: str) -> tuple[str, ...]:
        """The values that a mode may have; none for an argument that is no mode."""
        annotation = self.parameters[name].annotation
        return get_args(annotation) if get_origin(annotation) is Literal else ()


OPERATIONS: dict[str, Semantics] = {}


def operation(*names: str, exact: bool = False) -> Callable[[Function], Function]:
    """Enter a function into the table, under its own name or under these MIL types."""

    def enter(function: Function) -> Function:
        for name in names or (function.__name__,):
            OPERATIONS[name] = Semantics(function, exact, inspect.signature(function).parameters)
        return function

    return enter


def to_tensor(value: Value) -> torch.Tensor:
    """A constant as operations take it."""
    array = np.asarray(value.read())
    return torch.from_numpy(np.array(array, order="C")).to(TORCH_DTYPES[value.type.dtype])
