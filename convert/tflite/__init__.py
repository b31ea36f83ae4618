"""Keras to TFLite."""

from stnkit.convert.tflite.export import export_tflite

__all__ = ["export_tflite"]
