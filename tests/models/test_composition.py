"""`ComposeTheta` and `DisplacementField`: Keras layers on thetas."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from stnkit.models import (
    Affine,
    Attention,
    Chain,
    ComposeTheta,
    DenseFlow,
    DisplacementField,
    Projective,
    Similarity,
    SpatialTransformer,
    ThinPlateSpline,
    Translation,
    grid_sample,
)

MATRICES = [Translation(), Attention(), Similarity(), Affine(), Projective()]
every_matrix = pytest.mark.parametrize("transform", MATRICES, ids=repr)
every_alignment = pytest.mark.parametrize("align_corners", [False, True])


def near_identity(transform, seed, batch=3, dtype=np.float32):
    noise = np.random.default_rng(seed).uniform(-0.2, 0.2, (batch, *transform.theta_shape))
    return (transform.identity() + noise).astype(dtype)


def matrix_of(transform, theta):
    return transform.matrix(transform.check_theta(theta)).numpy().astype(np.float64)


# ---- ComposeTheta ----


def test_composition_by_hand():
    """A crop of half the size, then a shift by half of the crop."""
    layer = ComposeTheta("attention")
    received = layer([np.array([[0.5, 0.25, 0]], "f4"), np.array([[1, 0.5, -1]], "f4")])
    assert received.numpy().tolist() == [[0.5, 0.5, -0.5]]


@every_matrix
def test_composition_is_the_product_of_the_matrices(transform, assert_close, tolerances):
    a, b = near_identity(transform, 1), near_identity(transform, 2)
    layer = ComposeTheta(transform)
    product = matrix_of(transform, a) @ matrix_of(transform, b)
    received = layer([a, b])
    assert received.shape == (3, *transform.theta_shape)
    expected = product / product[:, 2:, 2:]
    assert_close(matrix_of(transform, received), expected, tolerances.grid)
    flat = layer([a.reshape(3, -1), b.reshape(3, -1)])
    assert np.array_equal(flat, received)


def test_one_sampling_does_what_two_do(assert_close, tolerances):
    """Shifts by whole pixels in one direction: nothing is lost at the border on the way."""
    image = np.random.default_rng(3).uniform(0, 1, (1, 8, 8, 2)).astype(np.float32)
    a, b = np.array([[0.25, 0.5]], "f4"), np.array([[0.5, 0.25]], "f4")
    warp = SpatialTransformer(transform="translation")
    once = warp([image, ComposeTheta("translation")([a, b])]).numpy()
    twice = warp([warp([image, a]), b]).numpy()
    assert_close(once, twice, tolerances.exact)
    assert_close(once[:, :5, :5], image[:, 3:, 3:], tolerances.exact)


def test_composing_with_the_identity_changes_nothing():
    theta = near_identity(Affine(), 4)
    identity = np.tile(Affine().identity(), (3, 1, 1))
    layer = ComposeTheta()
    assert np.array_equal(layer([theta, identity]), theta)
    assert np.array_equal(layer([identity, theta]), theta)


def test_gradients_reach_both_thetas():
    a, b = tf.constant(near_identity(Projective(), 5)), tf.constant(near_identity(Projective(), 6))
    with tf.GradientTape() as tape:
        tape.watch([a, b])
        total = tf.reduce_sum(ComposeTheta("projective")([a, b]) ** 2)
    for gradient in tape.gradient(total, [a, b]):
        assert np.isfinite(gradient).all()
        assert np.count_nonzero(gradient) == 24


@pytest.mark.parametrize("policy", ["mixed_float16", "float16", "float64"])
def test_compose_is_float32_under_any_policy(policy, assert_close, tolerances):
    a, b = near_identity(Affine(), 7), near_identity(Affine(), 8)
    received = ComposeTheta(dtype=policy)([a, b])
    assert received.dtype == tf.float32
    assert_close(received.numpy(), ComposeTheta()([a, b]).numpy(), tolerances.exact)


def test_compose_in_a_model_saved_and_loaded(tmp_path, assert_close, tolerances):
    inputs = [keras.Input((4,), name="a"), keras.Input((4,), name="b")]
    layer = ComposeTheta(Similarity(bounds=0.3), name="compose")
    model = keras.Model(inputs, layer(inputs))
    assert model.output_shape == (None, 4)
    given = [near_identity(Similarity(), seed) for seed in (9, 10)]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_close(loaded(given).numpy(), model(given).numpy(), tolerances.exact)
    assert loaded.get_layer("compose").transform == Similarity(bounds=0.3)
    assert loaded.get_layer("compose").get_config() == layer.get_config()


@pytest.mark.parametrize(
    "transform",
    [ThinPlateSpline(3), DenseFlow((3, 4)), Chain([Affine(), Affine()])],
    ids=lambda transform: transform.name,
)
def test_a_family_that_cannot_be_composed_is_refused_when_the_layer_is_made(transform):
    with pytest.raises(ValueError, match="cannot be composed into one theta"):
        ComposeTheta(transform)


@pytest.mark.parametrize(
    "shapes", [[(2, 3), (5,)], [(7,), (6,)], [(2, 3), (3, 2)], [(2, 3), (2, 4)]], ids=str
)
def test_compose_checks_the_shapes_when_the_model_is_made(shapes):
    with pytest.raises(ValueError, match=r"theta has shape .*: Affine takes \[batch, 2, 3\]"):
        ComposeTheta()([keras.Input(shape) for shape in shapes])


@pytest.mark.parametrize(
    "inputs",
    [
        lambda: keras.Input((6,)),
        lambda: [keras.Input((6,))],
        lambda: [keras.Input((6,)) for _ in range(3)],
        lambda: {"a": keras.Input((6,)), "b": keras.Input((6,))},
    ],
    ids=["one", "list_of_one", "three", "dict"],
)
def test_compose_takes_two_thetas(inputs):
    with pytest.raises(ValueError, match=r"joined was called on .*: it takes \[a, b\], two thetas"):
        ComposeTheta(name="joined")(inputs())


# ---- DisplacementField ----


@every_alignment
def test_field_of_a_shift_and_of_a_scale(align_corners, assert_close, tolerances):
    shift = DisplacementField("translation", (3, 4), align_corners)
    received = shift(np.array([[0.25, -0.5]], "f4")).numpy()
    assert_close(received, np.tile([0.25, -0.5], (1, 3, 4, 1)), tolerances.grid)
    scale = DisplacementField("attention", (2, 2), align_corners)
    side = 1.0 if align_corners else 0.5
    expected = -0.5 * side * np.array([[[-1, -1], [1, -1]], [[-1, 1], [1, 1]]])
    received = scale(np.array([[0.5, 0, 0]], "f4")).numpy()
    assert_close(received[0], expected, tolerances.grid)


@pytest.mark.parametrize("size", [(64, 64), (28, 30), (7, 5), (1, 1)], ids=str)
@pytest.mark.parametrize(
    "transform", [*MATRICES, Chain([Affine(), DenseFlow((3, 4))])], ids=lambda it: it.name
)
def test_field_of_the_identity_is_exactly_zero(transform, size):
    field = DisplacementField(transform, size)(transform.identity()[np.newaxis])
    assert field.shape == (1, *size, 2)
    assert not np.any(field)


@every_alignment
@pytest.mark.parametrize("transform", [Projective(), DenseFlow((3, 4))], ids=lambda it: it.name)
def test_identity_plus_field_is_the_grid(transform, align_corners, assert_close, tolerances):
    theta = near_identity(transform, 11)
    field = DisplacementField(transform, (5, 6), align_corners)(theta).numpy()
    identity = Affine().grid(Affine().identity()[np.newaxis], (5, 6), align_corners).numpy()
    expected = transform.grid(theta, (5, 6), align_corners).numpy()
    assert_close(identity + field, expected, tolerances.grid)
    image = np.random.default_rng(12).uniform(0, 1, (3, 7, 8, 1)).astype(np.float32)
    modes = ("bilinear", "border", align_corners)
    warp = SpatialTransformer(None, (5, 6), *modes, transform=transform)
    received = grid_sample(image, identity + field, *modes).numpy()
    assert_close(received, warp([image, theta]).numpy(), tolerances.sample)


@pytest.mark.parametrize("policy", ["mixed_float16", "float64"])
def test_field_is_float32_under_any_policy(policy):
    theta = near_identity(Affine(), 13)
    assert DisplacementField("affine", (3, 4), dtype=policy)(theta).dtype == tf.float32


def test_field_in_a_model_saved_and_loaded(tmp_path, assert_close, tolerances):
    theta = keras.Input((8,))
    layer = DisplacementField(Projective(), (4, 5), align_corners=True, name="flow")
    model = keras.Model(theta, layer(theta))
    assert model.output_shape == (None, 4, 5, 2)
    given = near_identity(Projective(), 14)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_close(loaded(given).numpy(), model(given).numpy(), tolerances.exact)
    assert loaded.get_layer("flow").get_config() == layer.get_config()
    assert loaded.get_layer("flow").align_corners is True


def test_gradient_of_the_field_reaches_theta():
    theta = tf.constant(near_identity(Affine(), 15, batch=1))
    with tf.GradientTape() as tape:
        tape.watch(theta)
        total = tf.reduce_sum(DisplacementField("affine", (3, 4))(theta)[..., 0])
    # The sum of x over the grid is 0, and so is that of y: only the shift is left.
    assert np.abs(tape.gradient(total, theta)[0] - [[0, 0, 12], [0, 0, 0]]).max() < 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"transform": "bend"}, "transform is 'bend': expected a Transform"),
        ({"output_size": (0, 4)}, r"output_size is \(0, 4\): expected \(height, width\)"),
        ({"output_size": 4}, "output_size is 4: expected"),
        ({"align_corners": "no"}, "align_corners is 'no': expected True or False"),
    ],
    ids=str,
)
def test_bad_arguments_of_the_field(arguments, message):
    with pytest.raises(ValueError, match=message):
        DisplacementField(**{"transform": "affine", "output_size": (3, 4), **arguments})


def test_field_checks_the_shape_when_the_model_is_made():
    with pytest.raises(ValueError, match=r"theta has shape \(None, 5\): Affine takes"):
        DisplacementField("affine", (3, 4))(keras.Input((5,)))
