"""A `PlainEncoder` as an ONNX graph of fused operators, written node by node.

ONNX Runtime has single operators for attention, for a residual sum with its normalisation, and for GELU with its bias,
but its optimiser does not recognise them in what torch exports. Writing the graph out states them directly, takes no
tracing, and gives the same bytes for the same weights.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edge_distil import __version__
from edge_distil.errors import UserError
from exporters.calibration import Activation
from exporters.encoder import (
    MASKED_SCORE,
    Embeddings,
    Layer,
    MaskedLMHead,
    PlainEncoder,
    QuestionAnsweringHead,
    TextClassificationHead,
)
from exporters.onnx.plan import Plan
from exporters.quantization import BLOCK, channel_scales, int4_blocks, int8_channels, int8_rows

OPSET = 17  # the first with LayerNormalization; no later than that, so that older runtimes read the file too
ONNXRUNTIME_FLOOR = "1.23"  # the oldest release that the toolkit is tested with
_IR_VERSION = 8  # the file format that came with the opset
_CONTRIB = "com.microsoft"  # the domain of ONNX Runtime's own operators
_INT8_ARITHMETIC = 4  # MatMulNBits' `accuracy_level` that rounds its input to int8, which is what makes it fast
_FLOAT = TensorProto.FLOAT
_FP16_LARGEST = float(np.finfo(np.float16).max)


class _Graph:
    """Nodes and weights in the order in which they are added. Methods return the name of what they add."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.float = np.float16 if plan.precision == "fp16" else np.float32
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._quantized: dict[str, tuple[str, str, str]] = {}

    def constant(self, name: str, value: Any, dtype: type = np.int64) -> str:
        self.initializers.append(numpy_helper.from_array(np.array(value, dtype=dtype), name))
        return name

    def array(self, name: str, array: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def weight(self, name: str, tensor: torch.Tensor) -> str:
        values = tensor.detach().numpy()
        if self.float is np.float16 and (largest := float(np.abs(values).max(initial=0))) > _FP16_LARGEST:
            raise UserError(
                f"the weight {name} reaches {largest:g}, fp16 holds at most {_FP16_LARGEST:g}",
                "export it without fp16, or check the checkpoint for weights that large",
            )
        return self.array(name, values.astype(self.float, copy=False))

    def add(
        self, operator: str, name: str, *inputs: str, domain: str = "", output: str | None = None, **attributes: Any
    ) -> str:
        """Add a node with one output, which is named after the node unless `output` names it."""
        output = output or f"{name}.{operator}"
        self.nodes.append(
            helper.make_node(operator, inputs, [output], f"{name}.{operator}", domain=domain, **attributes)
        )
        return output

    def output(self, name: str, logits: str) -> None:
        """Make logits an output of the graph, in fp32 whatever the graph computes in."""
        self.add("Cast", name, logits, output=name, to=_FLOAT)

    def affine(self, name: str, states: str, linear: nn.Linear, part: str | None = None) -> tuple[str, ...]:
        """A linear layer, as the values that the next operator has to add: product and bias, or both in one.

        `part` is its part in the plan, where that has another name.
        """
        precision = self.plan.of(part or name)
        bias = self.weight(f"{name}.bias", linear.bias)
        if precision == "int8" or (precision == "int4" and self.plan.blocks_at_load):
            return (self.product(name, states, linear, part, bias),)
        return self.product(name, states, linear, part), bias

    def product(self, name: str, states: str, linear: nn.Linear, part: str | None = None, bias: str = "") -> str:
        """The matrix product of a linear layer. Only int8 arithmetic adds a `bias`; what follows does for others."""
        part = part or name
        match self.plan.of(part):
            case "int8":
                return self._int8_product(part, name, states, linear, bias)
            case "int4" if self.plan.blocks_at_load:
                return self._int8_product_of_blocks(part, name, states, linear, bias)
            case "int4":
                return self._int4_product(name, states, linear)
            case _:
                return self.exact_product(name, states, linear)

    def exact_product(self, name: str, states: str, linear: nn.Linear) -> str:
        """The matrix product of a linear layer in the graph's floating-point type."""
        return self.add("MatMul", name, states, self.weight(f"{name}.weight", linear.weight.T))

    def _int8_product(self, part: str, name: str, states: str, linear: nn.Linear, bias: str) -> str:
        activation = self.plan.activations.get(part)
        weight_KN = linear.weight.detach().numpy().T
        if activation is not None and activation.smoothing is not None:
            weight_KN = weight_KN * activation.smoothing[:, None]
        codes_KN, scales_N = int8_channels(weight_KN, self.plan.bits)
        codes, scales = self.array(f"{name}.weight.codes", codes_KN), self.array(f"{name}.weight.scales", scales_N)
        return self._integer_product(part, name, states, activation, codes, scales, bias)

    def _integer_product(
        self, part: str, name: str, states: str, activation: Activation | None, codes: str, scales: str, bias: str
    ) -> str:
        inputs, scale, zero = self._quantize(part, states, activation)
        return self.add(
            "MatMulIntegerToFloat",
            name,
            *(inputs, codes, scale, scales, zero),
            *(("", bias) if bias else ()),
            domain=_CONTRIB,
        )

    def _int4_product(self, name: str, states: str, linear: nn.Linear) -> str:
        codes_NKB, scales_NK = int4_blocks(linear.weight.detach().numpy())
        return self.add(
            "MatMulNBits",
            name,
            states,
            self.array(f"{name}.weight.codes", codes_NKB),
            self._scales(name, scales_NK),
            domain=_CONTRIB,
            K=linear.in_features,
            N=linear.out_features,
            bits=4,
            block_size=BLOCK,
            accuracy_level=_INT8_ARITHMETIC,
        )

    def _scales(self, name: str, scales: np.ndarray) -> str:
        """fp16 scales of int4 blocks, widened to fp32; ONNX Runtime does so once, when it loads the graph."""
        return self.add("Cast", f"{name}.weight.scales", self.array(f"{name}.weight.scales", scales), to=_FLOAT)

    def _int8_product_of_blocks(self, part: str, name: str, states: str, linear: nn.Linear, bias: str) -> str:
        """The product of a weight that is int4 in the file and int8, with a scale for each channel, in memory.

        Every step from the file's codes to int8 is on constants: ONNX Runtime takes them when it loads the graph.
        """
        codes_NKB, scales_NK = int4_blocks(linear.weight.detach().numpy())
        at = f"{name}.weight"
        four = self.constant(f"{at}.four", 4, np.uint8)
        codes = self.array(f"{at}.codes", codes_NKB)
        shifted = self.add("BitShift", f"{at}.low_to_high", codes, four, direction="LEFT")
        low = self.add("BitShift", f"{at}.low", shifted, four, direction="RIGHT")
        high = self.add("BitShift", f"{at}.high", codes, four, direction="RIGHT")
        last = self.constant(f"{at}.last", [-1])
        halves = [self.add("Unsqueeze", f"{at}.{which}", half, last) for which, half in (("low", low), ("high", high))]
        pairs = self.add("Concat", f"{at}.pairs", *halves, axis=-1)
        blocks = self.add("Reshape", f"{at}.blocks", pairs, self.constant(f"{at}.of_blocks", [0, 0, BLOCK]))
        signed = self.add(
            "Sub",
            at,
            self.add("Cast", f"{at}.blocks", blocks, to=_FLOAT),
            self.constant(f"{at}.zero", 8, np.float32),
        )
        # From a block's scale to its channel's: 8 × the largest scale is the largest weight that there can be.
        scales_N = channel_scales(scales_NK, self.plan.bits)
        ratios = self.add(
            "Div", f"{at}.ratios", self._scales(name, scales_NK), self.array(f"{at}.channels", scales_N[:, None])
        )
        factors = self.add("Unsqueeze", f"{at}.ratios", ratios, last)
        coarse = self.add("Round", at, self.add("Mul", at, signed, factors))
        channels = self.add("Reshape", at, coarse, self.constant(f"{at}.of_channels", [linear.out_features, -1]))
        whole = self.add(
            "Slice",
            at,
            channels,
            *(self.constant(f"{at}.{what}", value) for what, value in (("first", [0]), ("end", [linear.in_features]))),
            self.constant(f"{at}.axis", [1]),
        )
        weight_KN = self.add("Transpose", at, self.add("Cast", at, whole, to=TensorProto.INT8), perm=[1, 0])
        scales = self.array(f"{at}.channel_scales", scales_N)
        return self._integer_product(part, name, states, self.plan.activations.get(part), weight_KN, scales, bias)

    def _quantize(self, part: str, states: str, activation: Activation | None) -> tuple[str, str, str]:
        """Names of the codes, their scale and their zero point, once for all products that share their input."""
        if part not in self._quantized:
            if activation is None:
                found = f"{part}.codes", f"{part}.scale", f"{part}.zero_point"
                self.nodes.append(helper.make_node("DynamicQuantizeLinear", [states], found, f"{part}.quantize"))
            else:
                if activation.smoothing is not None:
                    factors = self.array(f"{part}.smoothing", (1 / activation.smoothing).astype(np.float32))
                    states = self.add("Mul", f"{part}.smooth", states, factors)
                scale = self.constant(f"{part}.scale", activation.scale, np.float32)
                zero = self.constant(f"{part}.zero_point", activation.zero_point, np.uint8)
                found = self.add("QuantizeLinear", f"{part}.quantize", states, scale, zero), scale, zero
            self._quantized[part] = found
        return self._quantized[part]

    def rows(self, part: str, table: nn.Embedding, pick: Callable[[str, str], str]) -> str:
        """Rows of a table. `pick(name, array)` adds the node that takes them out of an array of as many rows."""
        weight_RH = table.weight.detach().numpy()
        if self.plan.of(part) in ("fp32", "fp16"):
            return pick(part, self.weight(f"{part}.weight", table.weight))
        codes_RH, scales_R = int8_rows(weight_RH)
        codes = pick(f"{part}.codes", self.array(f"{part}.weight.codes", codes_RH))
        scales = pick(f"{part}.scales", self.array(f"{part}.weight.scales", scales_R[:, None]))
        return self.add("Mul", part, self.add("Cast", f"{part}.codes", codes, to=_FLOAT), scales)

    def int4_rows(self, part: str, table: nn.Embedding, ids: str) -> str:
        """The rows `ids` of a table in int4 blocks."""
        codes, scales = int4_blocks(table.weight.detach().numpy())
        return self.add(
            "GatherBlockQuantized",
            part,
            self.array(f"{part}.weight.codes", codes.reshape(len(codes), -1)[:, : table.embedding_dim // 2]),
            ids,
            self._scales(part, scales),
            domain=_CONTRIB,
            bits=4,
            block_size=BLOCK,
            gather_axis=0,
            quantize_axis=1,
        )

    def gelu(self, name: str, states: str, linear: nn.Linear) -> str:
        """gelu(linear layer of the states), the exact one."""
        values = self.affine(name, states, linear)
        return self.add("Gelu" if len(values) == 1 else "BiasGelu", name, *values, domain=_CONTRIB)

    def norm(self, name: str, states: str, norm: nn.LayerNorm) -> str:
        scale, bias = self.weight(f"{name}.weight", norm.weight), self.weight(f"{name}.bias", norm.bias)
        return self.add("LayerNormalization", name, states, scale, bias, axis=-1, epsilon=norm.eps)

    def residual_norm(
        self, name: str, states: str, linear: nn.Linear, skip: str, norm_name: str, norm: nn.LayerNorm
    ) -> str:
        """norm(linear layer of the states + skip).

        As `Sum` and not as `Add`, which ONNX Runtime would fuse with the normalisation: on CPUs the fused operator
        takes four times as long as the two.
        """
        return self.norm(norm_name, self.add("Sum", name, *self.affine(name, states, linear), skip), norm)


def _embeddings(graph: _Graph, embeddings: Embeddings, length: str) -> str:
    """Hidden states [B, L, H] of `input_ids`. `length` is L, int64 [1]."""
    zero = graph.constant("zero", [0])
    word = "embeddings.word"
    # A byte of two codes: a row of odd width would end in the middle of one.
    if graph.plan.of(word) == "int4" and embeddings.word.embedding_dim % 2 == 0:
        states = graph.int4_rows(word, embeddings.word, "input_ids")
    else:
        states = graph.rows(word, embeddings.word, lambda name, array: graph.add("Gather", name, array, "input_ids"))
    positions = graph.rows(
        "embeddings.position",
        embeddings.position,
        lambda name, array: graph.add("Slice", name, array, zero, length, zero),
    )
    states = graph.add("Add", "embeddings.sum", states, positions)
    if embeddings.segment is not None:
        # 0 up to and including the first [SEP], 1 after it. A table of one row has segment 0 alone.
        sep_id = graph.constant("sep_id", embeddings.sep_id, np.dtype(graph.plan.input_type).type)
        is_separator = graph.add("Equal", "separator", "input_ids", sep_id)
        is_separator = graph.add("Cast", "separator", is_separator, to=TensorProto.INT64)
        before = graph.add("CumSum", "separators_before", is_separator, graph.constant("axis_1", 1), exclusive=1)
        last_row = graph.constant("last_segment", min(1, embeddings.segment.num_embeddings - 1))
        table = graph.weight("embeddings.segment.weight", embeddings.segment.weight)
        segment = graph.add("Gather", "embeddings.segment", table, graph.add("Min", "segment_ids", before, last_row))
        states = graph.add("Add", "embeddings.segment", states, segment)
    return graph.norm("embeddings.norm", states, embeddings.norm)


def _additive_mask(graph: _Graph, length: str) -> str:
    """What is added to the attention scores, float [B, 1, L, L]: `PlainEncoder`'s mask, repeated for every query."""
    kept = graph.add("Cast", "mask", "attention_mask", to=helper.np_dtype_to_tensor_dtype(np.dtype(graph.float)))
    masked = graph.add("Sub", "mask", graph.constant("kept", 1, graph.float), kept)
    scores = graph.add("Mul", "mask", masked, graph.constant("masked_score", MASKED_SCORE, graph.float))
    scores = graph.add("Unsqueeze", "mask", scores, graph.constant("axes_1_2", [1, 2]))
    one = graph.constant("one", [1])
    return graph.add("Expand", "mask", scores, graph.add("Concat", "mask_shape", one, one, length, one, axis=0))


def _layer(graph: _Graph, name: str, states: str, mask: str, layer: Layer) -> str:
    projections = {"query": layer.query, "key": layer.key, "value": layer.value}
    products = [
        graph.product(f"{name}.{role}", states, linear, f"{name}.attention") for role, linear in projections.items()
    ]
    bias = graph.weight(f"{name}.attention.bias", torch.cat([linear.bias for linear in projections.values()]))
    # The mask goes in as a bias on the scores: the browser's WebGPU kernel takes it only in that form.
    context = graph.add(
        "MultiHeadAttention",
        f"{name}.attention",
        *(*products, bias, "", mask),
        domain=_CONTRIB,
        num_heads=layer.heads,
    )
    states = graph.residual_norm(
        f"{name}.attention_output",
        context,
        layer.attention_output,
        states,
        f"{name}.attention_norm",
        layer.attention_norm,
    )
    activated = graph.gelu(f"{name}.intermediate", states, layer.intermediate)
    return graph.residual_norm(
        f"{name}.output", activated, layer.output, states, f"{name}.output_norm", layer.output_norm
    )


def _question_answering(graph: _Graph, states: str, head: QuestionAnsweringHead) -> None:
    product = graph.exact_product("head.qa_outputs", states, head.qa_outputs)
    logits = graph.add("Add", "head", product, graph.weight("head.qa_outputs.bias", head.qa_outputs.bias))
    for index, name in enumerate(head.output_names):
        graph.output(name, graph.add("Gather", f"head.{name}", logits, graph.constant(f"{name}.index", index), axis=2))


def _masked_lm(graph: _Graph, states: str, head: MaskedLMHead) -> None:
    states = graph.norm("head.norm", graph.gelu("head.transform", states, head.transform), head.norm)
    graph.output("logits", graph.add("Sum", "head", *graph.affine("head.decoder", states, head.decoder)))


def _text_classification(graph: _Graph, states: str, head: TextClassificationHead) -> None:
    first = graph.add("Gather", "head.first", states, graph.constant("first", 0), axis=1)
    pooled = graph.add("Sum", "head.pooler", *graph.affine("head.pooler", first, head.pooler))
    pooled = graph.add("Tanh" if isinstance(head.activation, nn.Tanh) else "Relu", "head.pooler", pooled)
    product = graph.exact_product("head.classifier", pooled, head.classifier)
    logits = graph.add("Add", "head", product, graph.weight("head.classifier.bias", head.classifier.bias))
    graph.output("logits", logits)


def build_graph(model: PlainEncoder, plan: Plan | None = None) -> onnx.ModelProto:
    """The graph of a model, by default in fp32.

    It takes `input_ids` and `attention_mask`, of the plan's `input_type`, [batch, length], both dynamic, and returns
    the model's outputs, float [batch, length], [batch, length, vocabulary] or [batch, classes].
    """
    plan = plan or Plan()
    graph = _Graph(plan)
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
    integer = helper.np_dtype_to_tensor_dtype(np.dtype(plan.input_type))
    inputs = [helper.make_tensor_value_info(name, integer, shape) for name in ("input_ids", "attention_mask")]
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
