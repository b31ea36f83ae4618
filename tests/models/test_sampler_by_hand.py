"""The sampler and the grid generator where the answer can be worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from stnkit.models import affine_grid, grid_sample

INTERPOLATIONS = ("bilinear", "nearest", "bicubic")
PADDING_MODES = ("zeros", "border", "reflection")
ALIGN_CORNERS = (False, True)
# What numpy.pad calls the modes; reflection repeats the border pixel unless corners are aligned.
NUMPY_PADDING = {
    ("zeros", False): "constant",
    ("zeros", True): "constant",
    ("border", False): "edge",
    ("border", True): "edge",
    ("reflection", False): "symmetric",
    ("reflection", True): "reflect",
}
every_mode = pytest.mark.parametrize(
    "mode", list(itertools.product(INTERPOLATIONS, PADDING_MODES, ALIGN_CORNERS)), ids=str
)
every_alignment = pytest.mark.parametrize("align_corners", ALIGN_CORNERS)
every_padding = pytest.mark.parametrize("padding_mode", PADDING_MODES)


@pytest.fixture
def image():
    """Return two images of 4 x 5 pixels whose every value differs."""
    values = np.arange(2 * 4 * 5 * 3, dtype=np.float32).reshape(2, 4, 5, 3) / 120
    return np.random.default_rng(7).permutation(values.ravel()).reshape(values.shape)


def warp(image, theta, mode, output_size=None):
    thetas = np.tile(np.asarray(theta, np.float32), (len(image), 1, 1))
    grid = affine_grid(thetas, output_size or image.shape[1:3], mode[2])
    return grid_sample(image, grid, *mode).numpy()


def shift_right_by(pixels, width, align_corners):
    """Return the theta that reads `pixels` to the right of each output pixel."""
    return [[1, 0, 2 * pixels / (width - 1 if align_corners else width)], [0, 1, 0]]


def read_at(image, rows, columns, mode):
    """Sample the images at the outer product of pixel rows and columns."""
    _, height, width, _ = image.shape

    def normalise(pixel, size):
        if mode[2]:
            return 2 * np.asarray(pixel) / (size - 1) - 1
        return (2 * np.asarray(pixel) + 1) / size - 1

    x, y = np.meshgrid(normalise(columns, width), normalise(rows, height))
    grid = np.tile(np.stack([x, y], -1).astype(np.float32), (len(image), 1, 1, 1))
    return grid_sample(image, grid, *mode).numpy()


@every_mode
def test_identity_returns_the_image(image, mode, assert_close, tolerances):
    received = warp(image, [[1, 0, 0], [0, 1, 0]], mode)
    assert_close(received, image, tolerances.exact)


@every_mode
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_equal_rot90(image, turns, mode, assert_close, tolerances):
    cosine, sine = [(0, 1), (-1, 0), (0, -1)][turns - 1]
    expected = np.rot90(image, turns, axes=(1, 2))
    theta = [[cosine, -sine, 0], [sine, cosine, 0]]
    received = warp(image, theta, mode, expected.shape[1:3])
    assert_close(received, expected, tolerances.exact)


@every_mode
def test_horizontal_flip(image, mode, assert_close, tolerances):
    received = warp(image, [[-1, 0, 0], [0, 1, 0]], mode)
    assert_close(received, image[:, :, ::-1], tolerances.exact)


@every_mode
def test_vertical_flip(image, mode, assert_close, tolerances):
    received = warp(image, [[1, 0, 0], [0, -1, 0]], mode)
    assert_close(received, image[:, ::-1], tolerances.exact)


@every_mode
def test_one_pixel_shift(image, mode, assert_close, tolerances):
    last = {
        ("zeros", False): 0 * image[:, :, -1],
        ("zeros", True): 0 * image[:, :, -1],
        ("border", False): image[:, :, -1],
        ("border", True): image[:, :, -1],
        ("reflection", False): image[:, :, -1],  # mirrored about the edge of the last pixel
        ("reflection", True): image[:, :, -2],  # mirrored about its centre
    }[mode[1:]]
    expected = np.concatenate([image[:, :, 1:], last[:, :, None]], axis=2)
    received = warp(image, shift_right_by(1, 5, mode[2]), mode)
    assert_close(received, expected, tolerances.exact)


@every_alignment
@every_padding
def test_half_pixel_shift_averages_neighbours(
    image, padding_mode, align_corners, assert_close, tolerances
):
    final = image[:, :, -1]
    last = {
        "zeros": final / 2,
        "border": final,
        "reflection": (final + image[:, :, -2]) / 2 if align_corners else final,
    }[padding_mode]
    means = (image[:, :, :-1] + image[:, :, 1:]) / 2
    expected = np.concatenate([means, last[:, :, None]], axis=2)
    theta = shift_right_by(0.5, 5, align_corners)
    received = warp(image, theta, ("bilinear", padding_mode, align_corners))
    assert_close(received, expected, tolerances.exact)


@every_mode
def test_whole_pixels_outside_equal_numpy_pad(image, mode, assert_close, tolerances):
    margin = 11  # over two images wide: reflection has to fold more than once
    rows, columns = np.arange(-margin, 4 + margin), np.arange(-margin, 5 + margin)
    expected = np.pad(
        image,
        [(0, 0), (margin, margin), (margin, margin), (0, 0)],
        mode=NUMPY_PADDING[mode[1:]],
    )
    assert_close(read_at(image, rows, columns, mode), expected, tolerances.sample)


@every_mode
@pytest.mark.parametrize("x", [-40.5, 30.25])
@pytest.mark.parametrize("y", [-30.25, 40.5])
def test_fully_out_of_frame(image, x, y, mode, assert_close, tolerances):
    grid = np.tile(np.array([x, y], np.float32), (2, 3, 2, 1))
    received = grid_sample(image, grid, *mode).numpy()
    if mode[1] == "zeros":
        assert not received.any()
        return
    if mode[1] == "border":
        pixel = image[:, 0 if y < 0 else -1, 0 if x < 0 else -1]
    else:
        row, column = (fold(*side, mode[2]) for side in ((y, 4), (x, 5)))
        pixel = read_at(image, [row], [column], mode)[:, 0, 0]
    expected = np.broadcast_to(pixel[:, None, None], received.shape)
    assert_close(received, expected, tolerances.sample)


def fold(coordinate, size, align_corners):
    """Reflect a normalised coordinate, one mirror at a time, and return it in pixels inside."""
    while not -1 <= coordinate <= 1:  # -1 and 1 are the mirrors, whatever they stand for
        coordinate = (2 if coordinate > 1 else -2) - coordinate
    if align_corners:
        return (coordinate + 1) / 2 * (size - 1)
    return min(max(((coordinate + 1) * size - 1) / 2, 0), size - 1)


@every_alignment
@pytest.mark.parametrize("outside", [0.0, 0.25, 0.5, 0.75, 1.0, 1.5])
def test_zeros_padding_fades_within_one_pixel(outside, align_corners, assert_close, tolerances):
    white = np.ones((1, 4, 8, 1), np.float32)
    rows, columns = np.array([-outside, 2, 3 + outside]), np.array([-outside, 2, 7 + outside])
    received = read_at(white, rows, columns, ("bilinear", "zeros", align_corners))[0, ..., 0]
    faded = np.array([max(0.0, 1 - outside), 1, max(0.0, 1 - outside)])
    assert_close(received, np.outer(faded, faded), tolerances.sample)


def keys_weights(away, a=-0.75):
    """Return the four weights of Keys' cubic convolution, from its two polynomials."""

    def kernel(d):
        d = abs(d)
        if d <= 1:
            return (a + 2) * d**3 - (a + 3) * d**2 + 1
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a

    return np.array([kernel(away - step) for step in (-1, 0, 1, 2)])


