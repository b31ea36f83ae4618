"""Every transform where its grid can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from stnkit.models import (
    Affine,
    Attention,
    DenseFlow,
    DiffeomorphicFlow,
    Projective,
    Similarity,
    ThinPlateSpline,
    Translation,
    affine_grid,
    grid_sample,
)

SIZES = [(4, 5), (1, 6), (3, 1), (1, 1)]
FAMILIES = [
    Translation(),
    Attention(),
    Similarity(),
    Affine(),
    Projective(),
    ThinPlateSpline(2),
    ThinPlateSpline(5),
    DenseFlow((4, 5)),
    DenseFlow((7, 2)),
    DiffeomorphicFlow((4, 5)),
    DiffeomorphicFlow((3, 3), steps=2),
]
every_family = pytest.mark.parametrize("transform", FAMILIES, ids=repr)
every_alignment = pytest.mark.parametrize("align_corners", [False, True])


def centres(size, align_corners):
    """Return [height, width, 2], the normalised pixel centres: the identity grid."""
    axes = []
    for side in size:
        index = np.arange(side)
        if align_corners:
            axes.append(2 * index / (side - 1) - 1 if side > 1 else np.zeros(1))
        else:
            axes.append((2 * index + 1) / side - 1)
    y, x = np.meshgrid(*axes, indexing="ij")
    return np.stack([x, y], -1)


def grid_of(transform, theta, size=(4, 5), align_corners=False):
    theta = np.asarray(theta, np.float32)[np.newaxis]
    return transform.grid(theta, size, align_corners).numpy()[0]


@every_family
@every_alignment
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_identity(transform, align_corners, size, assert_close, tolerances):
    identity = transform.identity()
    assert identity.dtype == np.float32
    assert identity.shape == transform.theta_shape
    assert identity.size == transform.num_params
    received = grid_of(transform, identity, size, align_corners)
    assert received.dtype == np.float32
    assert_close(received, centres(size, align_corners), tolerances.grid)


@every_family
def test_flat_theta_equals_shaped_one(transform):
    theta = transform.identity() + np.random.default_rng(1).normal(
        0, 0.1, (3, *transform.theta_shape)
    ).astype(np.float32)
    shaped = transform.grid(theta, (3, 4))
    assert shaped.shape == (3, 3, 4, 2)
    assert np.array_equal(transform.grid(theta.reshape(3, -1), (3, 4)), shaped)


@every_family
def test_each_theta_of_a_batch_makes_its_own_grid(transform, assert_close, tolerances):
    rng = np.random.default_rng(2)
    theta = transform.identity() + rng.normal(0, 0.1, (3, *transform.theta_shape))
    theta = theta.astype(np.float32)
    together = transform.grid(theta, (4, 6)).numpy()
    assert np.abs(together[0] - together[1]).max() > 1e-3
    for index in range(3):
        assert_close(together[index], grid_of(transform, theta[index], (4, 6)), tolerances.grid)


@every_family
def test_half_precision_theta_gives_a_float32_grid(transform):
    theta = transform.identity()[np.newaxis].astype(np.float16)
    assert transform.grid(theta, (300, 3)).dtype == np.float32
    assert np.unique(transform.grid(theta, (3000, 1)).numpy()[..., 1]).size == 3000


@every_family
@every_alignment
def test_float64_theta_gives_an_exact_float64_grid(transform, align_corners):
    theta = transform.identity()[np.newaxis].astype(np.float64)
    received = transform.grid(theta, (5, 7), align_corners)
    assert received.dtype == np.float64
    assert np.abs(received[0] - centres((5, 7), align_corners)).max() < 1e-12


@every_alignment
def test_translation(align_corners, assert_close, tolerances):
    expected = centres((4, 5), align_corners) + np.array([0.25, -0.5])
    received = grid_of(Translation(), [0.25, -0.5], align_corners=align_corners)
    assert_close(received, expected, tolerances.grid)


@every_alignment
def test_attention_reads_a_crop(align_corners, assert_close, tolerances):
    """Scale 1/2 at (1/2, -1/2) is the upper right quarter."""
    received = grid_of(Attention(), [0.5, 0.5, -0.5], (2, 2), align_corners)
    low, high = (0.0, 1.0) if align_corners else (0.25, 0.75)
    expected = [[[low, -high], [high, -high]], [[low, -low], [high, -low]]]
    assert_close(received, np.array(expected), tolerances.grid)
    image = np.random.default_rng(3).uniform(0, 1, (1, 8, 8, 1)).astype(np.float32)
    if not align_corners:
        grid = Attention().grid(np.array([[0.5, 0.5, -0.5]], np.float32), (4, 4))
        crop = grid_sample(image, grid, "bilinear").numpy()
        assert_close(crop, image[:, :4, 4:], tolerances.exact)


@every_alignment
def test_similarity_turns_scales_and_shifts(align_corners, assert_close, tolerances):
    angle, scale = np.pi / 6, 2.0
    a, b = scale * np.cos(angle), scale * np.sin(angle)
    x, y = np.moveaxis(centres((4, 5), align_corners), -1, 0)
    expected = np.stack([a * x - b * y + 0.1, b * x + a * y - 0.2], -1)
    received = grid_of(Similarity(), [a, b, 0.1, -0.2], align_corners=align_corners)
    assert_close(received, expected, tolerances.grid)


def test_similarity_by_a_quarter_turn_equals_rot90(assert_close, tolerances):
    image = np.random.default_rng(4).uniform(0, 1, (1, 5, 5, 2)).astype(np.float32)
    grid = Similarity().grid(np.array([[0, 1, 0, 0]], np.float32), (5, 5))
    received = grid_sample(image, grid).numpy()
    assert_close(received, np.rot90(image, 1, axes=(1, 2)), tolerances.exact)


@every_alignment
def test_affine_equals_affine_grid(align_corners):
    theta = np.random.default_rng(5).uniform(-1, 1, (3, 2, 3)).astype(np.float32)
    received = Affine().grid(theta, (4, 5), align_corners).numpy()
    assert np.array_equal(received, affine_grid(theta, (4, 5), align_corners).numpy())


@every_alignment
@pytest.mark.parametrize("transform", FAMILIES[:4], ids=repr)
def test_smaller_families_equal_the_affine_map_of_their_matrix(
    transform, align_corners, assert_close, tolerances
):
    rng = np.random.default_rng(6)
    theta = rng.uniform(-1, 1, (4, *transform.theta_shape)).astype(np.float32)
    matrix = transform.matrix(transform.check_theta(theta)).numpy()
    assert np.array_equal(matrix[:, 2], np.tile([0, 0, 1], (4, 1)))
    expected = affine_grid(matrix[:, :2], (4, 5), align_corners).numpy()
    assert_close(transform.grid(theta, (4, 5), align_corners).numpy(), expected, tolerances.grid)
    assert np.array_equal(transform.from_matrix(matrix), theta)


@every_alignment
def test_projective_without_perspective_is_affine(align_corners, assert_close, tolerances):
    affine = np.random.default_rng(7).uniform(-1, 1, (2, 3)).astype(np.float32)
    received = grid_of(Projective(), [*affine.ravel(), 0, 0], align_corners=align_corners)
    expected = affine_grid(affine[None], (4, 5), align_corners).numpy()[0]
    assert_close(received, expected, tolerances.grid)


def test_projective_takes_four_points_where_they_belong(assert_close, tolerances):
    """The corners become a trapezium's whose upper side is half as long.

    (+-1, -1) -> (+-0.5, -1) and (+-1, 1) -> (+-1, 1) give u = 2/3 x, v = y - 1/3, w = 1 - y / 3.
    """
    theta = [2 / 3, 0, 0, 0, 1, -1 / 3, 0, -1 / 3]
    received = grid_of(Projective(), theta, (2, 2), align_corners=True)
    expected = [[[-0.5, -1], [0.5, -1]], [[-1, 1], [1, 1]]]
    assert_close(received, np.array(expected), tolerances.grid)
    middle = grid_of(Projective(), theta, (3, 3), align_corners=True)[1]
    third = [[-2 / 3, -1 / 3], [0, -1 / 3], [2 / 3, -1 / 3]]
    assert_close(middle, np.array(third), tolerances.grid)


def test_projective_horizon_reads_far_outside():
    received = grid_of(Projective(), [1, 0, 0, 0, 1, 0.5, -1, 0], (1, 3), align_corners=True)
    assert np.isfinite(received).all()
    assert received[0, 0].tolist() == [-0.5, 0.25]
    assert np.abs(received[0, 2]).min() > 1e6


@pytest.mark.parametrize("points", [2, 3, 4, 7])
def test_spline_takes_control_points_where_theta_says(points, assert_close):
    """On a grid of K x K pixels with aligned corners, pixels are control points."""
    spline = ThinPlateSpline(points)
    rng = np.random.default_rng(8)
    theta = spline.identity() + rng.normal(0, 0.5 / points, spline.theta_shape)
    received = grid_of(spline, theta, (points, points), align_corners=True)
    assert_close(received.reshape(-1, 2), theta, 1e-5)


@every_alignment
@pytest.mark.parametrize("points", [2, 3, 4, 7])
def test_spline_reproduces_affine_maps(points, align_corners, assert_close):
    matrix = np.array([[0.8, -0.4, 0.1], [0.3, 1.2, -0.2]])
    spline = ThinPlateSpline(points)
    theta = spline.identity() @ matrix[:, :2].T + matrix[:, 2]
    expected = affine_grid(matrix[None].astype(np.float32), (6, 9), align_corners).numpy()[0]
    assert_close(grid_of(spline, theta, (6, 9), align_corners), expected, 1e-5)


def test_spline_bends_one_point_most_where_it_is(assert_close):
    spline = ThinPlateSpline(3)
    theta = spline.identity().copy()
    theta[4] += [0, 0.2]  # the middle one
    moved = grid_of(spline, theta, (3, 3), True) - centres((3, 3), True)
    expected = np.zeros((3, 3, 2))
    expected[1, 1] = [0, 0.2]
    assert_close(moved, expected, 1e-6)
    fine = grid_of(spline, theta, (9, 9), True) - centres((9, 9), True)
    assert np.unravel_index(fine[..., 1].argmax(), (9, 9)) == (4, 4)
    assert_close(fine[..., 1], fine[::-1, :, 1], 1e-6)  # as symmetric as the control points are
    assert_close(fine[..., 1], fine[..., 1].T, 1e-6)


@every_alignment
@pytest.mark.parametrize("size", [(4, 5), (8, 3), (2, 11)], ids=str)
@pytest.mark.parametrize("make", [DenseFlow, DiffeomorphicFlow])
def test_constant_flow_is_a_translation(make, size, align_corners, assert_close, tolerances):
    flow = np.tile(np.array([0.25, -0.125], np.float32), (4, 5, 1))
    received = grid_of(make((4, 5)), flow, size, align_corners)
    expected = centres(size, align_corners) + np.array([0.25, -0.125])
    assert_close(received, expected, tolerances.grid)


def test_flow_of_one_point_moves_it_alone(assert_close, tolerances):
    flow = np.zeros((4, 5, 2), np.float32)
    flow[1, 3] = [0.5, -0.75]
    expected = centres((4, 5), False) + flow
    assert_close(grid_of(DenseFlow((4, 5)), flow), expected, tolerances.grid)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@every_alignment
def test_flow_is_resized_bilinearly_with_its_border_held(
    dtype, align_corners, assert_close, tolerances
):
    """Two columns, 0 and 1, read at eight: the oracle is the same field sampled as an image."""
    flow = np.zeros((2, 2, 2), dtype)
    flow[:, 1, 0], flow[1, :, 1] = 1, 0.5
    received = DenseFlow((2, 2)).grid(flow[None], (4, 8), align_corners).numpy()[0]
    moved = received - centres((4, 8), align_corners)
    if align_corners:
        across = np.arange(8) / 7
    else:
        across = np.array([0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1])
    assert_close(moved[..., 0], np.tile(across, (4, 1)), tolerances.grid)
    sampled = grid_sample(
        flow[None],
        centres((4, 8), align_corners)[None].astype(dtype),
        "bilinear",
        "border",
        align_corners,
    )
    assert_close(moved, sampled.numpy()[0], tolerances.grid)


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_squaring_composes_the_small_step_with_itself(steps, assert_close):
    """Of v = -p / 2 a step of h is p (1 - h/2 + h^2/8); 2^n of them are that, to the power 2^n."""
    size = (9, 9)
    velocity = -centres(size, True) / 2
    received = grid_of(DiffeomorphicFlow(size, steps), velocity, size, True)
    h = 2.0**-steps
    factor = (1 - h / 2 + h**2 / 8) ** 2**steps
    assert_close(received, factor * centres(size, True), 1e-5)
    if steps == 6:
        assert abs(factor - np.exp(-0.5)) < 1e-5
