"""What layers compute where XLA compiles them: the same image, and the same gradients."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from stnkit.models import (
    DiffeomorphicFlow,
    GridSampler,
    SpatialTransformer,
    ThinPlateSpline,
    localization_cnn,
    warping,
)
from stnkit.models.sampling.training_form import is_compiled

TURN = [[0.83, -0.31, 0.117], [0.22, 0.91, -0.053]]
ODD = [[0.5, 0.1, 0.9], [-0.2, 1.7, -0.6]]


def images(shape, dtype="float64"):
    return np.random.default_rng(list(shape)).uniform(-1, 1, shape).astype(dtype)


def thetas(batch, theta=TURN, dtype="float64"):
    """Return a batch of thetas that differ a little, `[batch, ...]`."""
    steps = np.arange(batch, dtype=dtype).reshape(-1, *[1] * np.ndim(theta))
    return (np.asarray(theta, dtype)[None] * (1 + 0.07 * steps)).astype(dtype)


def answer(layer, inputs, training=None, jit=None):
    """Return the output, and the gradients of a weighted sum of it by all inputs.

    `jit` is that of the graph, or None for none.
    """

    def step(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            output = layer(list(tensors), training=training)
            weights = np.random.default_rng(3).uniform(-1, 1, output.shape)
            total = tf.reduce_sum(output * tf.constant(weights, output.dtype))
        return [output, *tape.gradient(total, tensors)]

    graph = jit is not None
    function = tf.function(step, jit_compile=jit, autograph=False) if graph else step
    return [value.numpy() for value in function(*map(tf.constant, inputs))]


def assert_compiled_is_the_same(layer, inputs, relative=1e-11):
    plain = answer(layer, inputs)
    for training in (False, True):
        for got, want in zip(answer(layer, inputs, training, jit=True), plain, strict=True):
            assert got.dtype == want.dtype
            assert np.abs(want).max() > 0
            assert np.abs(got - want).max() <= relative * np.abs(want).max()


@pytest.mark.parametrize("theta", [TURN, ODD], ids=["turn", "odd"])
@pytest.mark.parametrize("padding_mode", ["zeros", "border"])
@pytest.mark.parametrize("channels", [1, 3, 4, 5, 33])
@pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])
def test_affine(align_corners, channels, padding_mode, theta):
    layer = SpatialTransformer(
        output_size=(6, 11),
        padding_mode=padding_mode,
        align_corners=align_corners,
        dtype="float64",
    )
    assert_compiled_is_the_same(layer, [images((3, 9, 7, channels)), thetas(3, theta)])


@pytest.mark.parametrize("sides", [(1, 1), (1, 5), (2, 1), (64, 65)], ids=str)
@pytest.mark.parametrize("padding_mode", ["zeros", "border"])
def test_images_of_other_sizes(padding_mode, sides):
    layer = SpatialTransformer(None, (7, 4), padding_mode=padding_mode, dtype="float64")
    inputs = [images((2, *sides, 2)), thetas(2)]
    plain = answer(layer, inputs)
    for got, want in zip(answer(layer, inputs, True, jit=True), plain, strict=True):
        assert np.abs(got - want).max() <= 1e-11 * max(np.abs(want).max(), 1)


@pytest.mark.parametrize("output_size", [(5, 8), (33, 64), (1, 1)], ids=str)
@pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])
def test_splines(align_corners, output_size):
    spline = ThinPlateSpline(3)
    layer = SpatialTransformer(
        None, output_size, transform=spline, align_corners=align_corners, dtype="float64"
    )
    moved = spline.control + np.random.default_rng(1).normal(0, 0.2, spline.control.shape)
    assert_compiled_is_the_same(layer, [images((2, 9, 7, 3)), thetas(2, moved)], 1e-9)


@pytest.mark.parametrize("transform", ["similarity", "projective", "thin_plate_spline"])
def test_other_transforms_in_single_precision(transform):
    layer = SpatialTransformer(transform=transform)
    wild = np.random.default_rng(4).normal(0, 0.1, layer.transform.theta_shape)
    theta = thetas(2, layer.transform.identity() + wild, "float32")
    assert_compiled_is_the_same(layer, [images((2, 9, 7, 2), "float32"), theta], 1e-4)


HOSTILE = [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e6, -1e6, 1 + 1e-6, 1.2, -1.2, 0.0]


@pytest.mark.parametrize("padding_mode", ["zeros", "border"])
@pytest.mark.parametrize("channels", [3, 6])
@pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])
def test_hostile_grids(align_corners, channels, padding_mode):
    sampler = GridSampler("bilinear", padding_mode, align_corners)
    y, x = np.meshgrid(HOSTILE, HOSTILE, indexing="ij")
    grid = np.stack([x, y], axis=-1).astype(np.float32)[None]
    inputs = [images((1, 9, 7, channels), "float32"), grid]
    expected = answer(sampler, inputs)
    assert all(np.isfinite(value).all() for value in expected)
    for training in (False, True):
        for got, want in zip(answer(sampler, inputs, training, jit=True), expected, strict=True):
            assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("channels", [1, 6])
def test_half_precision_adds_up_in_full(channels, dtype):
    # One pixel of the image, zoomed to all of the output: a sum of thousands.
    inputs = [
        images((1, 66, 65, channels), "float32"),
        np.array([[[1e-3, 0, 0.03], [0, 1e-3, 0.02]]], np.float32),
    ]
    _, by_image, _ = answer(SpatialTransformer(dtype=dtype), inputs, True, jit=True)
    _, exact, _ = answer(SpatialTransformer(), inputs)
    assert by_image.dtype == np.float32
    assert np.abs(by_image - exact).max() <= 0.02 * np.abs(exact).max()


@pytest.mark.parametrize("channels", [3, 6])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("place", range(6))
def test_thetas_that_are_not_finite_leave_the_rest_alone(place, wrong, channels):
    layer = SpatialTransformer()
    image = images((3, 9, 7, channels), "float32")
    theta = thetas(3, dtype="float32")
    theta[1, place // 3, place % 3] = wrong
    expected = answer(layer, [image, theta], False)
    received = answer(layer, [image, theta], True, jit=True)
    assert not received[0][1].any()
    assert not received[1][1].any()
    for got, want in zip(received, expected, strict=True):
        for item in (0, 2):
            assert np.abs(got[item] - want[item]).max() <= 1e-5 * np.abs(want[item]).max()


@pytest.mark.parametrize("channels", [2, 6])
def test_second_derivatives(channels):
    layer = SpatialTransformer(dtype="float64")
    inputs = [tf.constant(images((2, 9, 7, channels))), tf.constant(thetas(2))]

    def penalty(training):
        with tf.GradientTape() as outer:
            outer.watch(inputs)
            with tf.GradientTape() as inner:
                inner.watch(inputs)
                total = tf.reduce_sum(layer(inputs, training=training) ** 3)
            by_image, by_theta = inner.gradient(total, inputs)
            loss = tf.reduce_sum(by_image**2) + 1e-3 * tf.reduce_sum(by_theta**2)
        return outer.gradient(loss, inputs)

    compiled = tf.function(lambda: penalty(True), jit_compile=True, autograph=False)()
    for got, want in zip(compiled, penalty(False), strict=True):
        assert np.abs(got - want).max() <= 1e-10 * np.abs(want).max()


def test_an_empty_batch():
    layer = SpatialTransformer()
    for channels in (1, 6):
        inputs = [np.zeros((0, 9, 7, channels), "float32"), np.zeros((0, 2, 3), "float32")]
        received = answer(layer, inputs, True, jit=True)
        assert [value.shape for value in received] == [inputs[0].shape, *(x.shape for x in inputs)]


def test_it_is_known_where_xla_compiles():
    """TensorFlow says so by what is not its public interface: a new version may not."""
    seen = []

    def look(x):
        seen.append(is_compiled())
        inner = tf.function(lambda y: (seen.append(is_compiled()), y + 1)[1], autograph=False)
        return inner(x)

    x = tf.zeros(3)
    for jit in (True, False, None):
        seen.clear()
        tf.function(look, jit_compile=jit, autograph=False)(x)
        assert seen == [bool(jit)] * 2
        assert not is_compiled()


def ops_of(layer, training, jit):
    """Return the types of the ops in the graph of a layer and its gradient."""
    found = []

    def step(image, theta):
        with tf.GradientTape() as tape:
            tape.watch([image, theta])
            total = tf.reduce_sum(layer([image, theta], training=training))
        gradients = tape.gradient(total, [image, theta])
        found.extend(node.type for node in total.graph.get_operations())
        return gradients

    specs = [tf.TensorSpec((2, 66, 65, 3)), tf.TensorSpec((2, 2, 3))]
    tf.function(step, jit_compile=jit, autograph=False).get_concrete_function(*specs)
    return found


def test_each_has_its_own_form():
    layer = SpatialTransformer()
    compiled, trained, plain = ops_of(layer, True, True), ops_of(layer, True, None), None
    plain = ops_of(layer, False, None)
    assert compiled.count("UnsortedSegmentSum") == 1
    assert not {"Conv2D", "DenseBincount"} & set(compiled)
    assert {"Conv2D", "DenseBincount"} <= set(trained)
    assert "Conv2D" in plain
    assert "DenseBincount" not in plain
    assert "Conv2D" not in ops_of(layer, False, True)  # as in `predict`


def test_keras_says_so(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "stnkit.models.sampling.bilinear_image.is_compiled",
        lambda: seen.append(is_compiled()) or is_compiled(),
    )
    model = blob_model()
    model.compile(keras.optimizers.Adam(1e-2), "mse", jit_compile=True)
    image, target = images((8, 12, 12, 1), "float32"), np.zeros((8, 2))
    seen.clear()
    history = model.fit(image, target, epochs=3, verbose=0).history["loss"]
    assert seen
    assert all(seen)
    assert history[-1] < history[0]
    np.testing.assert_allclose(model.predict(image, verbose=0), model(image).numpy(), atol=1e-5)


def blob_model(**options):
    keras.utils.set_random_seed(5)
    layers = [SpatialTransformer(localization_cnn((4,), 8), **options), keras.layers.Flatten()]
    return keras.Sequential([keras.Input((12, 12, 1)), *layers, keras.layers.Dense(2)])


OPTIONS = {
    "bilinear": {},
    "border": {"padding_mode": "border", "align_corners": True},
    "reflection": {"padding_mode": "reflection"},
    "bicubic": {"interpolation": "bicubic"},
    "spline": {"transform": "thin_plate_spline"},
    "flow": {"transform": DiffeomorphicFlow((9, 7))},
    "smaller": {"output_size": (5, 4), "antialias": True},
}


@pytest.mark.parametrize("options", OPTIONS)
def test_a_layer_can_compile_its_own_part(options):
    layer = SpatialTransformer(**OPTIONS[options], jit_compile=True, dtype="float64")
    wild = np.random.default_rng(4).normal(0, 0.1, layer.transform.theta_shape)
    inputs = [images((2, 9, 7, 3)), thetas(2, layer.transform.identity() + wild)]
    expected = answer(layer, inputs, False)
    for jit in (None, False):  # without a graph, and in one that XLA does not compile
        for got, want in zip(answer(layer, inputs, True, jit), expected, strict=True):
            assert np.abs(got - want).max() <= 1e-9 * np.abs(want).max()


def test_what_a_layer_compiles_it_compiles_once(monkeypatch):
    made = []
    monkeypatch.setattr(
        "stnkit.models.warping._sampled",
        lambda *given, original=warping._sampled: made.append(is_compiled()) or original(*given),
    )
    layer = SpatialTransformer(jit_compile=True)
    for _ in range(3):
        inputs = [images((2, 9, 7, 3), "float32"), thetas(2, dtype="float32")]
        layer(inputs, training=True)
    assert made == [True]
    layer(inputs)
    layer(inputs, training=False)
    assert made == [True, False, False]


def test_a_model_whose_layer_compiles_its_own_part(tmp_path):
    """It learns as another does, and nothing of XLA is saved or exported with it."""
    losses = []
    for jit_compile in (False, True):
        model = blob_model(jit_compile=jit_compile)
        model.compile(keras.optimizers.Adam(1e-2), "mse", jit_compile=False)
        image, target = images((20, 12, 12, 1), "float32"), np.zeros((20, 2))
        fitted = model.fit(image, target, batch_size=8, epochs=2, verbose=0, shuffle=False)
        losses.append(fitted.history["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    expected = model(image).numpy()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].jit_compile
    np.testing.assert_allclose(loaded(image).numpy(), expected, atol=1e-6)
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(exported.serve(image).numpy(), expected, atol=1e-5)
    content = (tmp_path / "exported" / "saved_model.pb").read_bytes()
    assert b"UnsortedSegmentSum" not in content
    copy = keras.models.clone_model(model)
    assert copy.layers[0].jit_compile


def test_wrong_values_of_jit_compile():
    with pytest.raises(ValueError, match="jit_compile is 'yes': expected True or False"):
        SpatialTransformer(jit_compile="yes")
    with pytest.raises(ValueError, match="XLA compiles for sizes that it knows"):
        SpatialTransformer(output_size=(tf.constant(3), 4), jit_compile=True)
