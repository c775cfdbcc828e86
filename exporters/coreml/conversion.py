"""A `PlainEncoder` as an ML program in memory, in fp16 or fp32, from which packages of every precision are written."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edge_distil import __version__
from edge_distil.errors import UserError
from edge_distil.quiet import import_coremltools, quiet
from exporters.coreml.ane import ane_encoder
from exporters.coreml.fp16 import SMALLEST_NORMAL, fp16_encoder
from exporters.coreml.plan import CoreMLPlan, lengths_text
from exporters.coreml.program import Converted, read_converted
from exporters.encoder import PlainEncoder, TextClassificationHead

_FP16_LARGEST = float(np.finfo(np.float16).max)
_INPUTS = {
    "input_ids": "WordPiece ids, int32 [1, {length}]: [CLS] question [SEP] context [SEP], or [CLS] text [SEP], padded.",
    "attention_mask": "int32 [1, {length}]: 1 for every real token, 0 for padding.",
}
_OUTPUTS = {
    "start_logits": "float32 [1, {length}]: for every token, the logit that the answer starts there.",
    "end_logits": "float32 [1, {length}]: for every token, the logit that the answer ends there.",
    "logits": "float32 [1, {length}, {words}]: for every token, one logit for each word of the vocabulary.",
}
_CLASSES = "float32 [1, {classes}]: one logit for each label, in the order of the labels in the metadata."


@dataclass(frozen=True, slots=True)
class About:
    """What a package says of itself: one line, and user-defined strings."""

    description: str = ""
    metadata: Mapping[str, str] | None = None


def module_of(model: PlainEncoder, plan: CoreMLPlan) -> PlainEncoder:
    """The module that is converted: the model in the plan's layout, safe in fp16."""
    if plan.layout == "ane":
        return ane_encoder(model, longest=plan.longest, fixed=plan.fixed)
    return fp16_encoder(model, longest=plan.longest, fixed=plan.fixed)


def traced(module: PlainEncoder, length: int) -> torch.jit.ScriptModule:
    """A module as it is run with one input of this length, in fp32."""
    example = (torch.zeros((1, length), dtype=torch.int32), torch.ones((1, length), dtype=torch.int32))
    with quiet(), torch.no_grad():
        return torch.jit.trace(module, example, check_trace=False)


def convert(module: torch.jit.ScriptModule, model: PlainEncoder, plan: CoreMLPlan) -> Converted:
    """A model's `module_of`, traced at its longest input, as an ML program with its weights in fp16, or in fp32.

    It takes `input_ids` and `attention_mask`, int32 [1, L], and gives float32 outputs as `PlainEncoder.output_shape`
    says: cast inside, because Swift has no 16-bit floats on Intel Macs. Raises `UserError` without coremltools, and for
    weights that are beyond fp16.
    """
    coremltools = import_coremltools()
    passes = coremltools.PassPipeline()
    # It would make the scale and shift of a norm over channels a batch norm, with a variance and an epsilon.
    passes.remove_passes({"common::fuse_elementwise_to_batchnorm"})
    with quiet(), tempfile.TemporaryDirectory() as folder:
        package_path = Path(folder) / "converted.mlpackage"
        coremltools.convert(
            module,
            convert_to="mlprogram",
            inputs=[coremltools.TensorType(name, _shape(coremltools, plan), np.int32) for name in _INPUTS],
            outputs=[coremltools.TensorType(name, dtype=np.float32) for name in model.output_names],
            compute_precision=coremltools.precision.FLOAT32
            if plan.precision == "fp32"
            else coremltools.precision.FLOAT16,
            minimum_deployment_target=getattr(coremltools.target, f"iOS{plan.ios}"),
            pass_pipeline=passes,
            package_dir=str(package_path),
            skip_model_load=True,  # loading compiles it, which only macOS can and nothing here needs
        )
        program = read_converted(package_path)
    if plan.precision == "fp32":
        return program
    for name, weight in program.weights.items():
        largest = float(np.abs(weight).max())
        if not largest <= _FP16_LARGEST:  # so written, it also holds for NaN
            raise UserError(
                f"the weights {name} reach {largest:g}, fp16 holds at most {_FP16_LARGEST:g}",
                "check the checkpoint's weights for NaN and for values that large, or export it with --precision fp32",
            )
    _set_epsilons(program.block)
    return program


def _set_epsilons(block: Any) -> None:
    """Make every norm's epsilon a normal number of fp16, and none of it where a root is safe without.

    See `exporters.coreml.fp16`; what `exporters.coreml.ane` takes a root of is never small.
    """
    kinds = {
        op.inputs["epsilon"].arguments[0].name: op.type for op in block.operations if op.type in ("layer_norm", "rsqrt")
    }
    for operation in block.operations:
        if kind := kinds.get(operation.outputs[0].name):
            tensor = operation.attributes["val"].immediateValue.tensor
            in_fp32 = tensor.WhichOneof("value") == "floats"  # a root's may be, since iOS 17
            epsilon = tensor.floats.values[0] if in_fp32 else np.frombuffer(tensor.bytes.values, np.float16)[0]
            epsilon = max(epsilon, SMALLEST_NORMAL) if kind == "layer_norm" else 0
            if in_fp32:
                tensor.floats.values[0] = epsilon
            else:
                tensor.bytes.values = np.float16(epsilon).tobytes()


def _shape(coremltools: Any, plan: CoreMLPlan) -> Any:
    if plan.fixed:
        return (1, plan.longest)
    if isinstance(plan.lengths, range):
        return coremltools.Shape((1, coremltools.RangeDim(plan.lengths[0], plan.longest, default=plan.longest)))
    return coremltools.EnumeratedShapes([(1, length) for length in plan.lengths], default=(1, plan.longest))


def describe(spec: Any, model: PlainEncoder, plan: CoreMLPlan, about: About) -> None:
    """Write into a specification what Xcode shows of it: inputs and outputs with their shapes, origin, metadata."""
    texts = _OUTPUTS | ({"logits": _CLASSES} if isinstance(model.head, TextClassificationHead) else {})
    sizes = {"length": lengths_text(plan.lengths), "words": model.config.vocab_size, "classes": model.config.classes}
    for feature in (*spec.description.input, *spec.description.output):
        feature.shortDescription = (_INPUTS | texts)[feature.name].format(**sizes)
    metadata = spec.description.metadata
    metadata.shortDescription = about.description
    metadata.author = "edge-distil"
    metadata.license = "As the checkpoint that it was made from."
    metadata.versionString = __version__
    # The day of the conversion would make two packages of one model differ.
    metadata.userDefined.pop("com.github.apple.coremltools.conversion_date", None)
    metadata.userDefined.update(about.metadata or {})
