"""Seeded inputs for the sampler and the grid generator, in NumPy alone.

Both the generator of the stored vectors and the tests that ask a live oracle draw from here.
Everything is written for any number of spatial axes: a volume is one more entry in `spatial`.

Convention:
    Images are [batch, *spatial, channels] float32 in [0, 1). Grids are [batch, *output, n] float32
    for n spatial axes; the last axis is in (x, y, …) order, the reverse of `spatial`, and is
    normalised to [-1, 1]. A pixel coordinate is `((g + 1) * size - 1) / 2`, or
    `(g + 1) / 2 * (size - 1)` with align_corners.

Two kinds of case:
    smooth: coordinates keep away from every kink (pixel centres, half pixels, borders and
        mirrors are all multiples of half a pixel), so gradients exist and rounding cannot flip a
        nearest neighbour.
    exact: coordinates on multiples of half a pixel or far outside, with sizes and coordinates
        chosen so that float32 computes them without rounding. Ties of nearest and borders are
        then real ties and real borders. Gradients are not defined there: values alone.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

INTERPOLATIONS = ("bilinear", "nearest", "bicubic")
PADDING_MODES = ("zeros", "border", "reflection")
MODES: tuple[tuple[str, str, bool], ...] = tuple(
    itertools.product(INTERPOLATIONS, PADDING_MODES, (False, True))
)
"""Every (interpolation, padding_mode, align_corners) of an image."""

VOLUME_MODES: tuple[tuple[str, str, bool], ...] = tuple(
    mode for mode in MODES if mode[0] != "bicubic"
)
"""Every (interpolation, padding_mode, align_corners) of a volume."""

KINK_MARGIN_PX = 2e-3
"""Smooth coordinates keep this far from a multiple of half a pixel: over 100 times the rounding
of a float32 pixel coordinate in these small images."""

FAR = (1000.0, -1000.0, 1000.125, -999.5, 64.0, -64.25)
"""Far coordinates of few enough bits that `(g + 1) * size` is exact in float32."""


@dataclass(frozen=True)
class Case:
    """One image and the grid to sample it with.

    Attributes:
        image: [batch, *spatial, channels] float32 in [0, 1).
        grid: [batch, *output, n] float32, last axis (x, y, …), normalised.
        upstream: [batch, *output, channels] float32 in [-1, 1), the weights of the sum whose
            gradients are compared.
    """

    image: Array
    grid: Array
    upstream: Array


def pixel_coordinate(
    coordinate: npt.ArrayLike, size: int, align_corners: bool
) -> npt.NDArray[np.float64]:
    """Return the float64 pixel coordinate of a normalised one; 0 is the first pixel's centre."""
    normalised = np.asarray(coordinate, np.float64)
    if align_corners:
        return (normalised + 1) / 2 * (size - 1)
    return ((normalised + 1) * size - 1) / 2


def normalised_coordinate(
    pixel: npt.ArrayLike, size: int, align_corners: bool
) -> npt.NDArray[np.float64]:
    """Return the float64 normalised coordinate of a pixel coordinate: the inverse of the above."""
    position = np.asarray(pixel, np.float64)
    if align_corners:
        return 2 * position / (size - 1) - 1
    return (2 * position + 1) / size - 1


def draw_smooth(
    rng: np.random.Generator,
    batch: int,
    spatial: tuple[int, ...],
    channels: int,
    output: tuple[int, ...],
) -> Case:
    """Draw a case whose coordinates reach from well inside to three half-sizes from the centre."""
    axes = [_smooth_axis(rng, (batch, *output), size) for size in reversed(spatial)]
    return _with_image(rng, np.stack(axes, -1), spatial, channels)


def draw_smooth_of_random_shape(rng: np.random.Generator, axes: int = 2) -> Case:
    """Draw a smooth case of 1-3 images of 1-9 pixels a side, sampled to 1-7 pixels a side."""
    return draw_smooth(
        rng,
        batch=int(rng.integers(1, 4)),
        spatial=tuple(int(side) for side in rng.integers(1, 10, axes)),
        channels=int(rng.choice((1, 3, 4))),
        output=tuple(int(side) for side in rng.integers(1, 8, axes)),
    )


def draw_exact(
    rng: np.random.Generator,
    spatial: tuple[int, ...],
    channels: int,
    output: tuple[int, ...],
) -> Case:
    """Draw a case of one image on multiples of half a pixel, and far outside.

    Args:
        rng: Where the randomness comes from.
        spatial: Sides that are a power of two (half pixels are then exact without align_corners),
            a power of two plus one (with align_corners), or 1.
        channels: Number of channels.
        output: Sides of the grid.
    """
    axes = []
    for size in reversed(spatial):
        align_corners = size > 1 and (size - 1).bit_count() == 1 and size != 2
        if size.bit_count() != 1 and not align_corners:
            raise ValueError(f"side {size} is neither 2**k nor 2**k + 1: half pixels are not exact")
        half_pixels = np.arange(-2 * size - 3, 4 * size + 3) / 2
        near = normalised_coordinate(half_pixels, size, align_corners)
        near = near[np.abs(near) <= 4]
        axis = rng.choice(near, (1, *output))
        far = rng.choice(FAR, axis.shape)
        axes.append(np.where(rng.random(axis.shape) < 0.12, far, axis))
    grid = np.stack(axes, -1)
    assert np.array_equal(grid, grid.astype(np.float32)), "coordinates are not exact in float32"
    return _with_image(rng, grid, spatial, channels)


def draw_theta(rng: np.random.Generator, batch: int) -> Array:
    """Draw [batch, 2, 3] float32 thetas, rotating, shearing, mirroring and shifting."""
    return rng.uniform(-1.5, 1.5, (batch, 2, 3)).astype(np.float32)


def _with_image(
    rng: np.random.Generator,
    grid: npt.NDArray[np.float64] | Array,
    spatial: tuple[int, ...],
    channels: int,
) -> Case:
    batch, *output = grid.shape[:-1]
    return Case(
        image=rng.random((batch, *spatial, channels), np.float32),
        grid=grid.astype(np.float32),
        upstream=rng.uniform(-1, 1, (batch, *output, channels)).astype(np.float32),
    )


def _smooth_axis(rng: np.random.Generator, shape: tuple[int, ...], size: int) -> Array:
    """Draw coordinates along one axis, again and again where one is too near to a kink."""
    reach = rng.choice((0.6, 1.1, 3.0), shape, p=(0.4, 0.4, 0.2))
    axis = (rng.uniform(-1, 1, shape) * reach).astype(np.float32)
    while (kinked := _near_kink(axis, size)).any():
        redrawn = (rng.uniform(-1, 1, shape) * reach).astype(np.float32)
        axis = np.where(kinked, redrawn, axis)
    return axis


def _near_kink(axis: Array, size: int) -> npt.NDArray[np.bool_]:
    kinked = np.zeros(axis.shape, np.bool_)
    # With align_corners a side of one pixel has one coordinate, 0, and a derivative of 0 by the
    # grid whatever the kink: there is nothing to keep away from.
    for align_corners in (False, True) if size > 1 else (False,):
        halves = 2 * pixel_coordinate(axis, size, align_corners)
        kinked |= np.abs(halves - np.round(halves)) < 2 * KINK_MARGIN_PX
    return kinked
