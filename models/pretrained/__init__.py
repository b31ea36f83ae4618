"""Models shipped with stnkit, their provenance and their sample images. Needs no TensorFlow."""

from stnkit.models.pretrained.catalogue import NAMES, Samples, model_file, provenance, samples

__all__ = ["NAMES", "Samples", "model_file", "provenance", "samples"]
