"""The sampler on volumes, where the answer can be worked out by hand, and with hostile input."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import tensorflow as tf

from stnkit.models import GridSampler, grid_sample

INTERPOLATIONS = ("bilinear", "nearest")
PADDING_MODES = ("zeros", "border", "reflection")
MODES = list(itertools.product(INTERPOLATIONS, PADDING_MODES, (False, True)))
HOSTILE = [np.nan, np.inf, -np.inf, 1e6, -3e38, 2.0**31, 0.3]
every_mode = pytest.mark.parametrize("mode", MODES, ids=str)
every_alignment = pytest.mark.parametrize("align_corners", [False, True])


@pytest.fixture
def volume():
    """Return two volumes of 3 x 4 x 5 voxels whose every value differs."""
    values = np.arange(2 * 3 * 4 * 5 * 2, dtype=np.float32) / 240
    return np.random.default_rng(7).permutation(values).reshape(2, 3, 4, 5, 2)


def read_at(volume, planes, rows, columns, mode):
    """Sample the volumes at the outer product of voxel planes, rows and columns."""

    def normalise(voxel, size):
        if mode[2]:
            return 2 * np.asarray(voxel) / (size - 1) - 1
        return (2 * np.asarray(voxel) + 1) / size - 1

    places = zip((planes, rows, columns), volume.shape[1:4], strict=True)
    z, y, x = np.meshgrid(*(normalise(*place) for place in places), indexing="ij")
    grid = np.tile(np.stack([x, y, z], -1).astype(np.float32), (len(volume), 1, 1, 1, 1))
    return grid_sample(volume, grid, *mode).numpy()


@every_mode
def test_identity_returns_the_volume(volume, mode, assert_close, tolerances):
    received = read_at(volume, range(3), range(4), range(5), mode)
    assert_close(received, volume, tolerances.exact)


@every_mode
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_axes_are_x_y_z(volume, axis, mode, assert_close, tolerances):
    places = [np.arange(size) for size in volume.shape[1:4]]
    places[axis - 1] = places[axis - 1][::-1]
    received = read_at(volume, *places, mode)
    assert_close(received, np.flip(volume, axis), tolerances.exact)


@every_mode
def test_whole_voxels_outside_equal_numpy_pad(volume, mode, assert_close, tolerances):
    padding = {"zeros": "constant", "border": "edge"}.get(
        mode[1], "reflect" if mode[2] else "symmetric"
    )
    margins = [(0, 0), (2, 2), (5, 5), (7, 7), (0, 0)]
    expected = np.pad(volume, margins, mode=padding)
    places = (np.arange(-2, 5), np.arange(-5, 9), np.arange(-7, 12))
    assert_close(read_at(volume, *places, mode), expected, tolerances.sample)


@every_alignment
def test_between_eight_voxels_is_their_weighted_mean(
    volume, align_corners, assert_close, tolerances
):
    received = read_at(volume, [0.5], [1.25], [3.75], ("bilinear", "zeros", align_corners))
    around = volume[:, 0:2, 1:3, 3:5]
    weights = np.einsum("i,j,k->ijk", [0.5, 0.5], [0.75, 0.25], [0.25, 0.75])
    expected = np.einsum("bijkc,ijk->bc", around, weights)
    assert_close(received[:, 0, 0, 0], expected, tolerances.sample)


def test_nearest_ties_go_to_the_even_voxel():
    volume = np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1, 1)
    received = read_at(volume, np.arange(8) - 0.5, [0], [0], ("nearest", "border", False))
    assert received[0, :, 0, 0, 0].tolist() == [0, 0, 2, 2, 4, 4, 6, 6]


@every_alignment
@pytest.mark.parametrize("outside", [0.25, 0.5, 1.0, 1.5])
def test_zeros_padding_fades_within_one_voxel(outside, align_corners, assert_close, tolerances):
    white = np.ones((1, 4, 2, 8, 1), np.float32)
    received = read_at(
        white, [-outside, 1], [0], [3, 7 + outside], ("bilinear", "zeros", align_corners)
    )
    faded = max(0.0, 1 - outside)
    assert_close(
        received[0, :, 0, :, 0], np.array([[faded, faded**2], [1, faded]]), tolerances.sample
    )


@every_mode
def test_hostile_coordinates_read_the_volume_or_zero(volume, mode):
    x, y, z = np.meshgrid(HOSTILE, HOSTILE, HOSTILE)
    grid = np.tile(np.stack([x, y, z], -1).astype(np.float32), (2, 1, 1, 1, 1))

    @tf.function(input_signature=[tf.TensorSpec([None] * 5), tf.TensorSpec([None] * 4 + [3])])
    def dynamic(volume, grid):
        return grid_sample(volume, grid, *mode)

    for bright in (volume + 0.25, volume[:, :1, :, :1] + 0.25):
        received = grid_sample(bright, grid, *mode).numpy()
        assert np.isfinite(received).all()
        assert received.min() >= (0 if mode[1] == "zeros" else bright.min()) - 1e-6
        assert received.max() <= bright.max() + 1e-6
        assert np.array_equal(dynamic(bright, grid).numpy(), received)
        nan = np.full((2, 1, 1, 1, 3), np.nan, np.float32)
        if mode[1] == "zeros":
            assert not grid_sample(bright, nan, *mode).numpy().any()
        if mode[1] == "border":
            corner = grid_sample(bright, nan, *mode).numpy()
            assert np.array_equal(corner[:, 0, 0, 0], bright[:, 0, 0, 0])


def raises_naming(*parts):
    lookaheads = "".join(f"(?=.*{re.escape(part)})" for part in parts)
    return pytest.raises(ValueError, match=f"^{lookaheads}[^\\n]*$")


def test_bicubic_is_for_images(volume):
    with raises_naming("'bicubic'", "volume", "'bilinear' or 'nearest'"):
        grid_sample(volume, np.zeros((2, 1, 1, 1, 3), np.float32), "bicubic")


@pytest.mark.parametrize("shape", [(2, 1, 1, 2), (2, 1, 1, 1, 2), (2, 1, 1, 3), (2, 3)], ids=str)
def test_grid_that_is_not_one_of_a_volume(volume, shape):
    with raises_naming("grid", str(shape), "[batch, d, h, w, 3]", "(x, y, z)"):
        grid_sample(volume, np.zeros(shape, np.float32))


@pytest.mark.parametrize("sides", [(0, 4, 5), (3, 0, 5), (3, 4, 0)], ids=str)
def test_volume_without_voxels(sides):
    with raises_naming("image", str((1, *sides, 1)), "expected"):
        grid_sample(np.zeros((1, *sides, 1), np.float32), np.zeros((1, 1, 1, 1, 3), np.float32))


def test_more_pixels_than_int32_counts_are_refused():
    image = tf.TensorSpec((3, 1024, 1024, 1024, 1))
    grid = tf.TensorSpec((3, 1, 1, 1, 3))
    with pytest.raises(ValueError, match=r"3221225472 pixels.*2147483647.*smaller batch"):
        tf.function(lambda a, b: grid_sample(a, b, padding_mode="border")).get_concrete_function(
            image, grid
        )


def test_a_large_volume_is_indexed_exactly():
    """The last voxel of 2**25 is read: float32 stops counting single ones at 2**24."""
    volume = tf.concat([tf.zeros((1, 2**25 - 2, 1, 1, 1)), [[[[[0.25]]], [[[0.75]]]]]], axis=1)
    volume = tf.reshape(volume, (1, 2**15, 2**10, 1, 1))
    grid = np.array([[[[[0, 1, 1]]], [[[0, 1 - 2 / (2**10 - 1), 1]]]]], np.float32)
    received = grid_sample(volume, grid, "nearest", "border", True).numpy().ravel()
    assert received.tolist() == [0.75, 0.25]


def test_layer_form_takes_volumes(volume):
    grid = np.random.default_rng(3).uniform(-1.2, 1.2, (2, 2, 3, 4, 3)).astype(np.float32)
    layer = GridSampler("bilinear", "border", True)
    expected = grid_sample(volume, grid, "bilinear", "border", True).numpy()
    assert np.array_equal(layer([volume, grid]).numpy(), expected)
    assert layer.compute_output_shape([volume.shape, grid.shape]) == (2, 2, 3, 4, 2)
