"""Anti-aliasing of `SpatialTransformer`: smoothing before an image is made smaller."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from stnkit.models import Affine, SpatialTransformer

SIZE = (8, 10)


@pytest.fixture
def image():
    return np.random.default_rng(1).uniform(0, 1, (3, *SIZE, 2)).astype(np.float32)


def checkerboard(side):
    return (np.indices((side, side)).sum(0) % 2).astype(np.float32)[None, ..., None]


def shrink(image, output_size, antialias, **arguments):
    theta = np.tile(Affine().identity(), (len(image), 1, 1))
    layer = SpatialTransformer(output_size=output_size, antialias=antialias, **arguments)
    return layer([image, theta]).numpy()


def test_checkerboard_becomes_grey_when_it_shrinks(assert_close):
    """By 3, each output pixel lies on an input pixel: black and white squares that are not there.

    The triangle 1 2 3 2 1 leaves 1/9 of the pattern on each axis.
    """
    aliased = shrink(checkerboard(15), (5, 5), False)
    assert np.abs(np.abs(aliased - 0.5) - 0.5).max() < 1e-6
    smooth = shrink(checkerboard(15), (5, 5), True)
    assert np.abs(np.abs(smooth[:, 1:-1, 1:-1] - 0.5) - 0.5 / 81).max() < 1e-6
    assert np.abs(smooth - 0.5).max() < 0.1


def test_antialias_equals_that_of_tensorflow_where_pixels_meet(assert_close, tolerances):
    image = np.random.default_rng(5).uniform(0, 1, (2, 15, 27, 3)).astype(np.float32)
    expected = tf.image.resize(image, (5, 9), antialias=True).numpy()
    received = shrink(image, (5, 9), True)
    assert_close(received[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], tolerances.sample)


def test_antialias_along_the_axis_that_shrinks_alone(assert_close, tolerances):
    image = np.random.default_rng(6).uniform(0, 1, (1, 12, 9, 2)).astype(np.float32)
    received = shrink(image, (12, 3), True)
    turned = shrink(image.transpose(0, 2, 1, 3), (3, 12), True).transpose(0, 2, 1, 3)
    assert_close(received, turned, tolerances.sample)
    expected = tf.image.resize(image, (12, 3), antialias=True).numpy()
    assert_close(received[:, :, 1:-1], expected[:, :, 1:-1], tolerances.sample)


@pytest.mark.parametrize("output_size", [None, (8, 10), (9, 31)], ids=str)
def test_antialias_does_nothing_where_nothing_shrinks(image, output_size):
    assert np.array_equal(shrink(image, output_size, True), shrink(image, output_size, False))


@pytest.mark.parametrize("output_size", [(1, 1), (2, 3), (7, 9)], ids=str)
@pytest.mark.parametrize("padding_mode", ["zeros", "border"])
def test_antialias_keeps_a_flat_image_flat(output_size, padding_mode, assert_close, tolerances):
    flat = np.full((1, *SIZE, 2), 0.625, np.float32)
    received = shrink(flat, output_size, True, padding_mode=padding_mode)
    assert_close(received, np.full((1, *output_size, 2), 0.625), tolerances.sample)


@pytest.mark.parametrize("dtype", ["float64", "mixed_float16"])
def test_antialias_in_other_precisions(image, dtype, assert_close):
    received = shrink(image, (3, 4), True, dtype=dtype)
    assert_close(received, shrink(image, (3, 4), True).astype(received.dtype), 2e-3)


def test_antialias_needs_known_sizes():
    layer = SpatialTransformer(output_size=(3, 4), antialias=True)
    graph = tf.function(lambda image, theta: layer([image, theta]))
    theta = tf.TensorSpec((None, 6))
    with pytest.raises(ValueError, match=r"image has shape \(None, None, 8, 1\).*known sizes"):
        graph.get_concrete_function(tf.TensorSpec((None, None, 8, 1)), theta)
    assert graph.get_concrete_function(tf.TensorSpec((None, 9, 8, 1)), theta)
