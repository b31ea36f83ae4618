"""`SpatialTransformer` in training: gradients, mixed precision, and a loss that falls."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from stnkit.models import SpatialTransformer, affine_grid, grid_sample, localization_cnn

STEP = 1e-5


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(11)


@pytest.fixture
def mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


def blobs(count, side=12, dtype=np.float64):
    """Return smooth images `[count, side, side, 1]` with one bright blob each, off the centre."""
    rng = np.random.default_rng(2)
    centre = rng.uniform(-0.35, 0.35, (count, 2, 1, 1))
    y, x = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side), indexing="ij")
    squared = (x - centre[:, :1, 0]) ** 2 + (y - centre[:, 1:, 0]) ** 2
    return np.exp(-4 * squared)[..., None].astype(dtype)


def weighted_sum(values):
    weights = np.random.default_rng(3).uniform(-1, 1, values.shape[1:])
    return tf.reduce_sum(values * tf.constant(weights, values.dtype))


def central_difference(function, array, index):
    """Return the derivative of `function` by one entry of `array`, found numerically."""
    ends = []
    for sign in (1, -1):
        moved = np.array(array)
        moved[index] += sign * STEP
        ends.append(float(function(moved)))
    return (ends[0] - ends[1]) / (2 * STEP)


def some_indices(shape, count):
    rng = np.random.default_rng(4)
    return [tuple(int(rng.integers(size)) for size in shape) for _ in range(count)]


@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_gradients_equal_finite_differences(padding_mode, align_corners):
    layer = SpatialTransformer(
        padding_mode=padding_mode, align_corners=align_corners, dtype="float64"
    )
    image = blobs(2)
    theta = np.array([[[0.83, -0.31, 0.117], [0.22, 0.91, -0.053]]] * 2)

    def total(image, theta):
        return weighted_sum(layer([tf.constant(image), tf.constant(theta)]))

    inputs = [tf.constant(image), tf.constant(theta)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        result = weighted_sum(layer(inputs))
    by_image, by_theta = (part.numpy() for part in tape.gradient(result, inputs))
    for index in np.ndindex(theta.shape):
        expected = central_difference(lambda moved: total(image, moved), theta, index)
        assert by_theta[index] == pytest.approx(expected, abs=1e-5), index
    checked = some_indices(image.shape, 25)
    numbers = [central_difference(lambda moved: total(moved, theta), image, i) for i in checked]
    assert np.abs(numbers).max() > 0.1
    assert [by_image[index] for index in checked] == pytest.approx(numbers, abs=1e-7)


def test_gradients_reach_every_weight_of_the_net_and_the_image():
    # Half precision is not at stake here: the theta head is float32 always, so is the check.
    net = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(4, "tanh")])
    layer = SpatialTransformer(net)
    image = tf.constant(blobs(3, dtype=np.float32))
    layer(image)
    kernel, bias = layer.theta_head.get_weights()
    layer.theta_head.set_weights([np.full_like(kernel, 0.05), bias])
    with tf.GradientTape() as tape:
        tape.watch(image)
        result = tf.reduce_sum(layer(image) ** 2)
    sources = [image, *(weight.value for weight in layer.trainable_weights)]
    gradients = [part.numpy() for part in tape.gradient(result, sources)]
    assert len(gradients) == 1 + 4
    assert all(np.isfinite(part).all() and np.abs(part).max() > 1e-3 for part in gradients)
    # Along its own gradient every weight changes the result as the gradient says.
    for weight, gradient in zip(layer.trainable_weights, gradients[1:], strict=True):
        direction = gradient / np.linalg.norm(gradient)
        before, ends = weight.numpy(), []
        for sign in (1, -1):
            weight.assign(before + sign * 3e-3 * direction)
            ends.append(float(tf.reduce_sum(layer(image) ** 2)))
        weight.assign(before)
        assert (ends[0] - ends[1]) / 6e-3 == pytest.approx(np.linalg.norm(gradient), rel=0.05)


def test_first_step_from_the_identity_moves_the_theta_head():
    layer = SpatialTransformer(localization_cnn((2,), 8, 3))
    image = blobs(4, dtype=np.float32)
    with tf.GradientTape() as tape:
        result = tf.reduce_mean((layer(image) - image[:, ::-1]) ** 2)
    gradients = tape.gradient(result, [part.value for part in layer.theta_head.trainable_weights])
    assert all(np.abs(part).max() > 1e-4 for part in gradients)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_learns_to_centre_a_blob(jit_compile):
    image = blobs(32, dtype=np.float32)
    y, x = np.meshgrid(np.linspace(-1, 1, 12), np.linspace(-1, 1, 12), indexing="ij")
    target = np.tile(np.exp(-4 * (x**2 + y**2))[None, ..., None], (32, 1, 1, 1))
    model = keras.Sequential(
        [keras.Input((12, 12, 1)), SpatialTransformer(localization_cnn((4,), 16, 3))]
    )
    model.compile(keras.optimizers.Adam(1e-2), "mse", jit_compile=jit_compile)
    losses = model.fit(image, target, batch_size=32, epochs=12, verbose=0).history["loss"]
    assert losses[1] < losses[0]
    assert losses[-1] < 0.5 * losses[0]


def test_mixed_precision_trains_and_keeps_coordinates_in_float32(mixed_precision):
    image = blobs(8, dtype=np.float32)
    layer = SpatialTransformer(localization_cnn((2,), 4, 3))
    model = keras.Sequential([keras.Input((12, 12, 1)), layer])
    assert model(image).dtype == tf.float16
    assert layer.localization_net(image).dtype == tf.float16
    theta = layer.theta_head(layer.localization_net(image))
    assert theta.dtype == tf.float32
    assert {weight.dtype for weight in layer.weights} == {"float32"}
    graph = tf.function(model).get_concrete_function(tf.TensorSpec((None, 12, 12, 1))).graph
    marks = {
        operation.name.split("/")[-1]: operation.outputs[0].dtype
        for operation in graph.get_operations()
        if operation.name.split("/")[-1].startswith(("stnkit_theta", "stnkit_warped"))
    }
    assert marks == {"stnkit_theta": tf.float32, "stnkit_warped": tf.float16}
    model.compile(keras.optimizers.Adam(3e-3), "mse")
    losses = model.fit(image, image[:, :, ::-1], epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_mixed_precision_does_not_round_a_given_theta(assert_close):
    # A shift of a tenth of a pixel in 2000: half precision would round it by as much again.
    shift_px, width = 0.1, 2000
    theta = np.array([[[1, 0, 1.5 + 2 * shift_px / width], [0, 1, 0]]], np.float32)
    assert abs(np.float16(theta[0, 0, 2]) - theta[0, 0, 2]) * width / 2 > 0.05
    ramp = (np.arange(width) % 2).astype(np.float32).reshape(1, 1, width, 1)
    received = SpatialTransformer(dtype="mixed_float16", padding_mode="border")([ramp, theta])
    assert received.dtype == tf.float16
    expected = grid_sample(ramp, affine_grid(theta, (1, width)), padding_mode="border")
    assert_close(received.numpy(), expected.numpy(), 2e-3)


def test_mixed_precision_leaves_integers_to_be_refused(mixed_precision):
    theta = np.zeros((1, 6), np.float32)
    with pytest.raises(ValueError, match="dtype int32: expected a float type"):
        SpatialTransformer()([np.zeros((1, 3, 3, 1), np.int32), theta])


@pytest.mark.parametrize("dtype", ["float32", "float64", "mixed_float16", "bfloat16"])
def test_result_has_the_dtype_of_the_policy(dtype):
    layer = SpatialTransformer(dtype=dtype)
    theta = np.array([[1, 0, 0, 0, 1, 0]], np.float32)
    warped = layer([blobs(1, dtype=np.float32), theta])
    assert warped.dtype == layer.compute_dtype
    symbolic = layer([keras.Input((12, 12, 1)), keras.Input((6,))])
    assert symbolic.dtype == layer.compute_dtype
