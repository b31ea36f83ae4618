"""The sampler and the grid generator with what nobody should feed them."""

from __future__ import annotations

import itertools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from stnkit.models import AffineGridGenerator, GridSampler, affine_grid, grid_sample
from stnkit.models.sampling.flat_gather import FlatImage

HOSTILE = [np.nan, np.inf, -np.inf, 1e6, -1e6, 3e38, -3e38, 2.0**31, -(2.0**31), 1e-45, 0.0]
INTERPOLATIONS = ("bilinear", "nearest", "bicubic")
OVERSHOOT = (1.375**2 - 1) / 2  # half way between pixels the cubic weights add up to 1.375
MODES = list(itertools.product(INTERPOLATIONS, ("zeros", "border", "reflection"), (False, True)))
SIDES = [(5, 4), (1, 1), (1, 6), (3, 1)]
every_mode = pytest.mark.parametrize("mode", MODES, ids=str)
identity = np.array([[[1, 0, 0], [0, 1, 0]]], np.float32)


def images(batch, height, width, channels=3):
    rng = np.random.default_rng([height, width])
    return rng.uniform(0.25, 1, (batch, height, width, channels)).astype(np.float32)


def hostile_grid():
    """Return [1, n, n, 2]: every pair of hostile coordinates."""
    x, y = np.meshgrid(HOSTILE, HOSTILE)
    return np.stack([x, y], -1).astype(np.float32)[None]


@every_mode
@pytest.mark.parametrize("sides", SIDES, ids=str)
def test_hostile_coordinates_read_the_image_or_zero(sides, mode):
    image = images(1, *sides)
    received = grid_sample(image, hostile_grid(), *mode).numpy()
    assert received.shape == (1, len(HOSTILE), len(HOSTILE), 3)
    assert np.isfinite(received).all()
    assert_blend(received, image, mode)


def assert_blend(received, image, mode):
    """Assert that there is a blend of pixels, and of zeros with that padding, and no more.

    Cubic weights are negative in places: what they read overshoots, by a known part of the range.
    """
    lowest, highest = 0 if mode[1] == "zeros" else image.min(), image.max()
    slack = 1e-6 + (OVERSHOOT * (highest - lowest) if mode[0] == "bicubic" else 0)
    assert received.min() >= lowest - slack
    assert received.max() <= highest + slack


@every_mode
def test_hostile_coordinates_leave_the_gradient_by_the_image_finite(mode):
    image = tf.constant(images(1, 5, 4))
    with tf.GradientTape() as tape:
        tape.watch(image)
        total = tf.reduce_sum(grid_sample(image, hostile_grid(), *mode))
    gradient = tf.convert_to_tensor(tape.gradient(total, image)).numpy()
    assert np.isfinite(gradient).all()
    assert gradient.any()


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_nan_reads_far_outside_top_left(interpolation, align_corners):
    image = images(2, 5, 4)
    nan = np.full((2, 2, 3, 2), np.nan, np.float32)
    zeros = grid_sample(image, nan, interpolation, "zeros", align_corners).numpy()
    assert not zeros.any()
    border = grid_sample(image, nan, interpolation, "border", align_corners).numpy()
    assert np.array_equal(border, np.broadcast_to(image[:, :1, :1], border.shape))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("value", [np.nan, -np.inf, -3e38, -1e6, 1e6, 3e38, np.inf])
def test_one_hostile_coordinate_leaves_the_other_alone(value, interpolation, align_corners):
    image = images(1, 4, 4)
    # The centre of row 2, exact in float32 for four pixels without align_corners.
    row = np.float32(2 * 2 / 3 - 1) if align_corners else np.float32(0.25)
    grid = np.array([[[[value, row]]]], np.float32)
    column = 3 if value > 0 else 0
    border = grid_sample(image, grid, interpolation, "border", align_corners).numpy()
    assert np.abs(border[0, 0, 0] - image[0, 2, column]).max() <= 1e-6
    swapped = grid_sample(image, grid[..., ::-1], interpolation, "border", align_corners).numpy()
    assert np.abs(swapped[0, 0, 0] - image[0, column, 2]).max() <= 1e-6
    zeros = grid_sample(image, grid, interpolation, "zeros", align_corners).numpy()
    assert not zeros.any()


