"""The latency study: how long one question takes, by model, runtime and precision."""

from edge_distil.bench.latency import Contender, measure, report
from edge_distil.bench.shapes import Shape, random_model

__all__ = ["Contender", "Shape", "measure", "random_model", "report"]
