"""What each part of a graph is stored in: the precision asked for, and the parts that need a higher one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from exporters.calibration import Activation

Precision = Literal["fp32", "fp16", "int8", "int4"]
InputType = Literal["int64", "int32"]

# What a part falls back to where its own precision costs too much.
HIGHER: dict[Precision, Precision] = {"int8": "fp32", "int4": "int8"}


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The precision of a graph, and of the parts that are `kept` in another one.

    `bits` are those of an int8 weight (see `quantization.int8_channels`). With `blocks_at_load`, int4 weights are made
    int8 when the graph is loaded, and computed with as such: on CPUs that is four times as fast as int4 in blocks,
    which saves memory as well as disk. `activations` holds the calibrated inputs of parts; a part that it lacks has
    its input measured as it runs ("dynamic"). `input_type` is that of the token ids and the mask: int64 as the
    ecosystem's pipelines give them, or int32 for accelerators without 64-bit integers.
    """

    precision: Precision = "fp32"
    kept: Mapping[str, Precision] = field(default_factory=dict)
    bits: int = 8
    blocks_at_load: bool = True
    activations: Mapping[str, Activation] = field(default_factory=dict)
    input_type: InputType = "int64"

    def of(self, part: str) -> Precision:
        """The precision of one part of `exporters.parts.parts`."""
        return self.kept.get(part, self.precision)
