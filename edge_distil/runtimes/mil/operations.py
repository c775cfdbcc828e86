"""Every operation that is known, by its MIL type."""

from edge_distil.runtimes.mil import compressed, elementwise, layers, shapes
from edge_distil.runtimes.mil.registry import OPERATIONS

__all__ = ["OPERATIONS", "compressed", "elementwise", "layers", "shapes"]
