"""Thetas that transformers are driven with, and where they read."""

from __future__ import annotations

import numpy as np
import pytest

from stnkit.runtime.equivalence.thetas import driven_thetas, family, grid_points, outline
from stnkit.runtime.equivalence.views import theta_error_px

CORNERS = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        ((2,), "translation"),
        ((3,), "attention"),
        ((4,), "similarity"),
        ((6,), "affine"),
        ((2, 3), "affine"),
        ((8,), "projective"),
        ((16, 2), "thin_plate_spline"),
        ((7, 5, 2), "flow"),
        ((5,), None),
        ((15, 2), None),
        ((2, 2, 2, 2), None),
    ],
)
def test_family_by_shape(shape, name):
    assert family(shape) == name


@pytest.mark.parametrize(
    ("theta", "expected"),
    [
        ([0.5, -0.25], CORNERS + np.array([0.5, -0.25])),
        ([0.5, 0.1, 0.2], 0.5 * CORNERS + [0.1, 0.2]),
        # A quarter turn: (x, y) -> (-y, x).
        ([0, 1, 0, 0], np.stack([-CORNERS[:, 1], CORNERS[:, 0]], 1)),
        ([[0, -1, 0.5], [1, 0, 0]], np.stack([-CORNERS[:, 1] + 0.5, CORNERS[:, 0]], 1)),
        ([1, 0, 0, 0, 1, 0, 0.5, 0], CORNERS / (1 + 0.5 * CORNERS[:, :1])),
    ],
)
def test_where_points_are_read(theta, expected):
    np.testing.assert_allclose(grid_points(np.array(theta), CORNERS), expected, atol=1e-12)


def test_a_spline_has_no_matrix_and_an_outline_of_its_outer_points():
    x, y = np.meshgrid([-1, 0, 1], [-1, 0, 1])
    theta = np.stack([x.ravel(), y.ravel()], 1).astype(np.float32)
    assert grid_points(theta, CORNERS) is None
    found = outline(theta)
    assert found.shape == (8, 2)
    assert [0, 0] not in found.tolist()


def test_the_outline_goes_once_around():
    found = outline(np.array([[1, 0, 0], [0, 1, 0]], np.float32), steps=3)
    assert found.tolist() == [
        [-1, -1], [0, -1], [1, -1], [1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0]
    ]  # fmt: skip


class TestDriven:
    def test_affine_has_everything(self):
        groups = driven_thetas((2, 3), (20, 10), np.zeros((1, 2, 3)), 0)
        usual, extreme = groups["usual"], groups["extreme"]
        assert set(usual) == {
            "identity", "flip_x", "flip_y", "rotate_90", "rotate_30", "half_pixel", "zoom_in",
            "zoom_out", "shear",
        }  # fmt: skip
        assert set(extreme) == {"far_out", "zero_scale", "nan", "infinite"}
        # All are off by a little, so that nothing lies exactly between two pixels.
        np.testing.assert_allclose(usual["flip_x"], [[-1, 0, 3.1e-4], [0, 1, 2.3e-4]], atol=1e-7)
        # Half a pixel is 1/width and 1/height of the normalised frame of length 2.
        half = [[1, 0, 0.1 + 3.1e-4], [0, 1, 0.05 + 2.3e-4]]
        np.testing.assert_allclose(usual["half_pixel"], half, atol=1e-7)
        assert np.isnan(extreme["nan"]).all()
        np.testing.assert_array_equal(extreme["infinite"], [[1, 0, np.inf], [0, 1, -np.inf]])
        assert groups["huge"]["huge"][0, 0] == 1e6

    @pytest.mark.parametrize("shape", [(2,), (3,), (4,), (6,), (8,)])
    def test_other_matrices_have_what_they_can_express(self, shape):
        groups = driven_thetas(shape, (8, 8), np.zeros((1, *shape)), 0)
        assert {"identity", "half_pixel"} <= set(groups["usual"])
        assert ("rotate_90" in groups["usual"]) == (shape in ((4,), (6,), (8,)))
        assert ("zoom_in" in groups["usual"]) == (shape != (2,))
        assert ("horizon" in groups["extreme"]) == (shape == (8,))
        for thetas in groups.values():
            assert all(theta.shape == shape for theta in thetas.values())

    @pytest.mark.parametrize("shape", [(9, 2), (4, 3, 2), (13,)])
    def test_what_is_no_matrix_is_moved_about_what_was_seen(self, shape):
        seen = np.full((2, *shape), 0.25, np.float32)
        groups = driven_thetas(shape, (8, 8), seen, 0)
        gap = np.abs(groups["usual"]["random"] - 0.25)
        assert 0 < gap.max() <= 0.1
        again = driven_thetas(shape, (8, 8), seen, 0)
        np.testing.assert_array_equal(again["usual"]["random"], groups["usual"]["random"])
        assert np.isnan(groups["extreme"]["nan"]).all()


class TestPixels:
    def test_a_shift_of_theta_is_a_shift_in_pixels(self):
        first = np.array([[[1, 0, 0], [0, 1, 0]]], np.float32)
        second = first + np.array([[0, 0, 0.1], [0, 0, 0]], np.float32)
        # 0.1 of a frame of length 2 is a twentieth of the width.
        assert theta_error_px(first, second, (30, 40)) == pytest.approx(2.0, rel=1e-6)

    def test_a_scale_is_largest_at_the_corners(self):
        first = np.array([[1, 0, 0], [0.9, 0, 0]], np.float32)
        second = np.array([[1, 0, 0], [1.0, 0, 0]], np.float32)
        assert theta_error_px(first, second, (20, 20)) == pytest.approx(np.hypot(1, 1), rel=1e-5)

    def test_a_flow_moves_its_own_points(self):
        first = np.zeros((1, 3, 4, 2), np.float32)
        second = first.copy()
        second[0, 1, 2] = 0.5, 0
        assert theta_error_px(first, second, (10, 8)) == pytest.approx(2.0)

    def test_unknown_families_have_no_pixels(self):
        assert theta_error_px(np.zeros((1, 5)), np.ones((1, 5)), (8, 8)) is None