@every_alignment
def test_bicubic_half_way_between_pixels(align_corners, assert_close, tolerances):
    # -3/32, 19/32, 19/32, -3/32: the overshoot of a = -0.75.
    image = np.tile(np.array([1, 0, 0, 0, 0, 8, 0, 0], np.float32), (2, 1)).reshape(1, 2, 8, 1)
    mode = ("bicubic", "border", align_corners)
    received = read_at(image, [0], np.arange(7) + 0.5, mode)[0, 0, :, 0]
    expected = np.array([19 / 32 - 3 / 32, -3 / 32, 0, -24 / 32, 152 / 32, 152 / 32, -24 / 32])
    assert_close(received, expected, tolerances.sample)


@every_alignment
@pytest.mark.parametrize("away", [0.0, 0.25, 0.5, 0.9])
def test_bicubic_reads_sixteen_pixels(align_corners, away, assert_close, tolerances):
    image = np.random.default_rng(3).uniform(0, 1, (1, 4, 4, 1)).astype(np.float32)
    rows, columns = [1 + away], [2 - away] if away else [1.0]
    received = read_at(image, rows, columns, ("bicubic", "zeros", align_corners))[0, 0, 0]
    expected = keys_weights(away) @ image[0, ..., 0] @ keys_weights(1 - away if away else 0.0)
    assert_close(received, np.array([expected]), tolerances.sample)


@every_alignment
def test_bicubic_with_zeros_still_sees_the_image_two_pixels_outside(
    align_corners, assert_close, tolerances
):
    white = np.ones((1, 2, 5, 1), np.float32)
    outside = np.array([-2.5, -2.0, -1.5, -1.0, -0.5, 4.5, 5.0, 5.5, 6.0, 6.5])
    received = read_at(white, [0], outside, ("bicubic", "zeros", align_corners))[0, 0, :, 0]
    # The sum of the weights that fall on pixels: all but the outermost cancel.
    expected = np.array([0, 0, -3 / 32, 0, 1 / 2, 1 / 2, 0, -3 / 32, 0, 0])
    assert_close(received, expected, tolerances.sample)


