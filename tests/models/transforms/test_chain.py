"""Chains of transforms, and `map_points`, which lets a transform stand inside of one."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from stnkit.models import (
    Affine,
    Attention,
    Chain,
    DenseFlow,
    DiffeomorphicFlow,
    Projective,
    Similarity,
    SpatialTransformer,
    ThetaHead,
    ThinPlateSpline,
    Transform,
    Translation,
    grid_sample,
    localization_cnn,
)
from stnkit.models.transforms.registry import as_transform, describe

SIZE = (4, 5)
MATRICES = [Translation(), Attention(), Similarity(), Affine(), Projective()]
FLOWS = [DenseFlow(SIZE), DiffeomorphicFlow(SIZE, steps=3)]
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


def near_identity(transform, batch=2, seed=1, dtype=np.float32):
    noise = np.random.default_rng(seed).uniform(-0.15, 0.15, (batch, transform.num_params))
    return (np.ravel(transform.identity()) + noise).astype(dtype)


def mapped(transform, theta, points, align_corners=False):
    """Return [batch, height, width, 2], where `points` of that shape are taken."""
    theta = transform.check_theta(theta)
    planes = (tf.constant(points[..., 0]), tf.constant(points[..., 1]))
    return np.stack(
        [part.numpy() for part in transform.map_points(theta, planes, align_corners)], -1
    )


def homography(theta, points):
    """Return points [..., 2] mapped by the 8 numbers of a homography, in float64."""
    matrix = np.append(np.asarray(theta, np.float64), 1).reshape(3, 3)
    u, v, w = np.moveaxis(
        np.concatenate([points, np.ones_like(points[..., :1])], -1) @ matrix.T, -1, 0
    )
    return np.stack([u / w, v / w], -1)


# ---- map_points ----


@every_alignment
@pytest.mark.parametrize("transform", [*MATRICES, *FLOWS], ids=repr)
def test_points_of_the_regular_grid_go_where_the_grid_goes(
    transform, align_corners, assert_close, tolerances
):
    """Of a flow they are its own points, where no interpolation smooths it."""
    theta = near_identity(transform)
    points = np.tile(centres(SIZE, align_corners), (2, 1, 1, 1)).astype(np.float32)
    expected = transform.grid(theta, SIZE, align_corners).numpy()
    assert np.abs(expected - points).max() > 0.05
    assert_close(mapped(transform, theta, points, align_corners), expected, tolerances.grid)


@pytest.mark.parametrize("transform", MATRICES, ids=repr)
def test_scattered_points_are_multiplied_by_the_matrix(transform, assert_close, tolerances):
    theta = near_identity(transform)
    points = np.random.default_rng(2).uniform(-2, 2, (2, 3, 1, 2)).astype(np.float32)
    matrix = transform.matrix(transform.check_theta(theta)).numpy()
    expected = [homography(m.ravel()[:8], p) for m, p in zip(matrix, points, strict=True)]
    assert_close(mapped(transform, theta, points), np.array(expected), 5 * tolerances.grid)


def test_a_homography_divides_by_what_it_is_at_the_point(assert_close, tolerances):
    """(1, 0) on w = 1 + x / 2 is drawn in to 2 / 3; a point on the horizon is far outside."""
    theta = np.array([[1, 0, 0, 0, 1, 0, 0.5, 0]], np.float32)
    received = mapped(Projective(), theta, np.array([[[[1, 0], [0, 3], [-2, 1]]]], np.float32))
    assert_close(received[0, 0, :2], np.array([[2 / 3, 0], [0, 3]]), tolerances.grid)
    assert np.isfinite(received).all()
    assert np.abs(received[0, 0, 2]).min() > 1e6


@every_alignment
def test_a_flow_between_its_points_is_interpolated_and_held_outside(
    align_corners, assert_close, tolerances
):
    """A displacement linear in x and y is read back between the points, and clipped beyond them."""
    own = centres(SIZE, align_corners)
    field = np.stack([0.1 * own[..., 0], 0.2 * own[..., 1] - 0.05], -1)[np.newaxis]
    points = np.random.default_rng(3).uniform(-1.5, 1.5, (1, 6, 7, 2)).astype(np.float32)
    inside = np.clip(points, own[0, 0], own[-1, -1])
    expected = points + np.stack([0.1 * inside[..., 0], 0.2 * inside[..., 1] - 0.05], -1)
    received = mapped(DenseFlow(SIZE), field.astype(np.float32), points, align_corners)
    assert_close(received, expected, tolerances.grid)


def test_a_spline_maps_no_single_points():
    with pytest.raises(ValueError, match="ThinPlateSpline maps regular grids only, not single"):
        ThinPlateSpline(2).map_points(None, (None, None), False)


# ---- the chain ----


def test_the_first_transform_is_the_first_to_warp(assert_close, tolerances):
    """Half the size, then a shift by 1/2: the crop moves by 1/4, not by 1/2."""
    chain = Chain(["attention", "translation"])
    received = chain.grid(np.array([[0.5, 0, 0, 0.5, 0]], np.float32), SIZE).numpy()[0]
    assert_close(received, 0.5 * centres(SIZE, False) + [0.25, 0], tolerances.grid)
    chain = Chain([Translation(), Attention()])
    received = chain.grid(np.array([[0.5, 0, 0.5, 0, 0]], np.float32), SIZE).numpy()[0]
    assert_close(received, 0.5 * centres(SIZE, False) + [0.5, 0], tolerances.grid)


def test_identity_and_shapes(assert_close, tolerances):
    chain = Chain([Affine(), DenseFlow((3, 2)), ThinPlateSpline(2)])
    assert chain.theta_shape == (6 + 12 + 8,)
    assert chain.num_params == 26
    expected = [1, 0, 0, 0, 1, 0, *[0] * 12, -1, -1, 1, -1, -1, 1, 1, 1]
    assert chain.identity().tolist() == expected
    assert chain.identity().dtype == np.float32
    for align_corners in (False, True):
        grid = chain.grid(chain.identity()[np.newaxis], SIZE, align_corners)
        assert grid.dtype == tf.float32
        assert_close(grid.numpy()[0], centres(SIZE, align_corners), tolerances.grid)


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding_mode", ["zeros", "border"])
def test_whole_shifts_sampled_once_equal_those_sampled_twice(
    interpolation, padding_mode, assert_close, tolerances
):
    """A shift, a turn by 90 degrees and another shift: every point is a pixel's own."""
    image = np.random.default_rng(4).uniform(0, 1, (2, 8, 8, 3)).astype(np.float32)
    parts = [Translation(), Similarity(), Translation()]
    thetas = [[-0.25, 0.5], [0, 1, 0, 0], [-0.5, 0]]
    modes = {"interpolation": interpolation, "padding_mode": padding_mode}
    step_by_step = image
    for part, theta in zip(parts, thetas, strict=True):
        grid = part.grid(np.array([theta] * 2, np.float32), (8, 8))
        step_by_step = grid_sample(step_by_step, grid, **modes).numpy()
    grid = Chain(parts).grid(np.array([np.concatenate(thetas)] * 2, np.float32), (8, 8))
    once = grid_sample(image, grid, **modes).numpy()
    # What one step moves out of the frame and the next one back is lost to the steps alone.
    kept = (slice(None), slice(2, 6), slice(2, 6))
    assert np.abs(once - image).max() > 0.5
    assert_close(once[kept], step_by_step[kept], tolerances.exact)


