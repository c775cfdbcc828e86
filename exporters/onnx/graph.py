"""A `PlainEncoder` as an ONNX graph of fused operators, written node by node.

ONNX Runtime has single operators for attention, for a residual sum with its normalisation, and for GELU with its bias,
but its optimiser does not recognise them in what torch exports. Writing the graph out states them directly, takes no
tracing, and gives the same bytes for the same weights.
"""

from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edge_distil import __version__
from exporters.encoder import (
    MASKED_SCORE,
    Embeddings,
    Layer,
    MaskedLMHead,
    PlainEncoder,
    QuestionAnsweringHead,
    TextClassificationHead,
)

OPSET = 17  # the first with LayerNormalization; no later than that, so that older runtimes read the file too
ONNXRUNTIME_FLOOR = "1.23"  # the oldest release that the toolkit is tested with
_IR_VERSION = 8  # the file format that came with the opset
_CONTRIB = "com.microsoft"  # the domain of ONNX Runtime's own operators


class _Graph:
    """Nodes and weights in the order in which they are added. Methods return the name of what they add."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Any, dtype: type = np.int64) -> str:
        self.initializers.append(numpy_helper.from_array(np.array(value, dtype=dtype), name))
        return name

    def weight(self, name: str, tensor: torch.Tensor) -> str:
        array = np.ascontiguousarray(tensor.detach().numpy())
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def add(
        self, operator: str, name: str, *inputs: str, domain: str = "", output: str | None = None, **attributes: Any
    ) -> str:
        """Add a node with one output, which is named after the node unless `output` names it."""
        output = output or f"{name}.{operator}"
        self.nodes.append(
            helper.make_node(operator, inputs, [output], f"{name}.{operator}", domain=domain, **attributes)
        )
        return output

    def product(self, name: str, states: str, linear: nn.Linear) -> str:
        """The matrix product of a linear layer; its bias is left to the next operator, which adds it on the way."""
        return self.add("MatMul", name, states, self.weight(f"{name}.weight", linear.weight.T))

    def gelu(self, name: str, product: str, linear: nn.Linear) -> str:
        """gelu(product + bias of `linear`), the exact one."""
        return self.add("BiasGelu", name, product, self.weight(f"{name}.bias", linear.bias), domain=_CONTRIB)

    def norm(self, name: str, states: str, norm: nn.LayerNorm) -> str:
        scale, bias = self.weight(f"{name}.weight", norm.weight), self.weight(f"{name}.bias", norm.bias)
        return self.add("LayerNormalization", name, states, scale, bias, axis=-1, epsilon=norm.eps)

    def residual_norm(self, name: str, product: str, skip: str, linear: nn.Linear, norm: nn.LayerNorm) -> str:
        """norm(product + bias of `linear` + skip)."""
        weights = {"weight": norm.weight, "bias": norm.bias, "linear_bias": linear.bias}
        names = [self.weight(f"{name}.{key}", tensor) for key, tensor in weights.items()]
        return self.add("SkipLayerNormalization", name, product, skip, *names, domain=_CONTRIB, epsilon=norm.eps)


def _embeddings(graph: _Graph, embeddings: Embeddings, length: str) -> str:
    """Hidden states [B, L, H] of `input_ids`. `length` is L, int64 [1]."""
    table = graph.weight("embeddings.word.weight", embeddings.word.weight)
    states = graph.add("Gather", "embeddings.word", table, "input_ids")
    table = graph.weight("embeddings.position.weight", embeddings.position.weight)
    zero = graph.constant("zero", [0])
    states = graph.add("Add", "embeddings.position", states, graph.add("Slice", "positions", table, zero, length, zero))
    if embeddings.segment is not None:
        # 0 up to and including the first [SEP], 1 after it. A table of one row has segment 0 alone.
        is_separator = graph.add("Equal", "separator", "input_ids", graph.constant("sep_id", embeddings.sep_id))
        is_separator = graph.add("Cast", "separator", is_separator, to=TensorProto.INT64)
        before = graph.add("CumSum", "separators_before", is_separator, graph.constant("axis_1", 1), exclusive=1)
        last_row = graph.constant("last_segment", min(1, embeddings.segment.num_embeddings - 1))
        table = graph.weight("embeddings.segment.weight", embeddings.segment.weight)
        segment = graph.add("Gather", "embeddings.segment", table, graph.add("Min", "segment_ids", before, last_row))
        states = graph.add("Add", "embeddings.segment", states, segment)
    return graph.norm("embeddings.norm", states, embeddings.norm)


def _additive_mask(graph: _Graph, length: str) -> str:
    """What is added to the attention scores, float [B, 1, L, L]: `PlainEncoder`'s mask, repeated for every query."""
    kept = graph.add("Cast", "mask", "attention_mask", to=TensorProto.FLOAT)
    masked = graph.add("Sub", "mask", graph.constant("kept", 1, np.float32), kept)
    scores = graph.add("Mul", "mask", masked, graph.constant("masked_score", MASKED_SCORE, np.float32))
    scores = graph.add("Unsqueeze", "mask", scores, graph.constant("axes_1_2", [1, 2]))
    one = graph.constant("one", [1])
    return graph.add("Expand", "mask", scores, graph.add("Concat", "mask_shape", one, one, length, one, axis=0))


