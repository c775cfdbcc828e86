"""ONNX graphs for ONNX Runtime on any machine, and for transformers.js in the browser."""

from pathlib import Path
from typing import Literal

from edge_distil.runtimes.onnx import GRAPHS
from exporters.encoder import PlainEncoder
from exporters.onnx.plan import InputType, Plan, Precision

Target = Literal["x86", "arm64", "web", "generic"]


def plan_for(precision: Precision, target: Target, input_type: InputType = "int64") -> Plan:
    """What a precision means for a target.

    int8 weights have all 8 bits where the processor adds products of bytes in 32 bits: "x86" stands for VNNI or AMX, as
    servers and laptops have had since 2019, and arm64 and the web's SIMD always do. "generic" takes 7, which older x86
    processors need. int4 is unpacked to int8 when it is loaded, but for the web, whose GPU kernels compute in blocks.
    """
    return Plan(precision, bits=7 if target == "generic" else 8, blocks_at_load=target != "web", input_type=input_type)


def write_graph(model: PlainEncoder, folder: Path, plan: Plan) -> str:
    """Write the graph of a plan to its place below `folder`, over one that is there. Returns its relative path."""
    import onnx

    from exporters.onnx import graph

    path = GRAPHS[plan.precision]
    (folder / path).parent.mkdir(exist_ok=True)
    onnx.save(graph.build_graph(model, plan), folder / path)
    return path
