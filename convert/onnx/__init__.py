"""Keras to ONNX."""

from stnkit.convert.onnx.export import OPSETS, export_onnx

__all__ = ["OPSETS", "export_onnx"]
