"""Bounds, configurations, equality, and what transforms refuse."""

from __future__ import annotations

import json
import re

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
    ThetaHead,
    ThinPlateSpline,
    Translation,
    pixel_matrix_to_theta,
    theta_to_pixel_matrix,
    transform_names,
)
from stnkit.models.transforms import MatrixTransform, as_transform
from stnkit.models.transforms.registry import describe

MAKERS = {
    "translation": Translation,
    "attention": Attention,
    "similarity": Similarity,
    "affine": Affine,
    "projective": Projective,
    "thin_plate_spline": lambda bounds=None: ThinPlateSpline(3, bounds=bounds),
    "dense_flow": lambda bounds=None: DenseFlow((3, 4), bounds=bounds),
    "diffeomorphic_flow": lambda bounds=None: DiffeomorphicFlow((3, 4), 5, bounds=bounds),
}
every_name = pytest.mark.parametrize("name", list(MAKERS))


def refused(*parts):
    """Expect a ValueError of one line that has every part, in this order."""
    pattern = ".*".join(re.escape(part) for part in parts)
    return pytest.raises(ValueError, match=f"^[^\\n]*{pattern}[^\\n]*$")


def each_its_own(transform):
    return [0.1 + 0.05 * index for index in range(transform.num_params)]


def test_every_transform_is_known_by_name():
    assert transform_names() == (*MAKERS, "chain")
    for name, make in MAKERS.items():
        assert make().name == name


# ---- bounds ----


@every_name
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("raw", [1e30, -1e30, 3e38, np.inf, -np.inf, 50.0, -0.3])
def test_bounds_hold_for_any_raw_theta(name, several, raw):
    bounds = each_its_own(MAKERS[name]()) if several else 0.25
    transform = MAKERS[name](bounds)
    theta = transform.bounded(tf.fill((2, *transform.theta_shape), tf.constant(raw))).numpy()
    assert theta.shape == (2, *transform.theta_shape)
    distance = np.abs(theta.astype(np.float64) - transform.identity())
    limit = np.reshape(np.broadcast_to(bounds, transform.num_params), transform.theta_shape)
    assert (distance <= limit + 1e-6).all()
    if abs(raw) >= 50:  # as far as they go, and each to its own bound
        assert (distance >= limit - 1e-6).all()
        assert (np.sign(theta - transform.identity()) == np.sign(raw)).all()


@every_name
def test_bounds_leave_the_identity_and_change_small_values_little(name):
    transform = MAKERS[name](0.5)
    identity = transform.identity()
    assert np.array_equal(transform.bounded(tf.constant(identity[None]))[0], identity)
    near = identity + np.float32(0.05)
    assert np.abs(transform.bounded(tf.constant(near[None]))[0] - near).max() < 2e-4


def test_bounds_are_those_of_the_formula():
    transform = Attention(bounds=[0.5, 0.2, 0.1])
    raw = np.array([[1.3, -0.1, 0.4]])
    expected = [1, 0, 0] + np.array([0.5, 0.2, 0.1]) * np.tanh([0.3 / 0.5, -0.1 / 0.2, 0.4 / 0.1])
    assert np.abs(transform.bounded(tf.constant(raw)).numpy()[0] - expected).max() < 1e-15


@every_name
def test_without_bounds_raw_parameters_are_theta(name):
    raw = tf.constant([[1e30, np.nan]])
    assert MAKERS[name]().bounded(raw) is raw


@every_name
def test_bounds_hold_in_the_theta_head(name):
    transform = MAKERS[name](0.25)
    head = ThetaHead(transform)
    features = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
    start = head(features).numpy()
    assert np.array_equal(start, np.tile(transform.identity(), (4, *[1] * (start.ndim - 1))))
    kernel, bias = head.get_weights()
    head.set_weights([np.random.default_rng(2).normal(0, 1e6, kernel.shape), bias])
    moved = head(features).numpy()
    assert np.abs(moved - transform.identity()).max() <= 0.25 + 1e-6
    assert np.ptp(moved) > 0.4


