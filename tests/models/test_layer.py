"""The layer `SpatialTransformer`: where it can stand in a model, what it computes and learns."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from stnkit.models import SpatialTransformer, affine_grid, grid_sample, localization_cnn

IDENTITY = [[1, 0, 0], [0, 1, 0]]
TURN = [[0.8, -0.3, 0.1], [0.2, 0.9, -0.05]]


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(4)


@pytest.fixture
def image():
    return np.random.default_rng(1).uniform(0, 1, (3, 8, 10, 2)).astype(np.float32)


def small_net(units=5):
    return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(units, "tanh")])


def pooling_net():
    """Return a localisation network for images of any size."""
    return keras.Sequential(
        [keras.layers.Conv2D(3, 3, padding="same"), keras.layers.GlobalAveragePooling2D()]
    )


def disturb(layer, amount=0.3):
    """Move the theta head away from the identity, differently for each image."""
    rng = np.random.default_rng(8)
    kernel, bias = layer.theta_head.get_weights()
    noise = [rng.uniform(-amount, amount, part.shape).astype(np.float32) for part in (kernel, bias)]
    layer.theta_head.set_weights([kernel + noise[0], bias + noise[1]])


def by_parts(layer, image, size=None):
    """Return what `layer` should give, from its localisation network on and step by step."""
    theta = layer.theta_head(layer.localization_net(image))
    return grid_sample(image, affine_grid(theta, size or image.shape[1:3]))


def batch_of(theta, count=3):
    return np.tile(np.array(theta, np.float32), (count, 1, 1))


@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_untrained_layer_returns_its_input(
    image, interpolation, padding_mode, align_corners, assert_close, tolerances
):
    layer = SpatialTransformer(
        small_net(),
        interpolation=interpolation,
        padding_mode=padding_mode,
        align_corners=align_corners,
    )
    assert_close(layer(image).numpy(), image, tolerances.exact)


@pytest.mark.parametrize("declared", [True, False])
def test_first_stage_of_a_sequential(image, declared, assert_close, tolerances):
    stages = [SpatialTransformer(small_net()), keras.layers.Flatten(), keras.layers.Dense(4)]
    model = keras.Sequential([keras.Input(image.shape[1:]), *stages] if declared else stages)
    assert model(image).shape == (3, 4)
    assert len(model.trainable_weights) == 2 + 2 + 2
    disturb(stages[0])
    warped = by_parts(stages[0], image)
    assert np.abs(warped - image).max() > 0.1
    expected = stages[2](stages[1](warped)).numpy()
    assert_close(model(image).numpy(), expected, tolerances.exact)
    # The first batch does not fix the size of the next ones.
    more = np.concatenate([image, image[:2]])
    assert_close(model(more).numpy()[3:], expected[:2], tolerances.sample)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("shape", [(2, 3), (6,)], ids=str)
def test_functional_on_image_and_theta(image, shape, align_corners, assert_close, tolerances):
    inputs = [keras.Input(image.shape[1:]), keras.Input(shape)]
    warped = SpatialTransformer(align_corners=align_corners, padding_mode="border")(inputs)
    assert warped.shape == (None, 8, 10, 2)
    model = keras.Model(inputs, warped)
    thetas = np.stack([IDENTITY, TURN, [[-1, 0, 0], [0, 1, 0]]]).astype(np.float32)
    received = model([image, thetas.reshape(3, *shape)]).numpy()
    assert_close(received[0], image[0], tolerances.exact)
    assert_close(received[2], image[2, :, ::-1], tolerances.exact)
    grid = affine_grid(thetas, (8, 10), align_corners)
    expected = grid_sample(image, grid, "bilinear", "border", align_corners).numpy()
    assert_close(received, expected, tolerances.exact)


@pytest.mark.parametrize("output_size", [(4, 5), (13, 3), (1, 1)], ids=str)
def test_output_size_other_than_that_of_the_input(image, output_size, assert_close, tolerances):
    layer = SpatialTransformer(small_net(), output_size=output_size)
    layer(image)
    disturb(layer)
    received = layer(image).numpy()
    assert received.shape == (3, *output_size, 2)
    assert_close(received, by_parts(layer, image, output_size).numpy(), tolerances.exact)


@pytest.mark.parametrize("output_size", [None, (4, 5)], ids=str)
@pytest.mark.parametrize("sides", [(8, 10), (None, None), (8, None)], ids=str)
def test_compute_output_shape_agrees_with_the_call(image, sides, output_size):
    alone = SpatialTransformer(pooling_net(), output_size=output_size)
    pair = SpatialTransformer(output_size=output_size)
    shape, theta_shape = (None, *sides, 2), (None, 2, 3)
    expected = (None, *(output_size or sides), 2)
    assert alone.compute_output_shape(shape) == expected
    assert pair.compute_output_shape([shape, theta_shape]) == expected
    assert alone(keras.Input(shape[1:])).shape == expected
    assert pair([keras.Input(shape[1:]), keras.Input((2, 3))]).shape == expected
    assert alone(image).shape == alone.compute_output_shape(image.shape)


def test_images_of_any_size(assert_close, tolerances):
    model = keras.Sequential([keras.Input((None, None, 2)), SpatialTransformer(pooling_net())])
    (layer,) = model.layers
    disturb(layer)
    graph = tf.function(model, input_signature=[tf.TensorSpec((None, None, None, 2))])
    for batch, height, width in [(1, 8, 10), (3, 5, 4), (2, 1, 7)]:
        image = np.random.default_rng(height).uniform(0, 1, (batch, height, width, 2))
        image = image.astype(np.float32)
        expected = by_parts(layer, image).numpy()
        assert_close(model(image).numpy(), expected, tolerances.sample)
        assert_close(graph(image).numpy(), expected, tolerances.sample)
    assert graph.experimental_get_tracing_count() == 1


def test_two_transformers_in_one_model_are_independent(image, assert_close, tolerances):
    first, second = SpatialTransformer(small_net()), SpatialTransformer(small_net(), (4, 4))
    model = keras.Sequential([keras.Input(image.shape[1:]), first, second])
    disturb(first)
    assert len(model.trainable_weights) == 8
    between = by_parts(first, image)
    assert_close(model(image).numpy(), by_parts(second, between, (4, 4)).numpy(), tolerances.exact)


def test_one_layer_called_twice_shares_its_weights(image, assert_close, tolerances):
    layer = SpatialTransformer(pooling_net())
    inputs = [keras.Input((8, 10, 2)), keras.Input((6, 6, 2))]
    model = keras.Model(inputs, [layer(part) for part in inputs])
    disturb(layer)
    assert len(model.weights) == 4
    other = image[:, :6, :6]
    for received, source in zip(model([image, other]), (image, other), strict=True):
        assert_close(received.numpy(), by_parts(layer, source).numpy(), tolerances.exact)


def test_nested_in_a_submodel(image, assert_close, tolerances):
    layer = SpatialTransformer(small_net())
    inner = keras.Sequential([keras.Input((8, 10, 2)), layer], name="inner")
    entry = keras.Input((8, 10, 2))
    outer = keras.Model(entry, keras.layers.Dense(2, name="after")(inner(entry)))
    disturb(layer)
    expected = outer.get_layer("after")(by_parts(layer, image)).numpy()
    assert_close(outer(image).numpy(), expected, tolerances.exact)


class PlainModel(keras.Model):
    """As users subclass: no `build`, no `compute_output_shape`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.flat, self.dense = keras.layers.Flatten(), keras.layers.Dense(4)

    def call(self, image):
        return self.dense(self.flat(image))


