"""Core ML packages for iPhone, iPad and Mac."""

from exporters.coreml.conversion import convert

__all__ = ["convert"]