@every_name
@pytest.mark.parametrize(
    "bounds",
    [0, -1, 0.0, np.nan, np.inf, "wide", {}, [], [0.1], [[0.1]], [0.1, -0.1], [None] * 2],
    ids=repr,
)
def test_bad_bounds(name, bounds):
    owner = type(MAKERS[name]()).__name__
    with refused(f"bounds of {owner} are {bounds!r}", "expected one positive number, or"):
        MAKERS[name](bounds)


def test_bounds_of_another_number_of_parameters():
    with refused("bounds of Affine", "[1, 1, 1, 1, 1]", "or 6 of them"):
        Affine([1, 1, 1, 1, 1])


# ---- configuration and equality ----


@every_name
@pytest.mark.parametrize("kind", ["unbounded", "one", "several"])
def test_described_and_made_again(name, kind):
    plain = MAKERS[name]()
    bounds = {"unbounded": None, "one": 0.25, "several": each_its_own(plain)}[kind]
    transform = MAKERS[name](bounds)
    again = as_transform(json.loads(json.dumps(describe(transform))))
    assert type(again) is type(transform)
    assert again == transform
    assert hash(again) == hash(transform)
    assert again.get_config() == transform.get_config()
    assert repr(again) == repr(transform)
    assert (again == plain) == (bounds is None)
    theta = transform.identity()[None] + np.float32(0.1)
    assert np.array_equal(again.grid(theta, (3, 4)), transform.grid(theta, (3, 4)))
    assert np.array_equal(again.bounded(tf.constant(theta)), transform.bounded(tf.constant(theta)))


def test_one_bound_stays_one_number():
    assert DenseFlow((64, 64), bounds=0.1).get_config()["bounds"] == 0.1


def test_transforms_that_differ_are_not_equal():
    transforms = [
        *[make() for make in MAKERS.values()],
        *[make(0.25) for make in MAKERS.values()],
        ThinPlateSpline(4),
        DenseFlow((4, 3)),
        DiffeomorphicFlow((3, 4), 7),
    ]
    assert len(set(transforms)) == len(transforms)
    assert Affine() != "affine"
    assert Affine() == Affine()


def test_what_stands_for_a_transform():
    transform = ThinPlateSpline(5)
    assert as_transform(transform) is transform
    assert as_transform("thin_plate_spline") == ThinPlateSpline(4)
    assert as_transform({"name": "thin_plate_spline", "points": 5}) == transform
    for name in ("translation", "attention", "similarity", "affine", "projective"):
        assert isinstance(as_transform(name), MatrixTransform)
    config = describe(transform)
    as_transform(config)
    assert config == describe(transform)


# ---- what is refused ----


@pytest.mark.parametrize(
    "given", ["rotation", "Affine", "", None, 6, ["affine"], {}, {"name": 1}, Affine], ids=repr
)
def test_unknown_transform(given):
    with refused("transform is", repr(given), "expected a Transform or one of 'translation'"):
        as_transform(given)


@pytest.mark.parametrize("name", ["dense_flow", "diffeomorphic_flow"])
def test_flow_by_name_alone_needs_a_size(name):
    owner = type(MAKERS[name]()).__name__
    with refused(f"transform {name!r} cannot be made from {{}}", f"{owner}(size=(28, 28))"):
        as_transform(name)


def test_arguments_that_a_transform_does_not_take():
    with refused("transform 'affine' cannot be made from {'points': 3}", "e.g. Affine()"):
        as_transform({"name": "affine", "points": 3})


@pytest.mark.parametrize("points", [1, 0, -2, 2.0, True, None, "4"], ids=repr)
def test_bad_points(points):
    with refused(f"points is {points!r}", "expected", "at least 2"):
        ThinPlateSpline(points)


@pytest.mark.parametrize("steps", [0, -1, 7.0, True, None, "7"], ids=repr)
def test_bad_steps(steps):
    with refused(f"steps is {steps!r}", "expected", "at least 1"):
        DiffeomorphicFlow((3, 4), steps)