@every_mode
def test_hostile_theta(mode):
    """Every hostile value in every place of an identity theta, one batch item each."""
    places = len(HOSTILE) * 6
    theta = np.tile(identity.reshape(1, 6), (places, 1))
    theta[np.arange(places), np.arange(places) % 6] = np.repeat(HOSTILE, 6)
    image = np.repeat(images(1, 5, 4), places, axis=0)
    grid = affine_grid(theta, (3, 6), mode[2])
    received = grid_sample(image, grid, *mode).numpy()
    assert received.shape == (places, 3, 6, 3)
    assert np.isfinite(received).all()
    assert_blend(received, image, mode)


def test_hostile_item_leaves_the_rest_of_the_batch_alone():
    image = images(3, 5, 4)
    theta = np.tile(identity, (3, 1, 1))
    theta[1] = np.nan
    received = grid_sample(image, affine_grid(theta, (5, 4)))
    alone = grid_sample(image[[0, 2]], affine_grid(theta[[0, 2]], (5, 4)))
    assert np.array_equal(received.numpy()[[0, 2]], alone.numpy())


def raises_naming(*parts):
    """Expect a ValueError of one line that has every part: what came and what was wanted."""
    lookaheads = "".join(f"(?=.*{re.escape(part)})" for part in parts)
    return pytest.raises(ValueError, match=f"^{lookaheads}[^\\n]*$")


@pytest.mark.parametrize("name", ["cubic", "linear", "BILINEAR", "", "bilinear ", None])
def test_unknown_interpolation(name):
    with raises_naming(repr(name), "bilinear", "nearest", "bicubic", "interpolation"):
        grid_sample(images(1, 4, 4), np.zeros((1, 2, 2, 2), np.float32), name)


@pytest.mark.parametrize("name", ["wrap", "reflect", "Zeros", "", "constant"])
def test_unknown_padding(name):
    with raises_naming(repr(name), "zeros", "border", "reflection", "padding_mode"):
        grid_sample(images(1, 4, 4), np.zeros((1, 2, 2, 2), np.float32), padding_mode=name)


@pytest.mark.parametrize("shape", [(4,), (4, 4), (4, 4, 3), (1, 4, 4, 4, 3, 1)], ids=str)
def test_image_of_wrong_rank(shape):
    with raises_naming("image", str(shape), "[batch, height, width, channels]"):
        grid_sample(np.zeros(shape, np.float32), np.zeros((1, 2, 2, 2), np.float32))


@pytest.mark.parametrize("shape", [(1, 0, 4, 3), (1, 4, 0, 3), (1, 4, 4, 0)], ids=str)
def test_image_without_pixels(shape):
    with raises_naming("image", str(shape), "expected"):
        grid_sample(np.zeros(shape, np.float32), np.zeros((1, 2, 2, 2), np.float32))


@pytest.mark.parametrize("shape", [(2,), (2, 2), (2, 2, 2), (1, 1, 2, 2, 2)], ids=str)
def test_grid_of_wrong_rank(shape):
    with raises_naming("grid", str(shape), "[batch, h, w, 2]"):
        grid_sample(images(1, 4, 4), np.zeros(shape, np.float32))


@pytest.mark.parametrize("last", [0, 1, 3, 6])
def test_grid_whose_last_axis_is_not_2(last):
    with raises_naming("grid", str((1, 2, 2, last)), "[batch, h, w, 2]"):
        grid_sample(images(1, 4, 4), np.zeros((1, 2, 2, last), np.float32))


@pytest.mark.parametrize("batches", [(2, 3), (3, 2), (1, 2), (2, 1)], ids=str)
def test_batch_mismatch(batches):
    image, grid = images(batches[0], 4, 4), np.zeros((batches[1], 2, 2, 2), np.float32)
    with raises_naming(str(image.shape), str(grid.shape), "batch"):
        grid_sample(image, grid)


@pytest.mark.parametrize("flag", ["no", None, 1, 0.0, [True]], ids=repr)
def test_align_corners_that_is_no_flag(flag):
    """Every text is true, "False" as well; and a mode given one place too late is seen."""
    grid = np.zeros((1, 2, 2, 2), np.float32)
    for make in (
        lambda: grid_sample(images(1, 4, 4), grid, align_corners=flag),
        lambda: affine_grid(identity, (4, 4), flag),
        lambda: GridSampler(align_corners=flag),
        lambda: AffineGridGenerator((4, 4), flag),
    ):
        with raises_naming("align_corners", repr(flag), "True or False"):
            make()
    assert GridSampler(align_corners=np.bool_(True)).align_corners is True


