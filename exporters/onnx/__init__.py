"""ONNX graphs for ONNX Runtime on any machine, and for transformers.js in the browser."""

from pathlib import Path

from edge_distil.runtimes.onnx import GRAPHS
from exporters.encoder import PlainEncoder


def write_graphs(model: PlainEncoder, folder: Path) -> dict[str, str]:
    """Write the fp32 graph and its int8 form below `folder`. Returns the relative path of each precision's file."""
    import onnx

    from exporters.onnx import graph, quantization

    (folder / "onnx").mkdir()
    onnx.save(graph.build_graph(model), folder / GRAPHS["fp32"])
    quantization.quantize(folder / GRAPHS["fp32"], folder / GRAPHS["int8"])
    return {precision: GRAPHS[precision] for precision in ("fp32", "int8")}