@pytest.mark.parametrize("padding_mode", ["border", "reflection"])
@every_alignment
def test_bicubic_keeps_a_flat_image_flat(padding_mode, align_corners, assert_close, tolerances):
    grid = np.random.default_rng(4).uniform(-3, 3, (1, 9, 9, 2)).astype(np.float32)
    flat = np.full((1, 5, 4, 2), 0.625, np.float32)
    received = grid_sample(flat, grid, "bicubic", padding_mode, align_corners).numpy()
    assert_close(received, np.full((1, 9, 9, 2), 0.625), tolerances.sample)


@every_alignment
def test_nearest_with_zeros_does_not_fade(align_corners, assert_close, tolerances):
    white = np.ones((1, 4, 8, 1), np.float32)
    columns = np.array([-0.75, -0.25, 3, 7.25, 7.75])
    received = read_at(white, np.array([1.0]), columns, ("nearest", "zeros", align_corners))
    assert received[0, 0, :, 0].tolist() == [0, 1, 1, 1, 0]


def test_nearest_ties_go_to_the_even_pixel():
    image = np.arange(1, 9, dtype=np.float32).reshape(1, 1, 8, 1)
    columns = np.arange(-1, 8) + 0.5  # -0.5, 0.5, … 7.5: exact in float32 for eight pixels
    received = read_at(image, np.array([0.0]), columns, ("nearest", "zeros", False))
    assert received[0, 0, :, 0].tolist() == [1, 1, 3, 3, 5, 5, 7, 7, 0]


@every_mode
def test_each_image_of_the_batch_is_read_with_its_own_grid(image, mode, assert_close, tolerances):
    thetas = np.array([[[1, 0, 0], [0, 1, 0]], [[-1, 0, 0], [0, 1, 0]]], np.float32)
    received = grid_sample(image, affine_grid(thetas, (4, 5), mode[2]), *mode).numpy()
    assert_close(received[0], image[0], tolerances.exact)
    assert_close(received[1], image[1, :, ::-1], tolerances.exact)


def test_defaults_are_bilinear_zeros_and_edges(image):
    grid = np.random.default_rng(3).uniform(-1.3, 1.3, (2, 6, 6, 2)).astype(np.float32)
    expected = grid_sample(image, grid, "bilinear", "zeros", False).numpy()
    assert np.array_equal(grid_sample(image, grid).numpy(), expected)
    theta = np.random.default_rng(4).uniform(-1, 1, (2, 2, 3)).astype(np.float32)
    assert np.array_equal(affine_grid(theta, (3, 4)), affine_grid(theta, (3, 4), False))


@every_alignment
def test_corners_of_the_identity_grid(align_corners, assert_close, tolerances):
    theta = np.array([[[1, 0, 0], [0, 1, 0]]], np.float32)
    grid = affine_grid(theta, (4, 5), align_corners).numpy()
    assert grid.shape == (1, 4, 5, 2)
    right, bottom = (1, 1) if align_corners else (1 - 1 / 5, 1 - 1 / 4)
    expected = [[[-right, -bottom], [right, -bottom]], [[-right, bottom], [right, bottom]]]
    assert_close(grid[0, ::3, ::4], np.array(expected), tolerances.grid)


@every_alignment
def test_corners_of_an_affine_grid(align_corners, assert_close, tolerances):
    theta = np.array([[[2, 3, 0.5], [-1, 4, -0.25]]], np.float32)
    grid = affine_grid(theta, (2, 4), align_corners).numpy()
    x, y = (1, 1) if align_corners else (0.75, 0.5)
    expected = [
        [[-2 * x - 3 * y + 0.5, x - 4 * y - 0.25], [2 * x - 3 * y + 0.5, -x - 4 * y - 0.25]],
        [[-2 * x + 3 * y + 0.5, x + 4 * y - 0.25], [2 * x + 3 * y + 0.5, -x + 4 * y - 0.25]],
    ]
    assert_close(grid[0, :, ::3], np.array(expected), tolerances.grid)


@every_alignment
def test_a_side_of_one_pixel_has_its_centre_at_zero(align_corners):
    theta = np.array([[[1, 0, 0.5], [0, 1, -0.25]]], np.float32)
    grid = affine_grid(theta, (1, 1), align_corners).numpy()
    assert grid.ravel().tolist() == [0.5, -0.25]


@every_alignment
def test_six_vector_equals_matrix(align_corners):
    theta = np.random.default_rng(5).uniform(-1, 1, (3, 2, 3)).astype(np.float32)
    matrix = affine_grid(theta, (4, 5), align_corners).numpy()
    vector = affine_grid(theta.reshape(3, 6), (4, 5), align_corners).numpy()
    assert np.array_equal(matrix, vector)