@every_alignment
def test_an_affine_map_around_a_flow(align_corners, assert_close, tolerances):
    """x_in = A (p + u(p)) + t."""
    rng = np.random.default_rng(5)
    matrix = rng.uniform(-1, 1, (2, 3)).astype(np.float32)
    field = rng.uniform(-0.3, 0.3, (*SIZE, 2)).astype(np.float32)
    theta = np.concatenate([matrix.ravel(), field.ravel()])[np.newaxis]
    moved = centres(SIZE, align_corners) + field
    expected = moved @ matrix[:, :2].T + matrix[:, 2]
    received = Chain([Affine(), DenseFlow(SIZE)]).grid(theta, SIZE, align_corners).numpy()[0]
    assert_close(received, expected, tolerances.grid)


@every_alignment
def test_a_flow_around_an_affine_map(align_corners, assert_close, tolerances):
    """The flow is read at the mapped points: q + u(q), q = A p + t, with u linear."""
    own = centres(SIZE, align_corners)
    field = np.stack([0.1 * own[..., 1], 0.2 * own[..., 0]], -1)
    theta = np.concatenate([[0.5, 0.1, 0.05, -0.1, 0.4, 0], field.ravel()])
    q = centres((3, 3), align_corners) @ np.array([[0.5, -0.1], [0.1, 0.4]]) + [0.05, 0]
    expected = q + np.stack([0.1 * q[..., 1], 0.2 * q[..., 0]], -1)
    chain = Chain([DenseFlow(SIZE), Affine()])
    theta = np.concatenate([theta[6:], theta[:6]])[np.newaxis].astype(np.float32)
    assert_close(chain.grid(theta, (3, 3), align_corners).numpy()[0], expected, tolerances.grid)


