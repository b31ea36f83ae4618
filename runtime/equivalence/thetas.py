"""Thetas that a transformer is given to see what it does with them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["driven_thetas", "family", "grid_points", "outline", "spline_reach"]

_HUGE = 1e6
# Thetas are shifted by a little: at half a pixel exactly, a sampler that takes the
# nearest pixel may take either, and two faithful ones differ by a whole pixel.
_NUDGE = (3.1e-4, 2.3e-4)
_MATRIX_FAMILIES = {(2,): "translation", (3,): "attention", (4,): "similarity"} | {
    (2, 3): "affine",
    (6,): "affine",
    (8,): "projective",
}


def family(shape: tuple[int, ...]) -> str | None:
    """Return the family of transforms that a theta of this shape, without batch, belongs to.

    Returns:
        "translation", "attention", "similarity", "affine", "projective", "thin_plate_spline" or
        "flow"; None where the shape says nothing.
    """
    if shape in _MATRIX_FAMILIES:
        return _MATRIX_FAMILIES[shape]
    if len(shape) == 2 and shape[1] == 2 and math.isqrt(shape[0]) ** 2 == shape[0] >= 4:
        return "thin_plate_spline"
    if len(shape) == 3 and shape[2] == 2:
        return "flow"
    return None


def driven_thetas(
    shape: tuple[int, ...], size_px: tuple[int, int], seen: Any, seed: int
) -> dict[str, dict[str, Any]]:
    """Return thetas to give to a transformer, in groups: those of one group are run together.

    "usual" holds what may well happen: identity, flips, 90 degrees, half a pixel, zoom in and out,
    each off by 0.0003 of half the side, so that no point lies exactly between two pixels.
    "extreme" holds what must not break anything: far outside, zero scale, NaN and infinity; "huge"
    stands alone, because at a coordinate of a million nothing finer than a pixel can be told.

    Args:
        shape: shape of one theta.
        size_px: `(height, width)` of the warped image, px.
        seen: `[n, *shape]` thetas that the model itself computed.
        seed: seed of the random ones.

    Returns:
        Group -> label -> theta, `shape` float32.
    """
    found = family(shape)
    if found in ("translation", "attention", "similarity", "affine", "projective"):
        groups = _matrices(size_px)
        return {
            group: {
                label: params
                for label, matrix in matrices.items()
                if (params := _parameters(matrix, found, shape)) is not None
            }
            for group, matrices in groups.items()
        }
    rng = np.random.default_rng([seed, 77])
    first = np.asarray(seen[0], np.float32)
    identity = (_identity(shape) if found else first) + np.float32(_NUDGE[0])
    half_px = np.float32(1 / size_px[1])
    spread = np.float32(0.1)
    usual = {
        "identity": identity,
        "half_pixel": identity + half_px,
        "random": first + rng.uniform(-spread, spread, shape).astype(np.float32),
    }
    extreme = {
        "far_out": identity + np.float32(10),
        "zero": np.full(shape, _NUDGE[0], np.float32),
        "nan": np.full(shape, np.nan, np.float32),
    }
    return {"usual": usual, "extreme": extreme}


def _identity(shape: tuple[int, ...]) -> Any:
    if len(shape) == 3:
        return np.zeros(shape, np.float32)
    side = math.isqrt(shape[0])
    axis = np.linspace(-1, 1, side)
    x, y = np.meshgrid(axis, axis)
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


def _matrices(size_px: tuple[int, int]) -> dict[str, dict[str, Any]]:
    height, width = size_px

    def matrix(a: float, b: float, c: float, d: float, x: float = 0, y: float = 0) -> Any:
        return np.array([[a, b, x], [c, d, y], [0, 0, 1]], np.float64)

    tilted = matrix(1, 0.1, -0.1, 1)
    tilted[2, :2] = 0.2, -0.1
    horizon = matrix(1, 0, 0, 1, *_NUDGE)
    # w = 0 runs through the image, and through no pixel's centre: there, rounding would decide.
    horizon[2, :2] = 1.3717, 0.8391
    usual = {
        "identity": matrix(1, 0, 0, 1),
        "flip_x": matrix(-1, 0, 0, 1),
        "flip_y": matrix(1, 0, 0, -1),
        "rotate_90": matrix(0, -1, 1, 0),
        "rotate_30": matrix(0.866, -0.5, 0.5, 0.866),
        "half_pixel": matrix(1, 0, 0, 1, 1 / width, 1 / height),
        "zoom_in": matrix(0.5, 0, 0, 0.5, 0.2, -0.1),
        "zoom_out": matrix(2, 0, 0, 2),
        "shear": matrix(0.9, 0.3, -0.2, 1.1, 0.15, -0.25),
        "perspective": tilted,
    }
    for theta in usual.values():
        theta[:2, 2] += _NUDGE
    extreme = {
        "far_out": matrix(1, 0, 0, 1, 10, -10),
        "zero_scale": matrix(0, 0, 0, 0, *_NUDGE),
        "nan": np.full((3, 3), np.nan),
        # Shifts alone: plain kernels of TFLite hold an infinity at the largest float, so that one
        # less another is 0 there and NaN elsewhere.
        "infinite": matrix(1, 0, 0, 1, np.inf, -np.inf),
        "horizon": horizon,
    }
    return {"usual": usual, "extreme": extreme, "huge": {"huge": matrix(_HUGE, 0, 0, _HUGE)}}


def _parameters(matrix: Any, name: str, shape: tuple[int, ...]) -> Any:
    """Return the theta of a matrix in a family, or None where it is not in the family."""
    m = matrix
    if np.isnan(m).all():
        return np.full(shape, np.nan, np.float32)
    flat = name != "projective" and bool(m[2, :2].any())
    values: list[float] | None = None
    if name == "affine" and not flat:
        values = [*m[0], *m[1]]
    elif name == "projective":
        values = [*m.ravel()[:8]]
    elif name == "translation" and np.array_equal(m[:2, :2], np.eye(2)) and not flat:
        values = [m[0, 2], m[1, 2]]
    elif name == "attention" and np.array_equal(m[:2, :2], m[0, 0] * np.eye(2)) and not flat:
        values = [m[0, 0], m[0, 2], m[1, 2]]
    elif name == "similarity" and m[0, 0] == m[1, 1] and m[0, 1] == -m[1, 0] and not flat:
        values = [m[0, 0], m[1, 0], m[0, 2], m[1, 2]]
    return None if values is None else np.array(values, np.float32).reshape(shape)


def grid_points(theta: Any, points: Any) -> Any | None:
    """Return where a theta reads points, float64; None where its family is not known.

    Args:
        theta: one theta, of any shape that `family` knows.
        points: `[n, 2]` (x, y), normalised.
    """
    theta = np.asarray(theta, np.float64)
    name = family(theta.shape)
    x, y = points[:, 0], points[:, 1]
    if name == "translation":
        return points + theta
    if name == "attention":
        return theta[0] * points + theta[1:]
    if name == "similarity":
        a, b, tx, ty = theta
        return np.stack([a * x - b * y + tx, b * x + a * y + ty], axis=1)
    if name in ("affine", "projective"):
        full = np.append(theta.ravel(), [0, 0, 1] if name == "affine" else [1]).reshape(3, 3)
        u, v, w = full @ np.stack([x, y, np.ones_like(x)])
        with np.errstate(all="ignore"):
            return np.stack([u / w, v / w], axis=1)
    return None


def spline_reach(theta: Any) -> float:
    """Return the size of the numbers that a thin plate spline adds up to a coordinate, at most.

    They cancel: the sum may be small where each of them is large, and its rounding with them.

    Args:
        theta: `[K * K, 2]`, where control points on a regular grid are read.

    Source:
        Bookstein 1989, Principal Warps; U(r) = r^2 log r^2.
    """
    control = _identity(theta.shape).astype(np.float64)
    count = len(control)

    def radial(points: Any) -> Any:
        squared = ((points[:, None] - control[None]) ** 2).sum(-1)
        return squared * np.log(np.maximum(squared, 1e-30))

    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = radial(control)
    system[:count, count:] = np.column_stack([np.ones(count), control])
    system[count:, :count] = system[:count, count:].T
    known = np.vstack([np.asarray(theta, np.float64) - control, np.zeros((3, 2))])
    coefficients = np.abs(np.linalg.solve(system, known))
    axis = np.linspace(-1, 1, 9)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    parts = np.column_stack([np.abs(radial(points)), np.ones(len(points)), np.abs(points)])
    return 1 + float((parts @ coefficients).max())


def outline(theta: Any, steps: int = 8) -> Any | None:
    """Return where the border of the output is read in the input, `[n, 2]` float32.

    For a thin plate spline these are its outer control points. None where the family is not known,
    and for flows, which have no outline of few points.
    """
    theta = np.asarray(theta)
    name = family(theta.shape)
    if name == "thin_plate_spline":
        side = math.isqrt(theta.shape[0])
        grid = theta.reshape(side, side, 2)
        border = np.concatenate([grid[0], grid[1:, -1], grid[-1, -2::-1], grid[-2:0:-1, 0]])
        return border.astype(np.float32)
    line = np.linspace(-1, 1, steps)
    edge = np.concatenate(
        [
            np.stack([line, np.full(steps, -1.0)], 1),
            np.stack([np.full(steps, 1.0), line], 1)[1:],
            np.stack([line[::-1], np.full(steps, 1.0)], 1)[1:],
            np.stack([np.full(steps, -1.0), line[::-1]], 1)[1:-1],
        ]
    )
    points = grid_points(theta, edge)
    return None if points is None else points.astype(np.float32)
