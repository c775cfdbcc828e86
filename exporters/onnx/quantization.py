"""Dynamic int8: weights stored as int8, activations quantised as they come, so that no calibration data is needed."""

from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from exporters.onnx.graph import sign
from exporters.quiet import quiet

# Two columns of the whole model, and the last step before the logits: fp32 costs nothing there and keeps them exact.
_KEPT_FP32 = ["head.qa_outputs.MatMul"]


def quantize(source: Path, target: Path) -> None:
    """Write the dynamic int8 form of the fp32 graph in `source` to `target`, about a quarter of its size.

    Weights of matrix products have one scale for each output channel, the word table has one for all. They are signed:
    unsigned ones ran three times slower on a machine with AVX-512.
    """
    with quiet():  # it advises its own pre-processing, but this graph has its shapes and fusions already
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Gather"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_KEPT_FP32,
            # Shape inference does not see through ONNX Runtime's own operators; every float in the graph is fp32.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
    proto = onnx.load(target)
    sign(proto)  # the quantiser puts its own name there
    onnx.save(proto, target)