@every_alignment
def test_matrices_in_a_chain_equal_their_composition(align_corners, assert_close, tolerances):
    projective = Projective()
    a, b, c = (near_identity(projective, seed=seed) for seed in (6, 7, 8))
    chain = Chain([projective, projective, projective])
    received = chain.grid(np.concatenate([a, b, c], 1), SIZE, align_corners).numpy()
    composed = projective.compose(projective.compose(a, b), c)
    expected = projective.grid(composed, SIZE, align_corners).numpy()
    assert_close(received, expected, 10 * tolerances.grid)
    by_hand = centres(SIZE, align_corners)
    for theta in (c[0], b[0], a[0]):
        by_hand = homography(theta, by_hand)
    assert_close(received[0], by_hand, 10 * tolerances.grid)


def test_a_chain_in_a_chain_is_one_chain(assert_close, tolerances):
    parts = [Affine(), DenseFlow(SIZE), Similarity()]
    flat, nested = Chain(parts), Chain([Chain(parts[:2]), parts[2]])
    theta = near_identity(flat)
    assert np.array_equal(nested.identity(), flat.identity())
    assert_close(
        nested.grid(theta, (6, 7)).numpy(), flat.grid(theta, (6, 7)).numpy(), tolerances.grid
    )


def test_float64_theta_gives_an_exact_float64_grid():
    chain = Chain([Projective(), Affine(), DiffeomorphicFlow(SIZE, steps=2), DenseFlow(SIZE)])
    theta = near_identity(chain, 1, dtype=np.float64)
    theta[:, 14:] = np.tile([0.05, -0.1], 2 * SIZE[0] * SIZE[1])  # constant flows shift
    received = chain.grid(theta, (3, 7))
    assert received.dtype == tf.float64
    matrix = theta[0, 8:14].reshape(2, 3)
    points = (centres((3, 7), False) + np.array([0.1, -0.2])) @ matrix[:, :2].T + matrix[:, 2]
    assert np.abs(received.numpy()[0] - homography(theta[0, :8], points)).max() < 1e-12


def test_the_grid_of_a_batch_and_size_known_while_the_graph_runs(assert_close, tolerances):
    chain = Chain([Affine(), DenseFlow((3, 3)), ThinPlateSpline(2)])

    @tf.function(
        input_signature=[tf.TensorSpec([None, None]), tf.TensorSpec([], tf.int32)],
    )
    def grid(theta, height):
        return chain.grid(theta, (height, 5))

    theta = near_identity(chain, 3)
    expected = chain.grid(theta, SIZE).numpy()
    assert_close(grid(theta, 4).numpy(), expected, tolerances.grid)


