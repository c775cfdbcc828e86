"""What a Core ML package is made of: its precision, layout, deployment target and input lengths."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from edge_distil.errors import UserError
from exporters.calibration import Activation

Precision = Literal["fp16", "fp32", "palette8", "palette6", "palette4", "int8", "int4", "w8a8"]
Layout = Literal["plain", "ane"]
Ios = Literal[16, 17, 18]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
# The first iOS that has the operations a precision is stored with, where that is not 16.
SINCE: dict[Precision, Ios] = {"w8a8": 17, "int4": 18}

# What a part falls back to where its own precision costs too much.
HIGHER: dict[Precision, Precision] = {
    "palette8": "fp16",
    "palette6": "palette8",
    "palette4": "palette8",
    "int8": "fp16",
    "int4": "int8",
    "w8a8": "fp16",
}

SHORTEST = 16  # a window must have room for a question, its separators and some context


@dataclass(frozen=True, slots=True, eq=False)
class CoreMLPlan:
    """The precision of a package, of the parts that are `kept` in another one, and the form of its program.

    `ios` is the oldest iOS that runs it: 16 stands for macOS 13 too, 17 for 14, 18 for 15. `lengths` holds one length,
    several, of which an input takes any, or a `range` of them. `activations` are the calibrated inputs of parts, which
    w8a8 needs of every part that multiplies and is not kept. Raises `UserError` for what the target does not have.
    """

    precision: Precision = "fp16"
    kept: Mapping[str, Precision] = field(default_factory=dict)
    layout: Layout = "plain"
    ios: Ios = 16
    lengths: Sequence[int] = (384,)
    activations: Mapping[str, Activation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for precision in (self.precision, *self.kept.values()):
            if self.ios < (since := SINCE.get(precision, 16)):
                raise UserError(
                    f"--precision {precision} needs iOS {since}, and the package is to run on iOS {self.ios} too",
                    f"add --ios {since}, or choose one of: {', '.join(precisions_for(self.ios))}",
                )
        if self.ios < 18 and self.enumerated:
            raise UserError(
                f"--lengths {lengths_text(self.lengths)} needs iOS 18: before it one input alone may have "
                "several lengths, and a package has two inputs",
                f"add --ios 18, or give a range: --lengths {self.lengths[0]}..{self.longest}",
            )

    @property
    def longest(self) -> int:
        """The longest input, which is also the default one."""
        return self.lengths[-1]

    @property
    def fixed(self) -> bool:
        """Whether an input has one length alone."""
        return len(self.lengths) == 1

    @property
    def enumerated(self) -> bool:
        """Whether an input has one of several lengths."""
        return not self.fixed and not isinstance(self.lengths, range)

    def of(self, part: str) -> Precision:
        """The precision of one part of `exporters.parts.parts`."""
        return self.kept.get(part, self.precision)


def precisions_for(ios: Ios) -> list[Precision]:
    """The precisions that a deployment target has the operations for."""
    return [precision for precision in PRECISIONS if SINCE.get(precision, 16) <= ios]


def lengths_text(lengths: Sequence[int]) -> str:
    """The lengths of an input, for a person and for the app: "384", "128,256,384" or "16..384"."""
    if isinstance(lengths, range):
        return f"{lengths[0]}..{lengths[-1]}"
    return ",".join(map(str, lengths))


def parse_lengths(text: str) -> Sequence[int]:
    """The lengths of "384", of "128,256,384", or of the range "16..384".

    Raises `UserError` for anything else, and for lengths that do not go up.
    """
    faulty = f"--lengths {text}: "
    hint = "give lengths that go up, as 128,256,384, or a range, as 16..384"
    if spanned := re.fullmatch(r"(\d+)\.\.(\d+)", text.strip()):
        first, last = map(int, spanned.groups())
        if first >= last:
            raise UserError(f"{faulty}a range goes from a shorter to a longer length", hint)
        return range(first, last + 1)
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"\d+", part) for part in parts):
        raise UserError(f"{faulty}is neither numbers nor a range", hint)
    lengths = [int(part) for part in parts]
    if lengths != sorted(set(lengths)):
        raise UserError(f"{faulty}each length may stand there once, the shorter ones first", hint)
    return tuple(lengths)


def check_lengths(lengths: Sequence[int], positions: int) -> None:
    """Refuse lengths that a model with so many positions does not have. Raises `UserError`."""
    for length in (lengths[0], lengths[-1]):
        if not SHORTEST <= length <= positions:
            raise UserError(
                f"--lengths: {length} is not possible, the model has {positions} positions",
                f"give lengths from {SHORTEST} to {positions}",
            )
