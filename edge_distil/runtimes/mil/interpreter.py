"""Running the operations of a Core ML program with torch, in fp32, rounded to fp16 where the program says fp16."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from edge_distil.errors import UserError
from edge_distil.runtimes.mil.operations import OPERATIONS
from edge_distil.runtimes.mil.program import Operation, Program, Value
from edge_distil.runtimes.mil.registry import TORCH_DTYPES, Semantics, to_tensor

Rounding = Literal["fp32", "fp16"]
Observer = Callable[[Operation, str, torch.Tensor], None]

# Values that are rounded at once: their halves stay in the cache, and torch starts no threads for so few.
_CACHED = 1 << 15
_UNKNOWN = "export the model without it, or run the package on a Mac"
_CHANGED = "the package was changed, or its operation is read wrongly here: please report it with the package"


def _round(values: torch.Tensor) -> torch.Tensor:
    """fp32 values as fp16 holds them: to the nearest, a half to even, and to infinity beyond 65504."""
    flat = values.contiguous().view(-1)
    for part in flat.split(_CACHED):
        part.copy_(part.half())
    return flat.view(values.shape)


@dataclass(frozen=True, slots=True)
class _Step:
    """One operation, ready to run: `fixed` arguments, the names of the others, and what nobody reads after it."""

    operation: Operation
    semantics: Semantics
    fixed: dict[str, Any]
    names: dict[str, tuple[str, ...]]
    rounded: tuple[bool, ...]
    last_read: tuple[str, ...]

    def run(self, values: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Its outputs. Raises `UserError` where it cannot be computed, or gives another shape than is declared."""
        arguments = {name: self._argument(name, given, values) for name, given in self.names.items()}
        try:
            found = self.semantics.run(**self.fixed, **arguments)
        except (RuntimeError, ValueError, IndexError) as fault:
            raise _fault(self.operation, str(fault).splitlines()[0]) from None
        results = found if isinstance(found, tuple) else (found,)
        for result, output in zip(results, self.operation.outputs, strict=True):
            declared = output.type.shape
            if len(declared) != result.ndim or any(
                size not in (None, is_) for size, is_ in zip(declared, result.shape, strict=True)
            ):
                raise _fault(self.operation, f"has the shape {tuple(result.shape)}, declared is {declared}")
        return tuple(_round(each) if rounds else each for each, rounds in zip(results, self.rounded, strict=True))

    def _argument(self, name: str, given: tuple[str, ...], values: Mapping[str, torch.Tensor]) -> Any:
        if self.semantics.wants_list(name):
            return [values[each] for each in given]
        value = values[given[0]]
        return value if self.semantics.wants_tensor(name) else value.tolist()


def _fault(operation: Operation, reason: str, hint: str = _CHANGED) -> UserError:
    return UserError(f"{operation.type} {operation.name}: {reason}", hint)