@pytest.mark.parametrize(
    "parts",
    [
        [Affine(), DenseFlow(SIZE)],
        [DenseFlow(SIZE), DiffeomorphicFlow((3, 3), steps=2), Projective()],
        [Similarity(), Translation(), ThinPlateSpline(3)],
    ],
    ids=str,
)
def test_gradients_reach_every_parameter_and_the_image(parts):
    chain = Chain(parts)
    rng = np.random.default_rng(9)
    image = tf.constant(rng.uniform(0, 1, (1, 7, 6, 1)).astype(np.float32))
    theta = tf.constant(near_identity(chain, 1))
    weights = rng.normal(size=(1, *SIZE, 1)).astype(np.float32)
    with tf.GradientTape() as tape:
        tape.watch([image, theta])
        total = tf.reduce_sum(weights * grid_sample(image, chain.grid(theta, SIZE)))
    of_image, of_theta = tape.gradient(total, [image, theta])
    assert np.count_nonzero(of_image) > 10
    for part in chain.split(of_theta):
        assert np.isfinite(part).all()
        assert np.count_nonzero(part) > 0.7 * part.shape.num_elements()


def test_gradient_equals_finite_differences():
    chain = Chain([Projective(), DenseFlow((2, 2)), Affine()])
    theta = near_identity(chain, 1, dtype=np.float64)
    weights = np.random.default_rng(10).normal(size=(1, *SIZE, 2))

    def loss(values):
        return tf.reduce_sum(weights * chain.grid(values, SIZE))

    with tf.GradientTape() as tape:
        given = tf.constant(theta)
        tape.watch(given)
        total = loss(given)
    received = tape.gradient(total, given).numpy()[0]
    for index in range(chain.num_params):
        step = np.zeros_like(theta)
        step[0, index] = 1e-6
        slope = (loss(theta + step) - loss(theta - step)) / 2e-6
        assert abs(received[index] - slope) < 1e-6


# ---- bounds ----


def test_bounds_are_those_of_the_parts():
    chain = Chain([Affine(bounds=0.1), Translation(), Attention(bounds=[0.3, 0.2, 0.1])])
    assert chain.bounds is None
    assert chain.limits().tolist() == [0.1] * 6 + [np.inf] * 2 + [0.3, 0.2, 0.1]
    far = chain.bounded(tf.fill((2, chain.num_params), 50.0)).numpy() - chain.identity()
    expected = [0.1] * 6 + [50.0, 50.0, 0.3, 0.2, 0.1]
    assert np.abs(far - expected).max() < 1e-5


@pytest.mark.parametrize("transform", [*MATRICES, *FLOWS, ThinPlateSpline(2)], ids=repr)
def test_limits_of_one_transform(transform):
    count = transform.num_params
    assert transform.limits().tolist() == [np.inf] * count
    several = [0.1 + 0.01 * index for index in range(count)]
    for bounds, expected in ((0.25, [0.25] * count), (several, several)):
        config = {**describe(transform), "bounds": bounds}
        assert as_transform(config).limits().tolist() == expected


def test_a_theta_head_of_a_chain_starts_where_it_is_told_within_the_parts_bounds(assert_close):
    chain = Chain([Attention(bounds=0.3), Translation()])
    start = [0.8, 0.1, -0.2, 0.7, 5.0]
    received = ThetaHead(chain, start)(np.ones((2, 3), np.float32)).numpy()
    assert_close(received, np.array([start] * 2), 1e-6)
    with pytest.raises(ValueError, match=r"initial theta has 0.69 at 0: the bounds of Chain"):
        ThetaHead(chain, [0.69, 0, 0, 0, 0])


# ---- configuration and saving ----


