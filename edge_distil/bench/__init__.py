"""The latency study: how long one input takes, by model, runtime and precision."""

from edge_distil.bench.latency import Call, Contender, measure, report
from edge_distil.bench.shapes import Shape, random_model

__all__ = ["Call", "Contender", "Shape", "measure", "random_model", "report"]