@pytest.mark.parametrize(
    "shapes",
    [(1, 4, 4, 3), [(1, 4, 4, 3)], [(1, 4, 4, 3), (1, 2, 2, 2), (1, 2, 2, 2)]],
    ids=["image", "one", "three"],
)
def test_layer_form_that_does_not_get_two_inputs(shapes):
    inputs = np.zeros(shapes) if isinstance(shapes, tuple) else [np.zeros(it) for it in shapes]
    with raises_naming("grid_sampler", str(shapes), "[image, grid]"):
        GridSampler(name="grid_sampler")(inputs)


def test_layer_forms_check_shapes_when_a_model_is_made():
    image = keras.Input((4, 4, 3))
    with raises_naming("grid", "(None, 2, 2, 3)", "[batch, h, w, 2]"):
        GridSampler()([image, keras.Input((2, 2, 3))])
    with raises_naming("image", "(None, 4, 3)", "[batch, height, width, channels]"):
        GridSampler()([keras.Input((4, 3)), keras.Input((2, 2, 2))])
    with raises_naming("'bicubic'", "volume"):
        GridSampler("bicubic")([keras.Input((4, 4, 4, 1)), keras.Input((2, 2, 2, 3))])
    with raises_naming("theta", "(None, 5)", "[batch, 2, 3]", "[batch, 6]"):
        AffineGridGenerator((4, 4))(keras.Input((5,)))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "bool", "complex64"])
def test_image_that_is_not_of_a_float_type(dtype):
    with raises_naming("image", dtype, "float"):
        grid_sample(np.ones((1, 4, 4, 3), dtype), np.zeros((1, 2, 2, 2), np.float32))


def test_grid_that_is_not_of_a_float_type():
    with raises_naming("grid", "int32", "float"):
        grid_sample(images(1, 4, 4), np.zeros((1, 2, 2, 2), np.int32))


@pytest.mark.parametrize(
    "shape", [(6,), (2, 3), (2, 5), (2, 7), (2, 2, 2), (2, 3, 3), (2, 6, 1), (1, 2, 3, 1)], ids=str
)
def test_theta_of_wrong_shape(shape):
    with raises_naming("theta", str(shape), "[batch, 2, 3]", "[batch, 6]"):
        affine_grid(np.zeros(shape, np.float32), (4, 4))


def test_theta_that_is_not_of_a_float_type():
    with raises_naming("theta", "int64", "float"):
        affine_grid(np.zeros((1, 6), np.int64), (4, 4))


@pytest.mark.parametrize(
    "size",
    [
        *[(0, 4), (4, 0), (-1, 4), (4, -3), (4,), (4, 4, 4), (), 4, None, "44"],
        *[(2.5, 4), (np.nan, 4), (np.inf, 4), (None, 4), ("4", 4), (True, 4)],
    ],
    ids=str,
)
def test_output_size_that_is_not_two_positive_integers(size):
    with raises_naming("output_size", str(size), "(height, width)"):
        affine_grid(identity, size)


@every_mode
def test_unknown_shapes_equal_known_ones_and_bear_hostile_coordinates(
    mode, assert_close, tolerances
):
    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, None, None], tf.float32),
            tf.TensorSpec([None, None, None, 2], tf.float32),
        ]
    )
    def dynamic(image, grid):
        return grid_sample(image, grid, *mode)

    for batch, (height, width) in enumerate(SIDES, start=1):
        rng = np.random.default_rng([batch, height, width])
        image = images(batch, height, width, channels=1 + batch % 3)
        grid = rng.uniform(-2, 2, (batch, 3, 5, 2)).astype(np.float32)
        received = dynamic(image, grid).numpy()
        assert_close(received, grid_sample(image, grid, *mode).numpy(), tolerances.exact)
        received = dynamic(image[:1], hostile_grid()).numpy()
        assert np.isfinite(received).all()
        assert np.array_equal(received, grid_sample(image[:1], hostile_grid(), *mode).numpy())
    assert dynamic.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("shape", [(None, 2, 3), (None, 6)], ids=str)