class PlainLayer(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.flat, self.dense = keras.layers.Flatten(), keras.layers.Dense(4)

    def call(self, image):
        return self.dense(self.flat(image))


@pytest.mark.parametrize("net", [PlainModel, PlainLayer, localization_cnn])
def test_nets_of_every_kind_are_built_and_found(image, net, assert_close, tolerances):
    layer = SpatialTransformer(net())
    layer(image)
    assert layer.localization_net.weights
    assert len(layer.trainable_weights) == len(layer.localization_net.trainable_weights) + 2
    disturb(layer)
    assert_close(layer(image).numpy(), by_parts(layer, image).numpy(), tolerances.exact)


def test_training_argument_reaches_the_net(image):
    net = keras.Sequential([keras.layers.Flatten(), keras.layers.Dropout(0.9)])
    layer = SpatialTransformer(net)
    layer(image)
    disturb(layer)
    calm = [layer(image, training=False).numpy() for _ in range(2)]
    assert np.array_equal(*calm)
    assert np.abs(layer(image, training=True) - calm[0]).max() > 0.05


@pytest.mark.parametrize("shape", [(6,), (2, 3)], ids=str)
def test_without_theta_head_the_net_gives_theta(image, shape, assert_close, tolerances):
    bias = keras.initializers.Constant(np.ravel(TURN))
    theta = [keras.layers.Dense(6, kernel_initializer="zeros", bias_initializer=bias)]
    net = keras.Sequential([keras.layers.Flatten(), *theta, keras.layers.Reshape(shape)])
    layer = SpatialTransformer(net, theta_head=False)
    expected = grid_sample(image, affine_grid(batch_of(TURN), (8, 10))).numpy()
    assert_close(layer(image).numpy(), expected, tolerances.exact)
    assert len(layer.weights) == 2


@pytest.mark.parametrize("compiled", ["graph", "xla"])
def test_compiled_equals_eager(image, compiled, assert_close, tolerances):
    layer = SpatialTransformer(small_net(), padding_mode="reflection")
    layer(image)
    disturb(layer)
    eager = layer(image).numpy()
    function = tf.function(layer, jit_compile=compiled == "xla")
    assert_close(function(image).numpy(), eager, tolerances.sample)
