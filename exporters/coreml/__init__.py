"""Core ML packages for iPhone, iPad and Mac."""

from exporters.coreml.compression import write_package
from exporters.coreml.conversion import About, convert, traced
from exporters.coreml.package import Package, read_package
from exporters.coreml.plan import PACKAGES, CoreMLPlan

__all__ = ["PACKAGES", "About", "CoreMLPlan", "Package", "convert", "read_package", "traced", "write_package"]