def _layer(graph: _Graph, name: str, states: str, mask: str, layer: Layer) -> str:
    projections = {"query": layer.query, "key": layer.key, "value": layer.value}
    products = [graph.product(f"{name}.{role}", states, linear) for role, linear in projections.items()]
    bias = graph.weight(f"{name}.attention.bias", torch.cat([linear.bias for linear in projections.values()]))
    # The mask goes in as a bias on the scores: the browser's WebGPU kernel takes it only in that form.
    context = graph.add(
        "MultiHeadAttention",
        f"{name}.attention",
        *(*products, bias, "", mask),
        domain=_CONTRIB,
        num_heads=layer.heads,
    )
    product = graph.product(f"{name}.attention_output", context, layer.attention_output)
    states = graph.residual_norm(
        f"{name}.attention_norm", product, states, layer.attention_output, layer.attention_norm
    )
    product = graph.product(f"{name}.intermediate", states, layer.intermediate)
    activated = graph.gelu(f"{name}.intermediate", product, layer.intermediate)
    product = graph.product(f"{name}.output", activated, layer.output)
    return graph.residual_norm(f"{name}.output_norm", product, states, layer.output, layer.output_norm)


def _question_answering(graph: _Graph, states: str, head: QuestionAnsweringHead) -> None:
    product = graph.product("head.qa_outputs", states, head.qa_outputs)
    logits = graph.add("Add", "head", product, graph.weight("head.qa_outputs.bias", head.qa_outputs.bias))
    for index, name in enumerate(head.output_names):
        graph.add("Gather", name, logits, graph.constant(f"{name}.index", index), axis=2, output=name)


def _masked_lm(graph: _Graph, states: str, head: MaskedLMHead) -> None:
    product = graph.product("head.transform", states, head.transform)
    states = graph.norm("head.norm", graph.gelu("head.transform", product, head.transform), head.norm)
    product = graph.product("head.decoder", states, head.decoder)
    graph.add("Add", "head", product, graph.weight("head.decoder.bias", head.decoder.bias), output="logits")


def _text_classification(graph: _Graph, states: str, head: TextClassificationHead) -> None:
    first = graph.add("Gather", "head.first", states, graph.constant("first", 0), axis=1)
    product = graph.product("head.pooler", first, head.pooler)
    pooled = graph.add("Add", "head.pooler", product, graph.weight("head.pooler.bias", head.pooler.bias))
    pooled = graph.add("Tanh" if isinstance(head.activation, nn.Tanh) else "Relu", "head.pooler", pooled)
    product = graph.product("head.classifier", pooled, head.classifier)
    graph.add("Add", "head", product, graph.weight("head.classifier.bias", head.classifier.bias), output="logits")


def build_graph(model: PlainEncoder) -> onnx.ModelProto:
    """The fp32 graph of a model.

    It takes `input_ids` and `attention_mask`, int64 [batch, length], both dynamic, and returns the model's outputs,
    float [batch, length], [batch, length, vocabulary] or [batch, classes].
    """
    graph = _Graph()
    length = graph.add("Shape", "length", "input_ids", start=1, end=2)
    states = _embeddings(graph, model.embeddings, length)
    mask = _additive_mask(graph, length)
    for index, layer in enumerate(model.layers):
        assert isinstance(layer, Layer)  # nn.ModuleList forgets it
        states = _layer(graph, f"layers.{index}", states, mask, layer)
    shape: list[str | int] = ["batch", "length"]
    match model.head:
        case QuestionAnsweringHead():
            _question_answering(graph, states, model.head)
        case TextClassificationHead():
            _text_classification(graph, states, model.head)
        case MaskedLMHead():
            _masked_lm(graph, states, model.head)
    output_shape = model.output_shape("batch", "length")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, output_shape) for name in model.output_names]
    proto = helper.make_model(
        helper.make_graph(graph.nodes, "edge_distil", inputs, outputs, graph.initializers),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(_CONTRIB, 1)],
        ir_version=_IR_VERSION,
    )
    sign(proto)
    return proto


def sign(proto: onnx.ModelProto) -> None:
    """Say in the file what made it and what it needs to run."""
    proto.producer_name, proto.producer_version = "edge-distil", __version__
    helper.set_model_props(proto, {"opset": str(OPSET), "onnxruntime": f">={ONNXRUNTIME_FLOOR}"})
