"""The parts on their own: localisation network, theta head, grid generator and sampler."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from stnkit.models import (
    Affine,
    AffineGridGenerator,
    Attention,
    DenseFlow,
    GridSampler,
    Similarity,
    SpatialTransformer,
    ThetaHead,
    affine_grid,
    grid_sample,
    localization_cnn,
)
from stnkit.models.theta_head import IdentityTheta

IDENTITY = np.array([[1, 0, 0], [0, 1, 0]], np.float32)


@pytest.fixture
def image():
    return np.random.default_rng(1).uniform(0, 1, (2, 6, 8, 3)).astype(np.float32)


@pytest.fixture
def theta():
    return np.random.default_rng(2).uniform(-1, 1, (2, 2, 3)).astype(np.float32)


def test_the_four_parts_make_the_layer(image, assert_close, tolerances):
    layer = SpatialTransformer(localization_cnn((2,), 4), (5, 4), "bilinear", "border", True)
    layer(image)
    rng = np.random.default_rng(3)
    layer.theta_head.set_weights(
        [part + rng.uniform(-0.3, 0.3, part.shape) for part in layer.theta_head.get_weights()]
    )
    entry = keras.Input((6, 8, 3))
    theta = layer.theta_head(layer.localization_net(entry))
    grid = AffineGridGenerator((5, 4), align_corners=True)(theta)
    parts = keras.Model(entry, GridSampler("bilinear", "border", True)([entry, grid]))
    assert_close(layer(image).numpy(), parts(image).numpy(), tolerances.exact)
    assert parts.output_shape == (None, 5, 4, 3)


@pytest.mark.parametrize("shape", [(7,), (2, 3, 4), (1, 1)], ids=str)
def test_untrained_theta_head_gives_the_identity_for_any_features(shape):
    head = ThetaHead()
    features = np.random.default_rng(4).normal(0, 100, (3, *shape)).astype(np.float32)
    received = head(features).numpy()
    assert np.array_equal(received, np.broadcast_to(IDENTITY, (3, 2, 3)))
    assert head.compute_output_shape(features.shape) == (3, 2, 3)
    assert [weight.shape for weight in head.weights] == [(int(np.prod(shape)), 6), (6,)]


def test_theta_head_is_a_dense_layer_read_row_by_row():
    head = ThetaHead()
    head.build((None, 2))
    kernel = np.arange(12, dtype=np.float32).reshape(2, 6)
    head.set_weights([kernel, np.array([100, 200, 300, 400, 500, 600], np.float32)])
    received = head(np.array([[1, 10]], np.float32)).numpy()
    # 1 * (0..5) + 10 * (6..11) + bias
    assert received.tolist() == [[[160, 271, 382], [493, 604, 715]]]


@pytest.mark.parametrize("policy", ["mixed_float16", "float16", "bfloat16", "float64"])
def test_theta_head_is_float32_under_any_policy(policy):
    head = ThetaHead(dtype=policy)
    features = np.ones((2, 4), np.float16)
    assert head(features).dtype == tf.float32
    assert {weight.dtype for weight in head.weights} == {"float32"}


def test_theta_head_in_a_half_precision_layer_multiplies_in_float32(assert_close, tolerances):
    layer = SpatialTransformer(
        keras.layers.Flatten(dtype="mixed_float16"), (1, 1), dtype="mixed_float16"
    )
    image = np.full((1, 2, 2, 1), 1 / 3, np.float16)
    layer(image)
    kernel = np.full((4, 6), 1 / 7, np.float32)
    layer.theta_head.set_weights([kernel, np.zeros(6, np.float32)])
    seen = []
    original = layer.theta_head.call
    layer.theta_head.call = lambda features: seen.append(original(features)) or seen[-1]
    layer(image)
    expected = np.full((1, 2, 3), 4 * np.float32(np.float16(1 / 3)) / 7)
    assert_close(seen[0].numpy(), expected, tolerances.exact)


def test_theta_head_refuses_features_of_unknown_size():
    with pytest.raises(ValueError, match=r"features have shape \(None, None, 4\).*global pooling"):
        ThetaHead().build((None, None, 4))


def test_theta_head_config_and_saving(tmp_path, assert_close, tolerances):
    model = keras.Sequential([keras.Input((5,)), ThetaHead(name="head")])
    model.set_weights([np.full((5, 6), 0.25, np.float32), np.arange(6, dtype=np.float32)])
    model.save(tmp_path / "head.keras")
    loaded = keras.saving.load_model(tmp_path / "head.keras")
    features = np.random.default_rng(5).normal(size=(3, 5)).astype(np.float32)
    assert_close(loaded(features).numpy(), model(features).numpy(), tolerances.exact)
    assert loaded.layers[0].get_config() == model.layers[0].get_config()


def test_identity_theta_fills_a_bias():
    received = IdentityTheta()((6,), dtype="float32")
    assert received.dtype == tf.float32
    assert received.numpy().tolist() == [1, 0, 0, 0, 1, 0]
    dense = keras.layers.Dense(6, bias_initializer=IdentityTheta())
    dense.build((None, 2))
    assert dense.bias.numpy().tolist() == [1, 0, 0, 0, 1, 0]


@pytest.mark.parametrize("shape", [(5,), (2, 3), (6, 6), ()], ids=str)
def test_identity_theta_refuses_another_shape(shape):
    with pytest.raises(ValueError, match="a theta of 'affine' has 6 parameters") as caught:
        IdentityTheta()(shape)
    assert str(shape) in str(caught.value)


def test_identity_theta_is_serialisable():
    config = keras.saving.serialize_keras_object(IdentityTheta())
    assert isinstance(keras.saving.deserialize_keras_object(config), IdentityTheta)


@pytest.mark.parametrize(
    ("transform", "start"),
    [
        ("attention", (0.5, -0.5, 0.5)),
        (Affine(), [[0.8, -0.2, 0.1], [0.3, 1.2, -0.4]]),
        (Affine(bounds=0.5), [0.6, -0.4, 0.1, 0.3, 1.2, -0.49]),
        (Attention(bounds=(0.6, 0.5, 0.7)), np.array([0.5, -0.25, 0.5])),
        (DenseFlow((2, 2), bounds=0.2), np.linspace(-0.15, 0.15, 8)),
    ],
    ids=str,
)
def test_theta_head_starts_where_it_is_told(transform, start, tmp_path, assert_close, tolerances):
    """Bounded, the raw bias lies farther out, so that tanh brings it back to the start."""
    head = ThetaHead(transform, initial_theta=start, name="head")
    features = np.random.default_rng(7).normal(0, 100, (3, 4)).astype(np.float32)
    received = head(features).numpy()
    expected = np.broadcast_to(np.reshape(start, received.shape[1:]), received.shape)
    assert_close(received, expected, tolerances.exact)
    again = ThetaHead.from_config(head.get_config())
    assert again.initial_theta == head.initial_theta == tuple(np.ravel(start))
    assert_close(again(features).numpy(), expected, tolerances.exact)
    model = keras.Sequential([keras.Input((4,)), again])
    model.save(tmp_path / "head.keras")
    loaded = keras.saving.load_model(tmp_path / "head.keras")
    assert_close(loaded(features).numpy(), expected, tolerances.exact)
    assert loaded.layers[0].get_config() == head.get_config()


def test_theta_head_without_a_start_is_the_identity_and_says_so():
    head = ThetaHead("attention")
    assert head.initial_theta is None
    assert head.get_config()["initial_theta"] is None
    # Files of before there was such an argument do not have it.
    config = {key: head.get_config()[key] for key in ("name", "transform")}
    assert ThetaHead.from_config(config)(np.ones((1, 2), np.float32)).numpy().tolist() == [
        [1, 0, 0]
    ]


def test_theta_head_learns_away_from_its_start():
    head = ThetaHead("attention", initial_theta=(0.5, 0.25, 0))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(head(np.ones((2, 3), np.float32)))
    gradients = tape.gradient(total, head.trainable_variables)
    assert [gradient.numpy().tolist() for gradient in gradients] == [[[2] * 3] * 3, [2] * 3]


@pytest.mark.parametrize(
    "start", [(0.5, 0.5), (1,) * 4, (), (1, 0, np.nan), (np.inf, 0, 0)], ids=str
)
def test_theta_head_refuses_a_start_that_is_no_theta(start):
    with pytest.raises(ValueError, match=r"initial theta is .* takes 3 finite numbers"):
        ThetaHead("attention", initial_theta=start)


@pytest.mark.parametrize(
    ("bounds", "start", "where"),
    [
        (0.5, (1, 0, 0, 0.6), "0.6 at 3"),
        (0.5, (1.5, 0, 0, 0), "1.5 at 0"),
        ([1, 1, 0.1, 1], (1, 0.5, -0.2, 0), "-0.2 at 2"),
    ],
    ids=str,
)
def test_theta_head_refuses_a_start_beyond_the_bounds(bounds, start, where):
    with pytest.raises(ValueError, match=f"initial theta has {where}: the bounds of Similarity"):
        ThetaHead(Similarity(bounds=bounds), initial_theta=start)


def test_identity_theta_with_a_start_is_serialisable():
    start = IdentityTheta("attention", (0.5, 0, 0.25))
    config = keras.saving.serialize_keras_object(start)
    again = keras.saving.deserialize_keras_object(config)
    assert again((3,)).numpy().tolist() == [0.5, 0, 0.25]


@pytest.mark.parametrize(
    ("filters", "units", "side"), [((4,), 3, 7), ((2, 5, 3), 9, 28), ([1], 1, 1)], ids=str
)
def test_localization_cnn(filters, units, side):
    net = localization_cnn(filters, units, kernel_size=3, name="looks")
    image = np.random.default_rng(6).uniform(0, 1, (2, side, side, 2)).astype(np.float32)
    assert net(image).shape == (2, units)
    assert net.name == "looks"
    convolutions = [part for part in net.layers if isinstance(part, keras.layers.Conv2D)]
    assert [part.filters for part in convolutions] == list(filters)
    assert {part.kernel_size for part in convolutions} == {(3, 3)}
    assert float(tf.reduce_min(net(image))) >= 0


@pytest.mark.parametrize(
    "arguments",
    [{"filters": ()}, {"filters": (4, 0)}, {"units": 0}, {"kernel_size": -1}],
    ids=str,
)
def test_localization_cnn_refuses_numbers_that_make_no_net(arguments):
    with pytest.raises(ValueError, match="expected at least one convolution") as caught:
        localization_cnn(**arguments)
    ((name, value),) = arguments.items()
    assert f"{name} {value!r}" in str(caught.value).replace("filters is", "filters")


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_affine_grid_generator(theta, flat, align_corners, assert_close, tolerances):
    layer = AffineGridGenerator((4, 5), align_corners)
    given = theta.reshape(2, 6) if flat else theta
    expected = affine_grid(theta, (4, 5), align_corners).numpy()
    assert_close(layer(given).numpy(), expected, tolerances.grid)
    assert layer.compute_output_shape((None, *given.shape[1:])) == (None, 4, 5, 2)
    assert layer(keras.Input(given.shape[1:])).shape == (None, 4, 5, 2)
    again = AffineGridGenerator.from_config(layer.get_config())
    assert_close(again(given).numpy(), expected, tolerances.grid)
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize("size", [(0, 4), (4,), 4, "44", None], ids=repr)
def test_affine_grid_generator_refuses_a_bad_size(size):
    with pytest.raises(ValueError, match=r"output_size is .*expected \(height, width\)"):
        AffineGridGenerator(size)


@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_grid_sampler(
    image, theta, interpolation, padding_mode, align_corners, assert_close, tolerances
):
    modes = (interpolation, padding_mode, align_corners)
    layer = GridSampler(*modes)
    grid = affine_grid(theta, (4, 5), align_corners).numpy()
    expected = grid_sample(image, grid, *modes).numpy()
    assert_close(layer([image, grid]).numpy(), expected, tolerances.exact)
    assert layer.compute_output_shape([(None, 6, 8, 3), (None, 4, 5, 2)]) == (None, 4, 5, 3)
    assert layer([keras.Input((6, 8, 3)), keras.Input((4, 5, 2))]).shape == (None, 4, 5, 3)
    again = GridSampler.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert_close(again([image, grid]).numpy(), expected, tolerances.exact)


@pytest.mark.parametrize("modes", [{"interpolation": "cubic"}, {"padding_mode": "same"}], ids=str)
def test_grid_sampler_refuses_unknown_modes(modes):
    ((name, value),) = modes.items()
    with pytest.raises(ValueError, match=f"{name} is '{value}': expected one of"):
        GridSampler(**modes)


def test_mixed_precision_keeps_grids_in_float32(assert_close, tolerances):
    # One pixel in 4096 is 1/2048 of the frame: half precision rounds such a grid to whole pixels.
    theta = np.array([[[1, 0, 0.3 + 0.1 / 4096], [0, 1, 0]]], np.float32)
    expected = affine_grid(theta, (1, 4096))
    grid = AffineGridGenerator((1, 4096), dtype="mixed_float16")(theta)
    assert grid.dtype == tf.float32
    assert_close(grid.numpy(), expected.numpy(), tolerances.grid)
    stripes = (np.arange(4096) % 2).astype(np.float32).reshape(1, 1, -1, 1)
    warped = GridSampler(dtype="mixed_float16")([stripes, grid])
    assert warped.dtype == tf.float16
    assert_close(warped.numpy(), grid_sample(stripes, expected).numpy(), 2e-3)
