"""A transform of the user's own, which a file only names: `--custom-objects` imports its module."""

from __future__ import annotations

import importlib
import json
import sys

import keras
import pytest

from stnkit.models import SpatialTransformer, localization_cnn
from stnkit.models.transforms import registry
from stnkit.runtime import open_bundle

MODULE = """
import numpy as np
import tensorflow as tf

from stnkit.models import Transform, register_transform


@register_transform
class Stretch(Transform):
    name = "stretch"

    @property
    def theta_shape(self):
        return (1,)

    def identity(self):
        return np.ones(1, np.float32)

    def planes(self, theta, output_size, align_corners):
        columns = tf.linspace(-0.9, 0.9, output_size[1])
        rows = tf.expand_dims(tf.linspace(-0.9, 0.9, output_size[0]), 1)
        x = tf.expand_dims(theta * columns, 1)
        return x + tf.zeros_like(rows), rows + tf.zeros_like(x)
"""


@pytest.fixture
def stretched(scratch, monkeypatch):
    """Save `own.keras`, whose transform's module is forgotten again."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))
    (scratch / "my_transforms.py").write_text(MODULE)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(scratch)
        importlib.invalidate_caches()
        module = importlib.import_module("my_transforms")
        stn = SpatialTransformer(
            localization_cnn((2,), units=4), transform=module.Stretch(), name="stn"
        )
        head = [keras.layers.Flatten(), keras.layers.Dense(3, name="scores")]
        keras.Sequential([keras.Input((8, 8, 1), name="photo"), stn, *head]).save("own.keras")
    del sys.modules["my_transforms"], registry._CLASSES["stretch"]
    yield
    sys.modules.pop("my_transforms", None)


@pytest.mark.parametrize("attribute", ["*", "Stretch"])
def test_importing_the_module_makes_the_transform_known(stretched, attribute, stnkit):
    custom = ["--custom-objects", f"my_transforms:{attribute}", "--json"]
    result = stnkit("convert", "own.keras", "-o", "own.bundle", *custom)
    assert json.loads(result.stdout)["transformers"] == ["stn"]
    taps = {tap.name for tap in open_bundle("own.bundle").manifest.taps}
    assert taps == {"stn/theta", "stn/warped"}
    # A second conversion in the same process finds the module imported and the name taken by it.
    stnkit("inspect", "own.keras", *custom)


def test_without_it_the_error_names_the_transform(stretched, refused):
    line = refused("convert", "own.keras", "-o", "x.bundle", says=["own.keras"])
    assert "stretch" in line
    assert "--custom-objects module:*" in line