def test_config_equality_and_text():
    chain = Chain([Affine(bounds=0.1), {"name": "dense_flow", "size": [3, 4]}, "projective"])
    config = json.loads(json.dumps(describe(chain)))
    assert config["name"] == "chain"
    again = as_transform(config)
    assert again == chain
    assert hash(again) == hash(chain)
    assert [type(part) for part in again.transforms] == [Affine, DenseFlow, Projective]
    assert again.transforms[0].bounds == 0.1
    assert chain != Chain([Affine(bounds=0.2), DenseFlow((3, 4)), Projective()])
    assert chain != Chain([DenseFlow((3, 4)), Affine(bounds=0.1), Projective()])
    assert "dense_flow" in repr(chain)


def test_in_a_layer_saved_and_loaded(tmp_path, assert_close, tolerances):
    chain = Chain([Affine(bounds=0.4), DiffeomorphicFlow((3, 4), steps=2)])
    layer = SpatialTransformer(
        localization_cnn((2,), 4), (6, 5), transform=chain, padding_mode="border", name="look"
    )
    model = keras.Sequential([keras.Input((9, 8, 2)), layer])
    image = np.random.default_rng(11).uniform(0, 1, (2, 9, 8, 2)).astype(np.float32)
    untrained = model(image).numpy()
    rng = np.random.default_rng(12)
    for variable in model.weights:
        variable.assign_add(rng.uniform(-0.2, 0.2, variable.shape))
    expected = model(image).numpy()
    assert np.abs(expected - untrained).max() > 0.05
    model.save(tmp_path / "chain.keras")
    loaded = keras.saving.load_model(tmp_path / "chain.keras")
    assert loaded.get_layer("look").transform == chain
    assert_close(loaded(image).numpy(), expected, tolerances.exact)


# ---- refusals ----


class Pinch(Transform):
    """A transform of the user's own that has no `map_points`, and is not registered either."""

    name = "pinch"

    @property
    def theta_shape(self):
        return (1,)

    def identity(self):
        return np.zeros(1, np.float32)

    def planes(self, theta, output_size, align_corners):
        raise NotImplementedError


@pytest.mark.parametrize(
    "transforms",
    [
        [],
        [Affine()],
        "affine",
        b"ab",
        None,
        3,
        Affine(),
        pytest.param({"affine", "projective"}, id="a set"),
    ],
    ids=repr,
)
def test_fewer_than_two_transforms(transforms):
    with pytest.raises(ValueError, match=r"^transforms is .*: expected two or more transforms"):
        Chain(transforms)


@pytest.mark.parametrize(
    "transforms",
    [
        [ThinPlateSpline(3), Affine()],
        [Affine(), ThinPlateSpline(3), Affine()],
        [Chain([Affine(), ThinPlateSpline(3)]), Affine()],
        [Chain([Affine(), Chain([Affine(), ThinPlateSpline(3)])]), Affine()],
    ],
    ids=repr,
)
def test_a_spline_that_does_not_stand_last(transforms):
    with pytest.raises(ValueError, match="cannot map single points: in a chain it can only stand"):
        Chain(transforms)


def test_members_that_are_no_transforms():
    with pytest.raises(ValueError, match="transform is 'bend': expected a Transform or one of"):
        Chain(["affine", "bend"])
    with pytest.raises(ValueError, match="Pinch, whose class is not registered"):
        Chain([Affine(), Pinch()])
    with pytest.raises(ValueError, match="dense_flow"):
        Chain(["affine", "dense_flow"])  # takes a size


@pytest.mark.parametrize("shape", [(2, 7), (2, 9), (8,), (2, 2, 4)], ids=str)
def test_theta_of_another_width(shape):
    chain = Chain([Affine(), Translation()])
    with pytest.raises(ValueError, match=r"theta has shape .*: Chain takes \[batch, 8\]"):
        chain.grid(np.zeros(shape, np.float32), SIZE)


def test_no_inverse_and_no_composition():
    chain = Chain([Affine(), Translation()])
    theta = chain.identity()[np.newaxis]
    with pytest.raises(ValueError, match="Chain has no inverse in closed form"):
        chain.inverse(theta)
    with pytest.raises(ValueError, match="Chain cannot be composed into one theta"):
        chain.compose(theta, theta)