@pytest.mark.parametrize("size", [(0, 3), (3, -1), (3,), 3, (2.0, 3), "34", None], ids=repr)
@pytest.mark.parametrize("make", [DenseFlow, DiffeomorphicFlow])
def test_bad_field_size(make, size):
    with refused("size is", str(size), "expected (height, width)"):
        make(size)


@every_name
@pytest.mark.parametrize("size", [(0, 3), (3,), "34", None], ids=repr)
def test_bad_output_size(name, size):
    transform = MAKERS[name]()
    with refused("output_size is", str(size), "expected (height, width)"):
        transform.grid(transform.identity()[None], size)


@every_name
def test_theta_of_another_shape(name):
    transform = MAKERS[name]()
    shape, count = transform.theta_shape, transform.num_params
    wanted = f"{type(transform).__name__} takes [batch, {', '.join(map(str, shape))}]"
    for wrong in [(2, count + 1), (2, count - 1), (*shape,), (2, *shape, 1), (count,), ()]:
        with refused(f"theta has shape {wrong}", wanted, f"[batch, {count}]"):
            transform.grid(np.zeros(wrong, np.float32), (3, 3))


@every_name
@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64"])
def test_theta_that_is_not_of_a_float_type(name, dtype):
    transform = MAKERS[name]()
    with refused(f"theta has dtype {dtype}", "expected a float type"):
        transform.grid(np.zeros((1, *transform.theta_shape), dtype), (3, 3))


@pytest.mark.parametrize("shape", [(2, 2), (4, 4), (7,), (1, 2, 3), (9,), ()], ids=str)
def test_matrix_of_another_shape(shape):
    with refused(f"theta has shape {shape}", "expected one matrix, (2, 3), (3, 3)"):
        theta_to_pixel_matrix(np.ones(shape), (4, 4), (4, 4))
    with refused(f"matrix has shape {shape}", "expected one matrix, (2, 3), (3, 3)"):
        pixel_matrix_to_theta(np.ones(shape), (4, 4), (4, 4))


@pytest.mark.parametrize("convert", [theta_to_pixel_matrix, pixel_matrix_to_theta])
def test_matrix_of_images_without_pixels(convert):
    with refused("input_size is (0, 4)", "expected (height, width)"):
        convert(np.eye(3), (0, 4), (4, 4))
    with refused("output_size is (4, -1)", "expected (height, width)"):
        convert(np.eye(3), (4, 4), (4, -1))


def test_matrix_whose_theta_has_no_last_entry_of_one():
    horizon_in_the_centre = [[1, 0, 0], [0, 1, 0], [1, 0, -1.5]]
    with refused("maps the centre of the output to infinity", "expected"):
        pixel_matrix_to_theta(horizon_in_the_centre, (4, 4), (4, 4))


def test_pixel_matrix_by_hand():
    """A shift by 2 / width is one pixel; half the scale reads a crop of half the width."""
    shift = theta_to_pixel_matrix([[1, 0, 2 / 8], [0, 1, -2 / 4]], (4, 8), (4, 8))
    assert np.allclose(shift, [[1, 0, 1], [0, 1, -1], [0, 0, 1]], rtol=0, atol=1e-15)
    halved = theta_to_pixel_matrix(np.eye(2, 3), (8, 8), (4, 4))
    assert np.allclose(halved, [[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]], rtol=0, atol=1e-15)
    corners = theta_to_pixel_matrix(np.eye(2, 3), (9, 9), (5, 5), align_corners=True)
    assert np.allclose(corners, [[2, 0, 0], [0, 2, 0], [0, 0, 1]], rtol=0, atol=1e-15)
    one = theta_to_pixel_matrix(np.eye(2, 3), (9, 9), (1, 1), align_corners=True)
    assert np.array_equal(one @ [0, 0, 1], [4, 4, 1])
