"""Keras to ONNX."""

from stnkit.convert.onnx.export import export_onnx

__all__ = ["export_onnx"]
