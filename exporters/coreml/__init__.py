"""Core ML packages for iPhone, iPad and Mac."""

from exporters.coreml.compression import unpacked, write_package
from exporters.coreml.conversion import About, convert, module_of, traced
from exporters.coreml.package import Package, read_package
from exporters.coreml.plan import PACKAGES, CoreMLPlan, lengths_text

__all__ = [
    "PACKAGES",
    "About",
    "CoreMLPlan",
    "Package",
    "convert",
    "lengths_text",
    "module_of",
    "read_package",
    "traced",
    "unpacked",
    "write_package",
]
