"""Core ML packages for iPhone, iPad and Mac."""

from exporters.coreml.conversion import convert
from exporters.coreml.package import Package, read_package

__all__ = ["PACKAGE", "Package", "convert", "read_package"]

PACKAGE = "model.mlpackage"
