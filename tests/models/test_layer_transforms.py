"""`SpatialTransformer` with every transform: what it computes, learns, saves and refuses."""

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
    Projective,
    Similarity,
    SpatialTransformer,
    ThinPlateSpline,
    Translation,
    grid_sample,
    localization_cnn,
    read_transformers,
)
from stnkit.models.pretrained.catalogue import model_file

SIZE = (8, 10)
FAMILIES = [
    Translation(),
    Attention(bounds=0.4),
    Similarity(),
    Affine(),
    Projective(),
    ThinPlateSpline(3),
    DenseFlow(SIZE),
    DenseFlow((3, 4), bounds=0.3),
    DiffeomorphicFlow((4, 5), steps=3),
]
# Every transform, every interpolation, every padding and both alignments, though not every product.
COMBINATIONS = [
    pytest.param(
        transform,
        ("bilinear", "nearest", "bicubic")[index % 3],
        ("zeros", "border", "reflection")[index // 3 % 3],
        bool(index % 2),
        id=f"{index}-{transform.name}",
    )
    for index, transform in enumerate(FAMILIES)
]
every_family = pytest.mark.parametrize("transform", FAMILIES, ids=repr)


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(5)


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


def without_net(layer):
    return {key: value for key, value in layer.get_config().items() if key != "localization_net"}


def disturb(layer, amount=0.2):
    rng = np.random.default_rng(8)
    weights = layer.theta_head.get_weights()
    layer.theta_head.set_weights([w + rng.uniform(-amount, amount, w.shape) for w in weights])


@pytest.mark.parametrize(("transform", "interpolation", "padding", "aligned"), COMBINATIONS)
@pytest.mark.parametrize("output_size", [None, (5, 7)], ids=str)
def test_warps_as_its_parts_do(
    image, transform, interpolation, padding, aligned, output_size, assert_close, tolerances
):
    layer = SpatialTransformer(
        None, output_size, interpolation, padding, aligned, transform=transform
    )
    theta = near_identity(transform)
    grid = transform.grid(theta, output_size or SIZE, aligned)
    expected = grid_sample(image, grid, interpolation, padding, aligned).numpy()
    for given in (theta, theta.reshape(3, -1)):
        received = layer([image, given])
        assert_close(received.numpy(), expected, tolerances.exact)
    inputs = [keras.Input((*SIZE, 2)), keras.Input(transform.theta_shape)]
    assert layer(inputs).shape == (None, *(output_size or SIZE), 2)


@pytest.mark.parametrize(("transform", "interpolation", "padding", "aligned"), COMBINATIONS)
def test_finds_theta_and_is_saved_and_loaded(
    image, transform, interpolation, padding, aligned, tmp_path, assert_close, tolerances
):
    layer = SpatialTransformer(
        localization_cnn((2,), 4, 3), None, interpolation, padding, aligned, transform=transform
    )
    model = keras.Sequential([keras.Input((*SIZE, 2)), layer])
    assert_close(model(image).numpy(), image, 1e-5 if interpolation != "nearest" else 0)
    assert layer.theta_head(layer.localization_net(image)).shape == (3, *transform.theta_shape)
    disturb(layer, 0.5)
    expected = model(image).numpy()
    assert np.abs(expected - image).max() > 0.05
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_close(loaded(image).numpy(), expected, tolerances.exact)
    again = loaded.layers[0]
    assert again.transform == transform
    assert again.theta_head.transform == transform
    # Keras adds the built shape to the config of a nested model.
    assert without_net(again) == without_net(layer)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert_close(clone(image).numpy(), expected, tolerances.exact)


def test_config_keeps_every_argument():
    layer = SpatialTransformer(
        keras.layers.Flatten(),
        output_size=(3, 4),
        interpolation="bicubic",
        transform=ThinPlateSpline(5, bounds=0.2),
        antialias=True,
        localization_lr_multiplier=0.25,
    )
    again = SpatialTransformer.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.transform == ThinPlateSpline(5, bounds=0.2)
    assert (again.antialias, again.localization_lr_multiplier) == (True, 0.25)
    assert again.interpolation == "bicubic"


def test_transform_by_name_and_by_configuration(image):
    by_name = SpatialTransformer(transform="translation")
    assert by_name.transform == Translation()
    theta = np.array([[0.2, 0.0]] * 3, np.float32)
    by_object = SpatialTransformer(transform=Translation())
    assert np.array_equal(by_name([image, theta]), by_object([image, theta]))
    named = SpatialTransformer(transform={"name": "thin_plate_spline", "points": 3})
    assert named.transform == ThinPlateSpline(3)
    assert SpatialTransformer().transform == Affine()


def test_a_configuration_from_before_there_were_transforms_still_loads(image):
    config = SpatialTransformer(keras.layers.Flatten()).get_config()
    for key in ("transform", "antialias", "localization_lr_multiplier"):
        del config[key]
    layer = SpatialTransformer.from_config(config)
    assert layer.transform == Affine()
    assert (layer.antialias, layer.localization_lr_multiplier) == (False, 1.0)
    assert np.abs(layer(image) - image).max() < 1e-6


def test_shipped_model_of_digits_still_loads():
    model = keras.saving.load_model(model_file("digits"))
    (layer,) = [part for part in model.layers if isinstance(part, SpatialTransformer)]
    assert layer.transform == Affine()
    digits = np.random.default_rng(3).uniform(0, 1, (2, *model.input_shape[1:]))
    digits = digits.astype(np.float32)
    (found,) = read_transformers(model, digits)
    assert found.theta.shape == (2, 2, 3)
    assert np.abs(found.theta - Affine().identity()).max() > 0.01
    grid = Affine().grid(found.theta, found.warped.shape[1:3], layer.align_corners)
    expected = grid_sample(
        digits, grid, layer.interpolation, layer.padding_mode, layer.align_corners
    )
    # The layer goes from theta to pixels in one step, the grid in two: of pixels of noise that are
    # 1 apart, what 14 px of coordinates round to in float32 is left.
    assert np.abs(found.warped - expected).max() < 8 * 14 * 2.0**-24


@every_family
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_gradient_by_theta_equals_finite_differences(transform, interpolation):
    image = blob(12, np.float64)
    layer = SpatialTransformer(transform=transform, interpolation=interpolation, dtype="float64")
    theta = near_identity(transform, 1, 0.05, seed=4, dtype=np.float64)
    weights = np.random.default_rng(5).uniform(-1, 1, (1, 12, 12, 1))

    def total(theta):
        return tf.reduce_sum(layer([tf.constant(image), theta]) * weights)

    variable = tf.constant(theta)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        value = total(variable)
    assert value.dtype == tf.float64
    gradient = tape.gradient(value, variable).numpy()
    assert gradient.shape == theta.shape
    rng, step = np.random.default_rng(6), 1e-6
    for _ in range(3):
        direction = rng.normal(size=theta.shape)
        direction /= np.linalg.norm(direction)
        ends = [float(total(tf.constant(theta + sign * step * direction))) for sign in (1, -1)]
        numeric = (ends[0] - ends[1]) / (2 * step)
        assert numeric == pytest.approx(float((gradient * direction).sum()), rel=1e-4, abs=1e-5)
    assert np.abs(gradient).max() > 1e-2


@pytest.mark.parametrize(
    "transform",
    [Projective(), ThinPlateSpline(3), DiffeomorphicFlow((4, 5), 2)],
    ids=repr,
)
def test_training_moves_theta_of_every_family(transform):
    layer = SpatialTransformer(localization_cnn((2,), 8, 3), transform=transform)
    model = keras.Sequential([keras.Input((12, 12, 1)), layer])
    image = np.concatenate([blob(12), blob(12)[:, ::-1]])
    target = np.roll(image, (1, 1), axis=(1, 2))
    model.compile(keras.optimizers.Adam(3e-3), "mse", run_eagerly=True)
    losses = model.fit(image, target, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]


@every_family
def test_mixed_precision_keeps_theta_and_coordinates_in_float32(image, transform, assert_close):
    layer = SpatialTransformer(
        localization_cnn((2,), 4, 3), transform=transform, dtype="mixed_float16"
    )
    layer(image)
    disturb(layer, 0.1)
    model = keras.Sequential([keras.Input((*SIZE, 2)), layer])
    (found,) = read_transformers(model, image)
    assert found.theta.dtype == np.float32
    assert found.warped.dtype == np.float16
    expected = grid_sample(image, transform.grid(found.theta, SIZE)).numpy()
    assert_close(found.warped.astype(np.float32), expected, 2e-3)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_mixed_precision_reads_between_pixels_of_a_wide_image(interpolation, assert_close):
    """In half precision the coordinates of 4000 pixels would be off by one pixel and more."""
    ramp = (np.sin(np.arange(4000) / 3) / 2 + 0.5).astype(np.float32).reshape(1, 1, 4000, 1)
    theta = np.array([[0.4997, 0]], np.float32)
    layer = SpatialTransformer(
        transform="translation", interpolation=interpolation, dtype="mixed_float16"
    )
    received = layer([ramp, theta]).numpy().astype(np.float32)
    grid = Translation().grid(theta, (1, 4000))
    assert_close(received, grid_sample(ramp, grid, interpolation).numpy(), 2e-3)


@pytest.mark.parametrize("transform", FAMILIES, ids=repr)
def test_wrong_theta_names_the_transform(image, transform):
    theta = np.zeros((3, transform.num_params + 1), np.float32)
    with pytest.raises(
        ValueError, match=f"{type(transform).__name__} takes .*{theta.shape[1] - 1}"
    ):
        SpatialTransformer(transform=transform)([image, theta])
    net = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(theta.shape[1])])
    with pytest.raises(ValueError, match=rf"gives shape \(None, {theta.shape[1]}\)"):
        SpatialTransformer(net, theta_head=False, transform=transform)(image)
