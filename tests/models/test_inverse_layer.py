"""`InverseSpatialTransformer`: the way back into the original frame."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from stnkit.models import (
    Affine,
    Attention,
    DenseFlow,
    DiffeomorphicFlow,
    InverseSpatialTransformer,
    Projective,
    Similarity,
    SpatialTransformer,
    ThinPlateSpline,
    Translation,
    grid_sample,
)

SIZE = (8, 10)


@pytest.fixture
def image():
    return np.random.default_rng(1).uniform(0, 1, (3, *SIZE, 2)).astype(np.float32)


def near_identity(transform, batch=3, amount=0.08, seed=2, dtype=np.float32):
    noise = np.random.default_rng(seed).uniform(-amount, amount, (batch, *transform.theta_shape))
    return (transform.identity() + noise).astype(dtype)


def blob(side, dtype=np.float32):
    """Return a smooth image `[1, side, side, 1]` that is dark at its border."""
    y, x = np.meshgrid(*[(2 * np.arange(side) + 1) / side - 1] * 2, indexing="ij")
    bright = np.exp(-6 * ((x - 0.1) ** 2 + (y + 0.05) ** 2)) * (1 + 0.5 * np.sin(4 * x + y))
    return bright[None, ..., None].astype(dtype)


def test_a_crop_is_pasted_back_where_it_was(assert_close, tolerances):
    """The upper right quarter at its own size: both ways read at pixel centres."""
    image = np.random.default_rng(9).uniform(0, 1, (1, 8, 8, 2)).astype(np.float32)
    theta = np.array([[0.5, 0.5, -0.5]], np.float32)
    crop = SpatialTransformer(output_size=(4, 4), transform="attention")([image, theta])
    back = InverseSpatialTransformer(output_size=(8, 8), transform="attention")([crop, theta])
    expected = np.zeros_like(image)
    expected[:, :4, 4:] = image[:, :4, 4:]
    assert_close(back.numpy(), expected, tolerances.exact)


INVERTIBLE = [
    Translation(),
    Attention(),
    Similarity(),
    Affine(),
    Projective(),
    DiffeomorphicFlow((32, 32)),
]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("transform", INVERTIBLE, ids=repr)
def test_round_trip_inside_the_crop(transform, align_corners, assert_close):
    image = blob(64)
    if isinstance(transform, DiffeomorphicFlow):
        y, x = np.meshgrid(*[np.linspace(-1, 1, 32)] * 2, indexing="ij")
        window = (np.cos(np.pi * x / 2) * np.cos(np.pi * y / 2)) ** 2
        theta = 0.2 * np.stack([window, -window * x], -1)[None].astype(np.float32)
    else:
        theta = near_identity(transform, 1, 0.15, seed=3)
    arguments = {"transform": transform, "align_corners": align_corners}
    warped = SpatialTransformer(output_size=(80, 72), **arguments)([image, theta])
    assert warped.shape == (1, 80, 72, 1)
    back = InverseSpatialTransformer(output_size=(64, 64), **arguments)([warped, theta]).numpy()
    middle = (slice(None), slice(16, 48), slice(16, 48))
    assert_close(back[middle], image[middle], 1e-2)
    again = SpatialTransformer(output_size=(64, 64), **arguments)([warped, theta]).numpy()
    assert np.abs(again - image)[middle].max() > 3e-2


def test_inverse_layer_in_a_model_saved_and_loaded(image, tmp_path, assert_close, tolerances):
    inputs = [keras.Input((*SIZE, 2)), keras.Input((8,))]
    warped = SpatialTransformer(output_size=(5, 6), transform="projective")(inputs)
    back = InverseSpatialTransformer(
        SIZE, "bicubic", "border", True, Projective(bounds=0.5), name="back"
    )
    model = keras.Model(inputs, back([warped, inputs[1]]))
    assert model.output_shape == (None, *SIZE, 2)
    theta = near_identity(Projective())
    expected = model([image, theta]).numpy()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_close(loaded([image, theta]).numpy(), expected, tolerances.exact)
    assert loaded.get_layer("back").get_config() == back.get_config()
    graph = tf.function(loaded)
    assert_close(graph([image, theta]).numpy(), expected, tolerances.sample)


@pytest.mark.parametrize("transform", [ThinPlateSpline(3), DenseFlow((3, 4))], ids=repr)
def test_inverse_layer_of_a_family_without_inverse(transform):
    with pytest.raises(ValueError, match=f"{type(transform).__name__} has no inverse"):
        InverseSpatialTransformer(transform=transform)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"interpolation": "cubic"}, "interpolation is 'cubic': expected one of"),
        ({"padding_mode": "wrap"}, "padding_mode is 'wrap': expected one of"),
        ({"output_size": (0, 3)}, r"output_size is \(0, 3\): expected"),
        ({"transform": "rotation"}, "transform is 'rotation': expected"),
    ],
    ids=str,
)
@pytest.mark.parametrize("layer", [SpatialTransformer, InverseSpatialTransformer])
def test_bad_arguments_are_refused_when_the_layer_is_made(layer, arguments, message):
    with pytest.raises(ValueError, match=message):
        layer(**arguments)


def test_inverse_layer_keeps_float32_coordinates_under_mixed_precision(image, assert_close):
    layer = InverseSpatialTransformer(transform="affine", dtype="mixed_float16")
    theta = near_identity(Affine())
    received = layer([image, theta])
    assert received.dtype == tf.float16
    expected = grid_sample(image, Affine().grid(Affine().inverse(theta), SIZE)).numpy()
    assert_close(received.numpy().astype(np.float32), expected, 2e-3)
