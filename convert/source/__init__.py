"""The model to convert, whatever it was saved as: one callable with a named signature."""

from stnkit.convert.source.loading import load_source
from stnkit.convert.source.model import SourceModel, source_from_keras

__all__ = ["SourceModel", "load_source", "source_from_keras"]
