"""`read_transformers`: theta and the warped image, out of a model that runs."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from stnkit.models import (
    InverseSpatialTransformer,
    SpatialTransformer,
    ThinPlateSpline,
    localization_cnn,
    read_transformers,
)

SIZE = (8, 10)


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(5)


@pytest.fixture
def image():
    return np.random.default_rng(1).uniform(0, 1, (3, *SIZE, 2)).astype(np.float32)


def disturb(layer, amount=0.2):
    rng = np.random.default_rng(8)
    weights = layer.theta_head.get_weights()
    layer.theta_head.set_weights([w + rng.uniform(-amount, amount, w.shape) for w in weights])


def test_read_transformers_returns_theta_and_image_of_each_call(image, assert_close, tolerances):
    first = SpatialTransformer(localization_cnn((2,), 4, 3), (6, 6), name="first")
    second = SpatialTransformer(
        localization_cnn((2,), 4, 3), transform=ThinPlateSpline(2), name="second"
    )
    inner = keras.Sequential([keras.Input((*SIZE, 2)), first], name="inner")
    model = keras.Sequential(
        [keras.Input((*SIZE, 2)), inner, second, keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    disturb(first)
    disturb(second)
    found = read_transformers(model, image)
    assert [one.layer for one in found] == ["first", "second"]
    assert [one.theta.shape for one in found] == [(3, 2, 3), (3, 4, 2)]
    assert all(isinstance(part, np.ndarray) for one in found for part in (one.theta, one.warped))
    theta = first.theta_head(first.localization_net(image)).numpy()
    assert_close(found[0].theta, theta, tolerances.exact)
    assert_close(found[0].warped, first(image).numpy(), tolerances.exact)
    assert_close(found[1].warped, second(found[0].warped).numpy(), tolerances.sample)


def test_read_transformers_tells_calls_of_one_layer_apart(image):
    layer = SpatialTransformer(transform="translation", name="shift")
    entry, one, other = keras.Input((*SIZE, 2)), keras.Input((2,)), keras.Input((2,))
    inverse = InverseSpatialTransformer(transform="translation", name="back")
    shifted = layer([layer([entry, one]), other])
    model = keras.Model([entry, one, other], inverse([shifted, other]))
    thetas = [np.full((3, 2), value, np.float32) for value in (0.1, -0.3)]
    found = read_transformers(model, [image, *thetas])
    assert [each.layer for each in found] == ["shift", "shift", "back"]
    assert [float(each.theta[0, 0]) for each in found] == [
        float(np.float32(value)) for value in (0.1, -0.3, 0.3)
    ]


def test_read_transformers_runs_without_training_and_leaves_nothing_behind(image):
    net = keras.Sequential([keras.layers.Flatten(), keras.layers.Dropout(0.9)])
    model = keras.Sequential([keras.Input((*SIZE, 2)), SpatialTransformer(net)])
    disturb(model.layers[0])
    one, other = (read_transformers(model, image)[0].theta for _ in range(2))
    assert np.array_equal(one, other)
    with pytest.raises(ValueError, match="expected"):
        read_transformers(model, image.astype(np.int32)[..., :1])
    assert len(read_transformers(model, image)) == 1


def test_read_transformers_of_a_model_without_any(image):
    model = keras.Sequential([keras.Input((*SIZE, 2)), keras.layers.Flatten()], name="plain")
    with pytest.raises(ValueError, match="'plain' has no SpatialTransformer"):
        read_transformers(model, image)
