"""Conversion: Keras to TFLite and ONNX, each artifact proven equal to its source."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stnkit.convert.pipeline import ConversionOptions, ConversionResult, convert
    from stnkit.convert.source import SourceModel, load_source, source_from_keras

__all__ = [
    "ConversionOptions",
    "ConversionResult",
    "SourceModel",
    "convert",
    "load_source",
    "source_from_keras",
]

_HOME = {
    "ConversionOptions": "pipeline",
    "ConversionResult": "pipeline",
    "SourceModel": "source",
    "convert": "pipeline",
    "load_source": "source",
    "source_from_keras": "source",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
