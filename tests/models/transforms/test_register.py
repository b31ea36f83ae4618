"""A transform of the user's own: registered, saved, loaded; and refused where it is not."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from stnkit.models import (
    Affine,
    Chain,
    InverseSpatialTransformer,
    SpatialTransformer,
    ThetaHead,
    Transform,
    Translation,
    localization_cnn,
    register_transform,
    transform_names,
)
from stnkit.models.transforms import registry
from stnkit.models.transforms.base import base_axes
from stnkit.models.transforms.registry import as_transform, describe


class Swirl(Transform):
    """A turn that grows with the distance from the centre, `turns` times theta."""

    name = "swirl"

    def __init__(self, turns=1.0, bounds=None):
        self.turns = turns
        super().__init__(bounds)

    @property
    def theta_shape(self):
        return (1,)

    def identity(self):
        return np.zeros(1, np.float32)

    def planes(self, theta, output_size, align_corners):
        columns, rows = base_axes(output_size, align_corners, theta.dtype)
        x, y = tf.meshgrid(columns, rows)
        angle = self.turns * tf.reshape(theta, [-1, 1, 1]) * (x**2 + y**2)
        return x * tf.cos(angle) - y * tf.sin(angle), x * tf.sin(angle) + y * tf.cos(angle)

    def get_config(self):
        return {"turns": self.turns, **super().get_config()}


class Renamed(Affine):
    """A class that forgot to have a name of its own."""


class Nameless(Swirl):
    name = ""


class Half(Transform):
    name = "half"


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))


@pytest.fixture
def image():
    return np.random.default_rng(1).uniform(0, 1, (3, 8, 10, 2)).astype(np.float32)


def model_of(transform):
    keras.utils.set_random_seed(3)
    layer = SpatialTransformer(localization_cnn((2,), 4, 3), transform=transform)
    model = keras.Sequential([keras.Input((8, 10, 2)), layer])
    rng = np.random.default_rng(2)
    for weight in layer.theta_head.weights:
        weight.assign(rng.uniform(-0.4, 0.4, weight.shape))
    return model


def refused(*parts):
    """Expect a ValueError of one line that has every part, in this order."""
    pattern = ".*".join(re.escape(part) for part in parts)
    return pytest.raises(ValueError, match=f"^[^\\n]*{pattern}[^\\n]*$")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_registered_one_is_saved_loaded_and_cloned(
    image, suffix, tmp_path, assert_close, tolerances
):
    assert register_transform(Swirl) is Swirl
    assert transform_names()[-1] == "swirl"
    model = model_of(Swirl(1.5, bounds=0.8))
    expected = model(image).numpy()
    assert np.abs(expected - image).max() > 0.05
    model.save(tmp_path / f"model{suffix}")
    loaded = keras.saving.load_model(tmp_path / f"model{suffix}")
    assert loaded.layers[0].transform == Swirl(1.5, bounds=0.8)
    assert_close(loaded(image).numpy(), expected, tolerances.exact)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert_close(clone(image).numpy(), expected, tolerances.exact)


def test_a_registered_one_has_a_name_and_can_be_in_a_chain():
    register_transform(Swirl)
    assert as_transform("swirl") == Swirl()
    assert SpatialTransformer(transform="swirl").transform == Swirl()
    chain = Chain([Translation(), Swirl(2.0)])
    assert as_transform(describe(chain)) == chain


def test_the_same_class_again_replaces_the_former():
    """A notebook's cell that is run twice makes a second class of the same name."""
    register_transform(Swirl)
    before = Swirl(1.25)
    again = type("Swirl", (Swirl,), {"__module__": __name__, "__qualname__": "Swirl"})
    assert register_transform(again) is again
    assert type(as_transform("swirl")) is again
    # What was made before the cell ran again is still saved, and loaded as the new class.
    assert type(as_transform(describe(before))) is again


@pytest.mark.parametrize(
    "make",
    [
        lambda transform: SpatialTransformer(transform=transform),
        lambda transform: SpatialTransformer(keras.layers.Flatten(), transform=transform),
        lambda transform: InverseSpatialTransformer(transform=transform),
        lambda transform: ThetaHead(transform),
        lambda transform: Chain([Translation(), transform]),
        describe,
    ],
    ids=["layer", "layer with net", "inverse layer", "theta head", "chain", "describe"],
)
@pytest.mark.parametrize("transform", [Swirl(), Renamed()], ids=["unknown", "inherited name"])
def test_one_that_is_not_registered_is_refused_before_it_can_be_saved(make, transform):
    name = type(transform).__name__
    with refused(f"transform is a {name}", "not registered", "stnkit.models.register_transform"):
        make(transform)


def test_one_that_is_not_registered_still_makes_grids():
    assert Swirl().grid(np.zeros((1, 1), np.float32), (3, 4)).shape == (1, 3, 4, 2)


def test_a_file_whose_transform_is_not_registered_says_what_to_do(tmp_path):
    register_transform(Swirl)
    model_of(Swirl()).save(tmp_path / "model.keras")
    del registry._CLASSES["swirl"]
    with pytest.raises(Exception, match=r"transform is \{'name': 'swirl'.*register_transform"):
        keras.saving.load_model(tmp_path / "model.keras")


@pytest.mark.parametrize(
    ("cls", "says"),
    [
        (Swirl(), ["expected a subclass of Transform"]),
        (SpatialTransformer, ["SpatialTransformer", "expected a subclass of Transform"]),
        ("swirl", ["'swirl'", "expected a subclass of Transform"]),
        (Half, ["Half", "does not define identity, planes, theta_shape"]),
        (Nameless, ["Nameless", "its name is ''", "expected a text"]),
        (Renamed, ["Renamed", "'affine' is that of stnkit.models.transforms.linear.Affine"]),
    ],
    ids=["object", "layer", "text", "abstract", "nameless", "taken"],
)
def test_what_cannot_be_registered(cls, says):
    before = transform_names()
    with refused("cannot register", *says):
        register_transform(cls)
    assert transform_names() == before


def test_a_name_that_another_class_of_the_user_has():
    register_transform(Swirl)
    other = type("Other", (Swirl,), {"__module__": __name__})
    with refused("cannot register Other", f"'swirl' is that of {__name__}.Swirl", "of its own"):
        register_transform(other)
    assert as_transform("swirl") == Swirl()


def test_a_transform_without_a_name():
    bare = type("Bare", (Swirl,), {"name": None})
    with refused("cannot register Bare", "its name is None"):
        register_transform(bare)
    with refused("transform is a Bare", "not registered"):
        SpatialTransformer(transform=bare())
