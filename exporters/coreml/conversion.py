"""A `PlainEncoder` as a Core ML package: an fp16 ML program of fixed length, for iOS 16 and macOS 13 or later."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from edge_distil import __version__
from edge_distil.quiet import import_coremltools, quiet
from exporters.encoder import PlainEncoder

_INPUTS = {
    "input_ids": "WordPiece ids: [CLS] question [SEP] context [SEP], padded to the fixed length.",
    "attention_mask": "1 for every real token, 0 for padding.",
}
_OUTPUTS = {
    "start_logits": "For every token, the logit that the answer starts there.",
    "end_logits": "For every token, the logit that the answer ends there.",
    "logits": "For every token, one logit for each word of the vocabulary.",
}


def convert(
    model: PlainEncoder, path: Path, *, max_length: int, description: str, metadata: Mapping[str, str]
) -> torch.jit.ScriptModule:
    """Trace the model at [1, max_length], convert it to fp16 and save it at `path`, which ends in `.mlpackage`.

    The package takes `input_ids` and `attention_mask`, int32 [1, max_length], and gives float32 outputs,
    [1, max_length] or [1, max_length, V]: cast inside, because Swift has no 16-bit floats on Intel Macs. `metadata` is
    stored as user-defined strings. Returns the traced module that was converted, in fp32. Raises `UserError` without
    coremltools.
    """
    coremltools = import_coremltools()
    shape = (1, max_length)
    with quiet():
        example = (torch.zeros(shape, dtype=torch.int32), torch.ones(shape, dtype=torch.int32))
        with torch.no_grad():
            traced = torch.jit.trace(model, example)
        package = coremltools.convert(
            traced,
            convert_to="mlprogram",
            inputs=[coremltools.TensorType(name, shape, np.int32) for name in _INPUTS],
            outputs=[coremltools.TensorType(name, dtype=np.float32) for name in model.output_names],
            compute_precision=coremltools.precision.FLOAT16,
            minimum_deployment_target=coremltools.target.iOS16,
            skip_model_load=True,  # loading compiles it, which only macOS can and nothing here needs
        )
        package.short_description = description
        package.author = "edge-distil"
        package.license = "As the checkpoint that it was made from."
        package.version = __version__
        for name, text in _INPUTS.items():
            package.input_description[name] = text
        for name in model.output_names:
            package.output_description[name] = _OUTPUTS[name]
        package.user_defined_metadata.update(metadata)
        package.save(str(path))
    return traced
