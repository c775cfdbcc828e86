"""Core ML packages for iPhone, iPad and Mac."""

from exporters.coreml.compression import alone, unpacked, write_package
from exporters.coreml.conversion import About, convert, module_of, traced
from exporters.coreml.plan import HIGHER, CoreMLPlan, lengths_text

__all__ = [
    "HIGHER",
    "About",
    "CoreMLPlan",
    "alone",
    "convert",
    "lengths_text",
    "module_of",
    "traced",
    "unpacked",
    "write_package",
]
