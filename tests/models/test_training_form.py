"""What layers compute in training: the same image, and the gradient that TensorFlow would find."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from stnkit.models import (
    DiffeomorphicFlow,
    GridSampler,
    InverseSpatialTransformer,
    SpatialTransformer,
    ThinPlateSpline,
    localization_cnn,
)
from stnkit.models.sampling.training_form import is_training, training_form

FEW, MANY = (9, 7), (66, 65)  # points, below and above where the sampler reads whole cells
TURN = [[0.83, -0.31, 0.117], [0.22, 0.91, -0.053]]
THETAS = {
    "turn": TURN,
    "identity": [[1, 0, 0], [0, 1, 0]],  # all points on pixels: the derivative is one-sided
    "far out": [[3.1, 0.4, 0.7], [-0.2, 2.7, -1.9]],
    "one pixel": [[1e-3, 0, 0.03], [0, 1e-3, 0.02]],  # everything is added up there
}


def images(batch, sides, channels, dtype="float64"):
    rng = np.random.default_rng([batch, *sides, channels])
    return rng.uniform(-1, 1, (batch, *sides, channels)).astype(dtype)


def thetas(batch, theta=TURN, dtype="float64"):
    """Return a batch of thetas that differ a little, `[batch, ...]`."""
    steps = np.arange(batch, dtype=dtype).reshape(-1, *[1] * np.ndim(theta))
    return (np.asarray(theta, dtype)[None] * (1 + 0.07 * steps)).astype(dtype)


def answer(layer, inputs, training, wrap=lambda function: function):
    """Return the output, and the gradients of a weighted sum of it by all inputs."""

    def step(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            output = layer(list(tensors), training=training)
            weights = np.random.default_rng(3).uniform(-1, 1, 4096)
            places = tf.reshape(tf.range(tf.size(output)) % 4096, tf.shape(output))
            weights = tf.gather(tf.constant(weights, output.dtype), places)
            total = tf.reduce_sum(output * weights)
        found = tape.gradient(total, tensors, unconnected_gradients="zero")
        return [tf.convert_to_tensor(value) for value in (output, *found)]

    return [value.numpy() for value in wrap(step)(*map(tf.constant, inputs))]


def assert_same(received, expected, relative):
    for got, want in zip(received, expected, strict=True):
        assert got.dtype == want.dtype
        assert np.abs(want).max() > 0
        assert np.abs(got - want).max() <= relative * np.abs(want).max()


@pytest.mark.parametrize("theta", THETAS)
@pytest.mark.parametrize("padding_mode", ["zeros", "border"])
@pytest.mark.parametrize("channels", [1, 3, 4, 5])
@pytest.mark.parametrize("sides", [FEW, MANY], ids=["few", "many"])
def test_affine_values_and_gradients(sides, channels, padding_mode, theta):
    layer = SpatialTransformer(padding_mode=padding_mode, dtype="float64")
    inputs = [images(3, sides, channels), thetas(3, THETAS[theta])]
    plain = answer(layer, inputs, training=False)
    trained = answer(layer, inputs, training=True)
    assert np.array_equal(trained[0], plain[0])
    assert_same(trained, plain, 1e-12)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("output_size", [(5, 8), (64, 65), (1, 1)], ids=str)
def test_spline_values_and_gradients(output_size, align_corners):
    spline = ThinPlateSpline(3)
    layer = SpatialTransformer(None, output_size, transform=spline, align_corners=align_corners)
    layer = SpatialTransformer.from_config({**layer.get_config(), "dtype": "float64"})
    moved = spline.control + np.random.default_rng(1).normal(0, 0.2, spline.control.shape)
    inputs = [images(2, (9, 7), 3), thetas(2, moved)]
    assert_same(answer(layer, inputs, True), answer(layer, inputs, False), 1e-9)


def test_a_spline_begins_on_the_same_side_of_each_pixel():
    """At the identity all points lie on pixels: rounding would choose from two derivatives."""
    layer = SpatialTransformer(transform="thin_plate_spline")
    control = ThinPlateSpline().control
    inputs = [images(2, (28, 28), 1, "float32"), np.stack([control] * 2).astype(np.float32)]
    plain, trained = answer(layer, inputs, False), answer(layer, inputs, True)
    assert np.array_equal(trained[0], plain[0])
    assert_same(trained, plain, 1e-4)


def test_large_splines_store_nothing(monkeypatch):
    layer = SpatialTransformer(transform="thin_plate_spline", dtype="float64")
    inputs = [images(2, (9, 7), 3), thetas(2, ThinPlateSpline().control)]
    expected = answer(layer, inputs, True)
    monkeypatch.setattr("stnkit.models.transforms.thin_plate_spline._STORED_BYTES_MAX", 8000)
    assert not np.array_equal(answer(layer, inputs, True)[2], expected[2])
    assert_same(answer(layer, inputs, True), expected, 1e-9)


@pytest.mark.parametrize("transform", ["similarity", "projective", DiffeomorphicFlow((9, 7))])
def test_other_transforms(transform):
    layer = SpatialTransformer(transform=transform, dtype="float64")
    wild = np.random.default_rng(4).normal(0, 0.1, layer.transform.theta_shape)
    inputs = [images(2, (9, 7), 2), thetas(2, layer.transform.identity() + wild)]
    assert_same(answer(layer, inputs, True), answer(layer, inputs, False), 1e-9)


@pytest.mark.parametrize("interpolation", ["nearest", "bicubic"])
def test_other_interpolations(interpolation):
    layer = SpatialTransformer(interpolation=interpolation, dtype="float64")
    inputs = [images(2, (9, 7), 2), thetas(2)]
    plain, trained = answer(layer, inputs, False), answer(layer, inputs, True)
    for got, want in zip(trained, plain, strict=True):
        assert np.array_equal(got, want)


@pytest.mark.parametrize("sides", [FEW, MANY], ids=["few", "many"])
@pytest.mark.parametrize("channels", [2, 6])
@pytest.mark.parametrize("known", ["all", "image", "channels", "nothing"])
@pytest.mark.parametrize("compiled", [False, True], ids=["graph", "xla"])
def test_graphs_that_know_less(known, compiled, channels, sides):
    height, width = sides
    shapes = {
        "all": (2, height, width, channels),
        "image": (None, height, width, channels),
        "channels": (None, None, None, channels),
        "nothing": (None, None, None, None),
    }
    batch = 2 if known == "all" else None
    specs = [tf.TensorSpec(shapes[known], tf.float64), tf.TensorSpec((batch, 2, 3), tf.float64)]
    layer = SpatialTransformer(output_size=(66, 64), dtype="float64")
    inputs = [images(2, sides, channels), thetas(2)]

    def wrap(step):
        return tf.function(step, input_signature=specs, jit_compile=compiled)

    received = answer(layer, inputs, True, wrap)
    assert_same(received, answer(layer, inputs, False), 1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("sides", [FEW, MANY], ids=["few", "many"])
def test_half_precision_adds_up_in_full(sides, dtype):
    half = SpatialTransformer(dtype=dtype)
    # One pixel of the image, zoomed to all of the output: a sum of thousands.
    inputs = [images(1, sides, 1, "float32"), thetas(1, THETAS["one pixel"], "float32")]
    _, by_image, _ = answer(half, inputs, True)
    _, exact, _ = answer(SpatialTransformer(), inputs, False)
    assert by_image.dtype == np.float32
    assert np.abs(by_image - exact).max() <= 0.02 * np.abs(exact).max()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sides", [FEW, MANY], ids=["few", "many"])
def test_deterministic_ops(sides, channels, monkeypatch):
    """Whoever asks for the same bits each time would else be refused on a GPU."""
    layer = SpatialTransformer(dtype="float64")
    inputs = [images(3, sides, channels), thetas(3)]
    expected = answer(layer, inputs, True)
    monkeypatch.setattr("stnkit.models.sampling.scatter.is_op_determinism_enabled", lambda: True)
    monkeypatch.delattr(tf.raw_ops, "DenseBincount")
    assert_same(answer(layer, inputs, True), expected, 1e-12)


def test_nan_and_infinite_thetas_leave_the_rest_alone():
    layer = SpatialTransformer()
    image = images(4, (9, 7), 3, "float32")
    theta = thetas(4, dtype="float32")
    theta[1, 0, 0], theta[2, 1, 2] = np.nan, np.inf
    received = answer(layer, [image, theta], True)
    assert all(np.isfinite(value).all() for value in received)
    expected = answer(layer, [image, theta], False)
    assert_same(received, expected, 1e-5)
    assert not received[1][1:3].any()
    assert not received[2][1:3].any()


def test_an_empty_batch():
    layer = SpatialTransformer()
    for sides, channels in ((FEW, 1), (FEW, 6), (MANY, 3)):
        specs = [
            tf.TensorSpec((None, *sides, channels)),
            tf.TensorSpec((None, 2, 3)),
        ]
        inputs = [np.zeros((0, *sides, channels), "float32"), np.zeros((0, 2, 3), "float32")]
        received = answer(
            layer, inputs, True, lambda step, specs=specs: tf.function(step, input_signature=specs)
        )
        expected = [inputs[0].shape, *(array.shape for array in inputs)]
        assert [value.shape for value in received] == expected


@pytest.mark.parametrize("channels", [2, 6])
@pytest.mark.parametrize("sides", [FEW, MANY], ids=["few", "many"])
def test_second_derivatives(sides, channels):
    """A penalty on the gradient, as critics are trained with."""
    layer = SpatialTransformer(dtype="float64")
    image, theta = tf.constant(images(2, sides, channels)), tf.constant(thetas(2))

    def penalty(training):
        with tf.GradientTape() as outer:
            outer.watch([image, theta])
            with tf.GradientTape() as inner:
                inner.watch([image, theta])
                total = tf.reduce_sum(layer([image, theta], training=training) ** 3)
            by_image, by_theta = inner.gradient(total, [image, theta])
            loss = tf.reduce_sum(by_image**2) + 1e-3 * tf.reduce_sum(by_theta**2)
        return [value.numpy() for value in outer.gradient(loss, [image, theta])]

    assert_same(penalty(True), penalty(False), 1e-10)


def test_layers_beside_the_transformer():
    inverse = InverseSpatialTransformer(dtype="float64")
    inputs = [images(2, (9, 7), 3), thetas(2)]
    assert_same(answer(inverse, inputs, True), answer(inverse, inputs, False), 1e-9)
    sampler = GridSampler(dtype="float64")
    grid = np.random.default_rng(8).uniform(-1.2, 1.2, (2, 66, 63, 2))
    inputs = [images(2, (9, 7), 3), grid]
    assert_same(answer(sampler, inputs, True), answer(sampler, inputs, False), 1e-12)


def test_the_form_ends_with_the_call():
    assert not is_training()
    with training_form(True):
        assert is_training()
        with training_form(None):
            assert not is_training()
        with training_form(tf.constant(True)):  # not known while the graph is made
            assert not is_training()
        assert is_training()
    with pytest.raises(ZeroDivisionError), training_form(True):
        raise ZeroDivisionError
    assert not is_training()


def test_nothing_of_it_is_in_a_graph_that_does_not_train():
    layer = SpatialTransformer(transform="thin_plate_spline")
    specs = [tf.TensorSpec((2, 66, 65, 3)), tf.TensorSpec((2, 16, 2))]

    def ops(training):
        function = tf.function(lambda image, theta: layer([image, theta], training=training))
        graph = function.get_concrete_function(*specs).graph.as_graph_def()
        return [node for node in graph.node if "_gradient_op_type" in node.attr]

    plain = len(ops(None))
    assert len(ops(False)) == plain == 1  # that of points moved to where the padding ends
    assert len(ops(True)) > plain


def test_a_model_trained_with_it_is_saved_and_exported(tmp_path):
    """Each of two ways to save a graph looks for gradients in it."""
    keras.utils.set_random_seed(5)
    layers = [SpatialTransformer(localization_cnn((4,), 8)), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((12, 12, 1)), *layers, keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    image = images(8, (12, 12), 1, "float32")
    model.fit(image, np.zeros((8, 2)), epochs=1, verbose=0)
    expected = model(image).numpy()
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(exported.serve(image).numpy(), expected, atol=1e-6)

    module = tf.Module()
    module.train = tf.function(lambda x: model(x, training=True), autograph=False)
    module.train.get_concrete_function(tf.TensorSpec((None, 12, 12, 1)))
    module.model = model
    tf.saved_model.save(module, str(tmp_path / "training"))
    loaded = tf.saved_model.load(str(tmp_path / "training"))
    x = tf.constant(image)

    def gradient(function):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(function(x) ** 2)
        return tape.gradient(total, x).numpy()

    np.testing.assert_allclose(gradient(loaded.train), gradient(module.train), atol=1e-6)
