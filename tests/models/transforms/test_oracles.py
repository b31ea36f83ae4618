"""The transforms against OpenCV, SciPy, kornia and PyTorch, by vectors made in advance."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stnkit.models import (
    Affine,
    DiffeomorphicFlow,
    Projective,
    ThinPlateSpline,
    grid_sample,
    pixel_matrix_to_theta,
    theta_to_pixel_matrix,
)

ORACLES = Path(__file__).parents[2] / "oracles"
VECTORS = np.load(ORACLES / "transform_vectors.npz")
TORCH = np.load(ORACLES / "grid_sample_vectors.npz")
every_alignment = pytest.mark.parametrize("align_corners", [False, True])


def names(kind, vectors=VECTORS):
    found = {"_".join(key.split("_")[:2]) for key in vectors if key.startswith(f"{kind}_")}
    assert found
    return sorted(found)


def pixels_of(grid, size, align_corners):
    """Return a normalised grid [..., 2] in pixels of an image of `(height, width)`."""
    sides = np.array(size[::-1], np.float64)
    if align_corners:
        return (grid + 1) / 2 * (sides - 1)
    return ((grid + 1) * sides - 1) / 2


def case(name):
    """Return the image [1, height, width, 1], the output size and the pixel matrix of a warp."""
    image = VECTORS[f"{name}_image"][None, ..., None]
    return image, tuple(VECTORS[f"{name}_size"].tolist()), VECTORS[f"{name}_matrix"]


def grid_of(theta, output, align_corners):
    """Return the grid of a homography [3, 3], through the family that it belongs to."""
    if np.array_equal(theta[2], [0, 0, 1]):
        return Affine().grid(theta[None, :2].astype(np.float32), output, align_corners)
    return Projective().grid(theta.ravel()[None, :8].astype(np.float32), output, align_corners)


def has_a_theta(name, align_corners):
    """Say whether pixels can be normalised: one pixel between its own centres has no width."""
    image, output, _ = case(name)
    return not align_corners or 1 not in (*image.shape[1:3], *output)


every_warp = pytest.mark.parametrize(
    ("name", "align_corners"),
    [
        (name, align_corners)
        for name in names("warp")
        for align_corners in (False, True)
        if has_a_theta(name, align_corners)
    ],
)


def test_the_vectors_say_where_they_come_from():
    provenance = json.loads(str(VECTORS["provenance"]))
    assert {"opencv", "scipy", "kornia", "torch", "seed"} <= set(provenance)
    projective = [name for name in names("warp") if case(name)[2][2, :2].any()]
    assert 0 < len(projective) < len(names("warp"))


@every_warp
def test_grid_reads_the_pixels_that_opencv_reads(name, align_corners, assert_close):
    image, output, matrix = case(name)
    size = image.shape[1:3]
    theta = pixel_matrix_to_theta(matrix, size, output, align_corners)
    grid = grid_of(theta, output, align_corners).numpy().reshape(-1, 2)
    assert_close(pixels_of(grid, size, align_corners), VECTORS[f"{name}_points"], 2e-5)


MODES = {
    "zeros": ("bilinear", "zeros", False),
    "border": ("bilinear", "border", False),
    "reflection": ("bilinear", "reflection", False),
    "mirrored": ("bilinear", "reflection", True),
    "nearest": ("nearest", "zeros", False),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in names("warp") for kind in MODES if has_a_theta(name, MODES[kind][2])],
)
def test_warped_image_equals_warp_affine_and_warp_perspective(name, kind, assert_close, tolerances):
    image, output, matrix = case(name)
    mode = MODES[kind]
    theta = pixel_matrix_to_theta(matrix, image.shape[1:3], output, mode[2])
    received = grid_sample(image, grid_of(theta, output, mode[2]), *mode).numpy()[0, ..., 0]
    assert_close(received, VECTORS[f"{name}_{kind}"], tolerances.sample)


@every_warp
def test_pixel_matrix_and_theta_are_converted_both_ways(name, align_corners):
    image, output, matrix = case(name)
    sizes = (image.shape[1:3], output, align_corners)
    theta = pixel_matrix_to_theta(matrix, *sizes)
    assert theta.dtype == np.float64
    assert theta[2, 2] == 1
    back = theta_to_pixel_matrix(theta, *sizes)
    assert np.abs(back / back[2, 2] - matrix).max() < 1e-12
    # Every form that theta has, and matrices that are the same but for a factor.
    for form in (theta, theta.ravel()[:8]):
        assert np.allclose(theta_to_pixel_matrix(form, *sizes), back, rtol=0, atol=1e-14)
    assert np.allclose(pixel_matrix_to_theta(-3 * matrix, *sizes), theta, rtol=0, atol=1e-12)
    if not matrix[2, :2].any():
        for form in (theta[:2], theta[:2].ravel()):
            assert np.array_equal(theta_to_pixel_matrix(form, *sizes), back)
        assert np.array_equal(pixel_matrix_to_theta(matrix[:2], *sizes), theta)


@every_alignment
@pytest.mark.parametrize("name", names("corners"))
def test_four_corners_go_where_opencv_sends_them(name, align_corners, assert_close):
    """A theta from `getPerspectiveTransform`, read at the four corner pixels alone."""
    source, read = VECTORS[f"{name}_from"], VECTORS[f"{name}_to"]
    size = tuple(int(side) + 1 for side in source.max(axis=0)[::-1])
    theta = pixel_matrix_to_theta(VECTORS[f"{name}_matrix"], size, size, align_corners)
    grid = grid_of(theta, size, align_corners).numpy()[0]
    corners = grid[[0, 0, -1, -1], [0, -1, -1, 0]]
    assert_close(pixels_of(corners, size, align_corners), read, 1e-4)


@pytest.mark.parametrize("name", names("kornia"))
def test_homography_equals_kornia(name, assert_close, tolerances):
    image = VECTORS[f"{name}_image"][None, ..., None]
    output = tuple(VECTORS[f"{name}_size"].tolist())
    theta = VECTORS[f"{name}_theta"]
    grid = grid_of(theta, output, True)
    received = grid_sample(image, grid, "bilinear", "zeros", True).numpy()[0, ..., 0]
    assert_close(received, VECTORS[f"{name}_values"], tolerances.sample)
    pixels = theta_to_pixel_matrix(theta, image.shape[1:3], output, True)
    assert np.abs(pixels / pixels[2, 2] - VECTORS[f"{name}_pixels"]).max() < 1e-9


@every_alignment
@pytest.mark.parametrize("name", names("spline"))
def test_spline_equals_scipy(name, align_corners, assert_close):
    theta, expected = VECTORS[f"{name}_theta"], VECTORS[f"{name}_values"][int(align_corners)]
    spline = ThinPlateSpline(int(len(theta) ** 0.5))
    received = spline.grid(theta[None], expected.shape[:2], align_corners).numpy()[0]
    assert_close(received, expected, 1e-5 if len(theta) <= 25 else 5e-5)


@every_alignment
@pytest.mark.parametrize("name", names("affine", TORCH))
def test_affine_equals_torch(name, align_corners, assert_close, tolerances):
    expected = TORCH[f"{name}_values"][int(align_corners)]
    theta = TORCH[f"{name}_theta"]
    received = Affine().grid(theta, expected.shape[1:3], align_corners).numpy()
    assert_close(received, expected, tolerances.grid)
    flat = np.concatenate([theta.reshape(-1, 6), np.zeros((len(theta), 2), np.float32)], axis=1)
    projective = Projective().grid(flat, expected.shape[1:3], align_corners).numpy()
    assert_close(projective, expected, tolerances.grid)


@every_alignment
@pytest.mark.parametrize("name", names("flow"))
def test_flow_of_a_linear_field_is_the_matrix_exponential(name, align_corners, assert_close):
    """Bilinear interpolation is exact for it, and it contracts: the border is never crossed."""
    velocity, flow = VECTORS[f"{name}_velocity"], VECTORS[f"{name}_matrix"]
    size = (9, 12)
    identity = Affine().grid(np.eye(2, 3, dtype=np.float32)[None], size, align_corners).numpy()
    points = np.concatenate([identity, np.ones_like(identity[..., :1])], axis=-1)
    field = (points @ velocity.T).astype(np.float32)
    received = DiffeomorphicFlow(size).grid(field, size, align_corners).numpy()
    assert_close(received, points @ flow.T, 1e-5)
    # What is left is the first step's: of second order, a quarter with every squaring more.
    coarse = [DiffeomorphicFlow(size, steps).grid(field, size, align_corners) for steps in (3, 4)]
    errors = [np.abs(grid - points @ flow.T).max() for grid in coarse]
    assert 1e-4 < errors[1] < 4e-4
    assert errors[0] == pytest.approx(4 * errors[1], rel=0.2)