class Interpreter:
    """Runs a program as often as it is called. What does not depend on the inputs is computed once, beforehand.

    With `rounding` "fp16" every floating-point result that the program declares fp16 is rounded to fp16, to infinity
    where it is too large; sums are taken in fp32 before that. With "fp32" nothing is rounded but the constants, which
    were stored so. Operations that no output depends on are left out.
    """

    def __init__(self, program: Program, rounding: Rounding = "fp16") -> None:
        """Raises `UserError` for an operation, or a mode of one, that is not known: its type and its output's name."""
        self.program = program
        self.rounding = rounding
        needed = _needed(program)
        reads = [(name, index) for index, each in enumerate(needed) for name in _names(each)]
        self._last_read = dict(reads)  # the index of the last operation that reads a value
        self._constants: dict[str, Value | torch.Tensor] = {}
        self._steps: list[_Step] = []
        self._held: dict[str, torch.Tensor] = {}  # constants that a run reads by name
        with torch.inference_mode():
            for index, operation in enumerate(needed):
                if operation.type == "const":
                    self._constants[operation.name] = operation.arguments["val"][0]  # type: ignore[assignment]
                else:
                    self._prepare(operation, index)
            self._hold(name for name in program.outputs if name in self._constants)
        self._constants.clear()

    @torch.inference_mode()
    def __call__(self, inputs: Mapping[str, np.ndarray], observer: Observer | None = None) -> dict[str, torch.Tensor]:
        """The program's outputs by name.

        `observer` is called with every operation that was run, an output's name and its value, which is not kept.
        Raises `UserError` for inputs that the program does not take, and for an operation that cannot be computed.
        """
        values = {**self._held, **self._checked(inputs)}
        for step in self._steps:
            for output, result in zip(step.operation.outputs, step.run(values), strict=True):
                values[output.name] = result
                if observer is not None:
                    observer(step.operation, output.name, result)
            for name in step.last_read:
                del values[name]
        return {name: values[name] for name in self.program.outputs}

    def _checked(self, inputs: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        program = self.program
        if inputs.keys() != program.inputs.keys():
            raise UserError(
                f"{program.path}: takes {', '.join(program.inputs)}, given are {', '.join(inputs)}",
                "give a package of a model of token ids",
            )
        tensors = {}
        for name, array in inputs.items():
            feature, kind = program.inputs[name], program.input_types[name]
            if not feature.takes(array.shape):
                allowed = (
                    f"within {feature.ranges}" if feature.ranges else f"among {feature.shapes or (feature.shape,)}"
                )
                raise UserError(
                    f"{program.path}: {name} has the shape {array.shape}, which is not {allowed}",
                    "pad the input to a length that the package takes",
                )
            tensors[name] = torch.from_numpy(array).to(TORCH_DTYPES[kind.dtype], copy=True)
            if kind.dtype == "fp16" and self.rounding == "fp16":
                _round(tensors[name])
        return tensors

    def _prepare(self, operation: Operation, index: int) -> None:
        """Turn an operation into a step, or into constants where it is a compressed one."""
        semantics = OPERATIONS[operation.type]
        fixed: dict[str, Any] = {}
        names: dict[str, tuple[str, ...]] = {}
        for name, given in operation.arguments.items():
            if fault := semantics.fault(name):
                raise _fault(operation, fault, _UNKNOWN)
            if len(given) != 1 and not semantics.wants_list(name):
                raise _fault(operation, f"its argument {name} has {len(given)} values", _UNKNOWN)
            if all(isinstance(each, Value) or each in self._constants for each in given):
                constants = [self._constant(each, as_tensor=semantics.wants_tensor(name)) for each in given]
                fixed[name] = constants if semantics.wants_list(name) else constants[0]
                if (modes := semantics.modes(name)) and fixed[name] not in modes:
                    raise _fault(operation, f"its {name} {fixed[name]!r} is not known here", _UNKNOWN)
            else:
                if any(isinstance(each, Value) for each in given):
                    raise _fault(operation, f"its {name} are constants and results without distinction", _UNKNOWN)
                names[name] = tuple(each for each in given if isinstance(each, str))
                self._hold(each for each in names[name] if each in self._constants)
        if missing := semantics.missing(operation.arguments):
            raise _fault(operation, f"has no {', '.join(missing)}")
        if "opset" in semantics.parameters:
            fixed["opset"] = self.program.opset
        outputs = [output.name for output in operation.outputs]
        done = [name for name in dict.fromkeys([*_names(operation), *outputs]) if self._is_done(name, index)]
        rounds = self.rounding == "fp16" and not semantics.exact
        rounded = tuple(rounds and output.type.dtype == "fp16" for output in operation.outputs)
        step = _Step(operation, semantics, fixed, names, rounded, tuple(done))
        if operation.type.startswith("constexpr_") and not names:
            self._constants.update(zip(outputs, step.run({}), strict=True))
        else:
            self._steps.append(step)

    def _is_done(self, name: str, index: int) -> bool:
        """Whether a value that is no constant is read by nobody after the operation at `index`."""
        is_constant = name in self._constants
        return not is_constant and self._last_read.get(name, index) <= index and name not in self.program.outputs

    def _hold(self, names: Iterable[str]) -> None:
        for name in names:
            self._held[name] = self._constant(name, as_tensor=True)

    def _constant(self, given: str | Value, *, as_tensor: bool) -> Any:
        """A constant as an operation wants it. Tensors are decoded once, however many operations read them."""
        found = self._constants[given] if isinstance(given, str) else given
        if not as_tensor:
            values = found.read() if isinstance(found, Value) else found
            return values if isinstance(values, str) else values.tolist()
        if isinstance(found, Value):
            found = to_tensor(found)
            if isinstance(given, str):
                self._constants[given] = found
        return found


def _names(operation: Operation) -> list[str]:
    """The names of the values that an operation reads."""
    return [name for given in operation.arguments.values() for name in given if isinstance(name, str)]


def _needed(program: Program) -> list[Operation]:
    """The operations that an output depends on, in order, each of a type that is known."""
    wanted = set(program.outputs)
    needed = []
    for operation in reversed(program.operations):
        if operation.type != "const" and operation.type not in OPERATIONS:
            raise _fault(operation, "is of a type that is not known here", _UNKNOWN)
        if not wanted.isdisjoint(output.name for output in operation.outputs):
            needed.append(operation)
            wanted.update(_names(operation))
    missing = wanted - {output.name for each in needed for output in each.outputs} - set(program.inputs)
    if missing:
        raise UserError(f"{program.path}: no operation gives {min(missing)}", _CHANGED)
    return needed[::-1]