def test_unknown_batch_of_theta_equals_known_one(shape, align_corners):
    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)])
    def dynamic(theta):
        return affine_grid(theta, (4, 5), align_corners)

    for batch in (1, 3):
        theta = np.random.default_rng(batch).normal(size=(batch, *shape[1:])).astype(np.float32)
        expected = affine_grid(theta, (4, 5), align_corners).numpy()
        assert expected.shape == (batch, 4, 5, 2)
        assert np.abs(dynamic(theta).numpy() - expected).max() <= 1e-6
    assert dynamic.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(4, 5), (1, 3), (1, 1)], ids=str)
def test_output_size_known_only_while_the_graph_runs(size, align_corners, assert_close, tolerances):
    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 2, 3], tf.float32),
            tf.TensorSpec([None, None, None, None], tf.float32),
        ]
    )
    def like(theta, image):
        shape = tf.shape(image)
        return affine_grid(theta, (shape[1], shape[2]), align_corners)

    expected = affine_grid(identity, size, align_corners).numpy()
    assert_close(like(identity, images(1, *size)).numpy(), expected, tolerances.grid)


# ---- very large images ----

SIDE_16K = 16384


def flat_index(batch, side, rows, columns):
    """Return the flat index of pixels of images that are never made: only their shape counts."""

    @tf.function
    def index(rows, columns):
        return FlatImage(tf.zeros((batch, side, side, 1))).index([rows, columns])

    return index(tf.constant(rows, tf.int32), tf.constant(columns, tf.int32)).numpy()


def test_index_is_exact_up_to_the_last_pixel_that_int32_counts():
    """7 images of 16k x 16k, and a ring of zeros around each: 1,880 of 2,147 million pixels."""
    batch, side = 7, SIDE_16K + 2
    rng = np.random.default_rng(16)
    rows, columns = rng.integers(0, side, (2, batch, 1000))
    rows[:, -1] = columns[:, -1] = side - 1
    rows[:, 0] = columns[:, 0] = 0
    received = flat_index(batch, side, rows, columns)
    expected = (np.arange(batch)[:, None] * side + rows) * side + columns
    assert received.dtype == np.int32
    assert expected.max() == batch * side**2 - 1 > 2**30
    assert np.array_equal(received, expected)


@pytest.mark.parametrize(
    ("padding_mode", "batch", "pixels"), [("border", 8, 2**31), ("zeros", 8, 8 * 16388**2)]
)
def test_one_image_more_is_refused(padding_mode, batch, pixels):
    """8 images of 16k x 16k are one pixel too many, without the zeros around them."""

    def sample(image, grid):
        return grid_sample(image, grid, padding_mode=padding_mode)

    grid = tf.TensorSpec((batch, 1, 1, 2))
    with pytest.raises(ValueError, match=rf"{pixels} pixels.*2147483647.*smaller batch"):
        tf.function(sample).get_concrete_function(
            tf.TensorSpec((batch, SIDE_16K, SIDE_16K, 1)), grid
        )


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("sides", [(1, SIDE_16K), (SIDE_16K, 1)], ids=str)
def test_every_pixel_of_16k_is_found_by_its_own_centre(sides, interpolation, align_corners):
    image = np.random.default_rng(16).permutation(SIDE_16K).astype(np.float32) / SIDE_16K
    image = image.reshape(1, *sides, 1)
    grid = affine_grid(identity, sides, align_corners)
    received = grid_sample(image, grid, interpolation, "border", align_corners).numpy()
    # Half a step of float32 at 1 is half a thousandth of such a pixel.
    assert np.abs(received - image).max() < (1e-9 if interpolation == "nearest" else 4e-3)


@pytest.mark.slow
@pytest.mark.parametrize("padding_mode", ["zeros", "border"])
def test_pixels_of_an_image_of_16k_by_16k(padding_mode):
    """Half a gigabyte: float32 indices would be off by up to 8 pixels at its end."""
    image = np.zeros((1, SIDE_16K, SIDE_16K, 1), np.float16)
    places = np.array([[0, 0], [SIDE_16K - 1, SIDE_16K - 1], [SIDE_16K - 1, 7], [12345, 16001]])
    image[0, places[:, 0], places[:, 1], 0] = [0.25, 0.5, 0.75, 1]
    grid = ((2 * places[:, ::-1] + 1) / SIDE_16K - 1).astype(np.float32)[None, None]
    received = grid_sample(tf.constant(image), grid, "nearest", padding_mode).numpy()
    assert received.ravel().tolist() == [0.25, 0.5, 0.75, 1]
