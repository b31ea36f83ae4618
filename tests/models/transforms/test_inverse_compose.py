"""Inverse and composition: on parameters, and on the grids that they make."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import tensorflow as tf

from stnkit.models import (
    Affine,
    Attention,
    DenseFlow,
    DiffeomorphicFlow,
    Projective,
    Similarity,
    ThinPlateSpline,
    Translation,
    grid_sample,
)

MATRICES = [Translation(), Attention(), Similarity(), Affine(), Projective()]
SEEDS = range(8)
every_matrix = pytest.mark.parametrize("transform", MATRICES, ids=repr)
every_alignment = pytest.mark.parametrize("align_corners", [False, True])


def centres(size, align_corners):
    """Return [height, width, 2], the identity grid."""
    axes = [
        2 * np.arange(side) / (side - 1) - 1
        if align_corners
        else (2 * np.arange(side) + 1) / side - 1
        for side in size
    ]
    y, x = np.meshgrid(*axes, indexing="ij")
    return np.stack([x, y], -1)


def draw(transform, seed, batch=3):
    """Draw thetas that have an inverse: neither degenerate nor with a horizon in the frame."""
    rng = np.random.default_rng(seed)
    if isinstance(transform, Translation):
        return rng.uniform(-2, 2, (batch, 2)).astype(np.float32)
    if isinstance(transform, Attention):
        scale = rng.choice([-1, 1], (batch, 1)) * rng.uniform(0.2, 2, (batch, 1))
        return np.hstack([scale, rng.uniform(-1, 1, (batch, 2))]).astype(np.float32)
    angle, scale = rng.uniform(-np.pi, np.pi, batch), rng.uniform(0.4, 2, batch)
    a, b = scale * np.cos(angle), scale * np.sin(angle)
    shift = rng.uniform(-0.5, 0.5, (batch, 2))
    if isinstance(transform, Similarity):
        return np.column_stack([a, b, shift]).astype(np.float32)
    shear = rng.uniform(-0.3, 0.3, (batch, 4))
    rows = [a + shear[:, 0], -b + shear[:, 1], shift[:, 0]]
    rows += [b + shear[:, 2], a * rng.choice([-1, 1], batch) + shear[:, 3], shift[:, 1]]
    matrix = np.column_stack(rows)
    determinant = matrix[:, 0] * matrix[:, 4] - matrix[:, 1] * matrix[:, 3]
    if np.abs(determinant).min() < 0.15:
        return draw(transform, seed + 1000, batch)
    if isinstance(transform, Affine):
        return matrix.reshape(batch, 2, 3).astype(np.float32)
    return np.column_stack([matrix, rng.uniform(-0.2, 0.2, (batch, 2))]).astype(np.float32)


def apply(transform, theta, points):
    """Return points [batch, n, 2] mapped by theta, in NumPy and float64."""
    matrix = transform.matrix(transform.check_theta(theta)).numpy().astype(np.float64)
    points = np.concatenate([points, np.ones((*points.shape[:-1], 1))], -1)
    mapped = np.einsum("bij,bnj->bni", matrix, points)
    return mapped[..., :2] / mapped[..., 2:]


@every_matrix
@every_alignment
@pytest.mark.parametrize("seed", SEEDS)
def test_inverse_undoes_the_transform_on_both_sides(transform, align_corners, seed, assert_close):
    theta = draw(transform, seed)
    inverse = transform.inverse(theta)
    assert inverse.shape == theta.shape
    identity = np.tile(centres((5, 7), align_corners), (3, 1, 1, 1))
    for pair in ((theta, inverse), (inverse, theta)):
        grid = transform.grid(transform.compose(*pair), (5, 7), align_corners).numpy()
        assert_close(grid, identity, 1e-4)
    twice = transform.inverse(inverse).numpy()
    assert_close(twice, theta, 1e-4 * max(1.0, float(np.abs(inverse).max())))


@every_matrix
@pytest.mark.parametrize("seed", SEEDS)
def test_inverse_maps_every_point_back(transform, seed, assert_close):
    theta = draw(transform, seed)
    grid = transform.grid(theta, (4, 6)).numpy().reshape(3, -1, 2)
    back = apply(transform, transform.inverse(theta).numpy(), grid)
    assert_close(back, np.tile(centres((4, 6), False).reshape(1, -1, 2), (3, 1, 1)), 1e-4)


@every_matrix
@every_alignment
@pytest.mark.parametrize("seed", SEEDS)
def test_composed_grid_is_the_first_grid_read_at_the_second(
    transform, align_corners, seed, assert_close
):
    """Warping by a, then the result by b, reads the image at a(b(p)): a at the points of b."""
    a, b = draw(transform, seed), draw(transform, seed + 100)
    composed = transform.grid(transform.compose(a, b), (5, 7), align_corners).numpy()
    at = transform.grid(b, (5, 7), align_corners).numpy().reshape(3, -1, 2)
    expected = apply(transform, a, at).reshape(composed.shape)
    reach = np.maximum(1.0, np.abs(expected))
    assert_close(composed / reach, expected / reach, 1e-4)
    assert np.abs(composed - transform.grid(transform.compose(b, a), (5, 7))).max() > 1e-3 or (
        isinstance(transform, Translation)
    )


@pytest.mark.parametrize("transform", MATRICES, ids=repr)
def test_composed_once_equals_sampled_twice(transform, assert_close):
    """On a smooth image, in its middle, one sampling shows what two do."""
    side = 96
    x, y = np.moveaxis(centres((side, side), False), -1, 0)
    image = (0.5 + 0.2 * np.sin(2 * x + 1) + 0.2 * np.cos(3 * y + x))[None, ..., None]
    identity = transform.identity().ravel()
    rng = np.random.default_rng(9)
    a, b = (identity + rng.uniform(-0.1, 0.1, (1, identity.size)) for _ in range(2))
    first = grid_sample(image, transform.grid(a, (side, side)))
    twice = grid_sample(first, transform.grid(b, (side, side))).numpy()
    once = grid_sample(image, transform.grid(transform.compose(a, b), (side, side))).numpy()
    middle = slice(side // 3, -side // 3)
    assert_close(once[:, middle, middle], twice[:, middle, middle], 1e-3)
    swapped = grid_sample(image, transform.grid(transform.compose(b, a), (side, side))).numpy()
    if not isinstance(transform, Translation):
        difference = np.abs(swapped - twice)[:, middle, middle].max()
        assert difference > 3e-3


@every_matrix
def test_identity_is_neutral(transform, assert_close):
    theta = draw(transform, 3)
    identity = np.tile(transform.identity(), (3, *[1] * len(transform.theta_shape)))
    for pair in ((theta, identity), (identity, theta)):
        assert_close(transform.compose(*pair).numpy(), theta, 1e-6)
    assert_close(transform.inverse(identity).numpy(), identity, 0)


@every_matrix
def test_inverse_and_compose_keep_float64(transform):
    theta = draw(transform, 4).astype(np.float64)
    composed = transform.compose(theta, transform.inverse(theta))
    assert composed.dtype == np.float64
    assert np.abs(composed - transform.identity()).max() < 1e-13


@every_matrix
def test_inverse_and_compose_in_a_graph_of_open_batch(transform, assert_close):
    shape = [None, *transform.theta_shape]

    @tf.function(input_signature=[tf.TensorSpec(shape), tf.TensorSpec(shape)])
    def graph(a, b):
        return transform.compose(a, transform.inverse(b))

    for batch in (1, 3):
        a, b = draw(transform, 5, batch), draw(transform, 6, batch)
        expected = transform.compose(a, transform.inverse(b)).numpy()
        assert_close(graph(a, b).numpy(), expected, 1e-5 * max(1.0, np.abs(expected).max()))


def test_degenerate_theta_has_no_finite_inverse_and_leaves_the_rest_of_the_batch_alone():
    theta = np.array([[1, 0.5, 0], [0, 0, 0], [2, 0, 0.5]], np.float32)
    inverse = Attention().inverse(theta).numpy()
    assert not np.isfinite(inverse[1]).all()
    assert inverse[[0, 2]].tolist() == [[1, -0.5, 0], [0.5, 0, -0.25]]


@pytest.mark.parametrize("transform", [ThinPlateSpline(3), DenseFlow((3, 4))], ids=repr)
def test_families_without_inverse_say_which_have_one(transform):
    theta = transform.identity()[np.newaxis]
    with pytest.raises(ValueError, match=r"no inverse in closed form: translation, .*diffeomorph"):
        transform.inverse(theta)


@pytest.mark.parametrize(
    "transform", [ThinPlateSpline(3), DenseFlow((3, 4)), DiffeomorphicFlow((3, 4))], ids=repr
)
def test_families_without_composition_say_which_have_one(transform):
    theta = transform.identity()[np.newaxis]
    with pytest.raises(ValueError, match=r"cannot be composed into one theta: translation, .*can"):
        transform.compose(theta, theta)


@every_matrix
def test_inverse_and_compose_check_theta(transform):
    wrong = np.zeros((2, 11), np.float32)
    for call in (lambda: transform.inverse(wrong), lambda: transform.compose(wrong, wrong)):
        with pytest.raises(ValueError, match=r"theta has shape \(2, 11\): \w+ takes \[batch, "):
            call()


# ---- the flow of a velocity field ----


def smooth_velocity(side, align_corners, amplitude):
    """Return a field [1, side, side, 2] that falls to zero, with its slope, at the border."""
    x, y = np.moveaxis(centres((side, side), align_corners), -1, 0)
    window = np.cos(np.pi * x / 2) ** 2 * np.cos(np.pi * y / 2) ** 2
    field = np.stack([(np.sin(np.pi * y) + 0.5) * window, np.cos(2 * x) * window], -1)
    return (amplitude * field)[None].astype(np.float32)


def inverse_error(side, steps, amplitude, align_corners):
    """Return the largest distance of flow(v) after flow(-v) from the identity."""
    flow = DiffeomorphicFlow((side, side), steps)
    velocity = smooth_velocity(side, align_corners, amplitude)
    identity = centres((side, side), align_corners)
    forward = flow.grid(velocity, (side, side), align_corners).numpy()
    backward = flow.grid(flow.inverse(velocity), (side, side), align_corners).numpy()
    assert np.abs(forward - identity).max() > 0.9 * amplitude
    moved = (forward - identity).astype(np.float32)
    composed = backward + grid_sample(moved, backward, "bilinear", "border", align_corners)
    return float(np.abs(composed - identity).max())


@every_alignment
def test_flow_of_minus_v_is_the_inverse_on_a_fine_field(align_corners):
    """Displacements of a tenth of the half side, a field of 128 x 128 and the default steps."""
    steps = DiffeomorphicFlow((2, 2)).steps
    assert steps == 7
    assert inverse_error(128, steps, 0.1, align_corners) < 7e-5
    # A displacement of 3 pixels in 224.
    assert inverse_error(128, steps, 0.027, align_corners) < 2e-5
    # Twice as far needs a finer field, and no more steps.
    assert inverse_error(256, steps, 0.2, align_corners) < 5e-5


@every_alignment
def test_error_of_the_inverse_falls_with_spacing_alone(align_corners):
    """The first step's own part is below what the interpolation of the field leaves."""
    by_side = [inverse_error(side, 7, 0.1, align_corners) for side in (16, 32, 64, 128)]
    assert all(coarse > 2.5 * fine for coarse, fine in pairwise(by_side))
    by_steps = [inverse_error(64, steps, 0.1, align_corners) for steps in (3, 4, 7, 10)]
    assert max(by_steps) < 1.02 * min(by_steps)


def jacobian_determinants(grid, spacing):
    along = np.diff(grid, axis=1)[:-1] / spacing
    down = np.diff(grid, axis=0)[:, :-1] / spacing
    return along[..., 0] * down[..., 1] - along[..., 1] * down[..., 0]


@every_alignment
@pytest.mark.parametrize("side", [24, 48])
def test_flow_never_folds_where_the_plain_displacement_does(side, align_corners):
    velocity = smooth_velocity(side, align_corners, 1.0)
    spacing = 2 / (side - 1) if align_corners else 2 / side
    plain = DenseFlow((side, side)).grid(velocity, (side, side), align_corners).numpy()[0]
    assert jacobian_determinants(plain, spacing).min() < -0.2
    for sign in (1, -1):
        flow = DiffeomorphicFlow((side, side), 7)
        grid = flow.grid(sign * velocity, (side, side), align_corners).numpy()[0]
        assert np.abs(grid).max() <= 1 + 1e-3  # nothing crosses the border, where v is 0
        assert jacobian_determinants(grid, spacing).min() > 0.01
