"""What the samplers are timed on, and what they must answer.

Convention:
    Images are `[batch, height, width, channels]`. Theta maps output to input coordinates (x, y),
    normalised with -1 and 1 on the outer edges of the corner pixels (`align_corners=False`). What
    lies outside of the image is 0, and the image fades to it over one pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

TRANSFORMS = ("affine", "thin_plate_spline")
SHAPES = ("1x28x28x1", "1x224x224x3", "8x224x224x3", "1x56x56x64")
CONTROL_POINTS = 4
"""Control points of a spline along a side: the default of `stnkit.models.ThinPlateSpline`."""


@dataclass(frozen=True)
class Case:
    """A shape and a transform; the output is as large as the input.

    Attributes:
        shape: `(batch, height, width, channels)`.
        transform: One of `TRANSFORMS`.
    """

    shape: tuple[int, int, int, int]
    transform: str

    @property
    def shape_name(self) -> str:
        """The shape as it is written on the command line."""
        return "x".join(str(size) for size in self.shape)

    @property
    def theta_shape(self) -> tuple[int, int]:
        """Shape of the theta of one image."""
        return (2, 3) if self.transform == "affine" else (CONTROL_POINTS**2, 2)


@dataclass(frozen=True)
class Inputs:
    """What a contender is given.

    Attributes:
        image: `[batch, height, width, channels]` float32 in [0, 1].
        theta: `[batch, *theta_shape]` float32.
        upstream: Gradient of the loss by the warped image, of its shape, float32 in [-1, 1].
    """

    image: Array
    theta: Array
    upstream: Array


def parse_shape(text: str) -> tuple[int, int, int, int]:
    """Return the shape that a text like "1x224x224x3" stands for.

    Raises:
        ValueError: If it is not four positive integers, with 2 pixels a side at least.
    """
    try:
        batch, height, width, channels = (int(part) for part in text.split("x"))
    except ValueError:
        raise ValueError(
            f"shape is {text!r}: expected batch x height x width x channels, e.g. 1x224x224x3"
        ) from None
    if min(batch, channels) < 1 or min(height, width) < 2:
        raise ValueError(f"shape is {text!r}: expected sizes >= 1, and >= 2 pixels a side")
    return batch, height, width, channels


def make_inputs(case: Case, seed: int = 0) -> Inputs:
    """Return the inputs of a case: waves with a little noise, turned by about 20 degrees.

    Part of the output reads outside of the image, as in most uses of a transformer.
    """
    rng = np.random.default_rng(seed)
    batch, height, width, channels = case.shape
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    # About as rough as a photo. In white noise the rounding of float32 coordinates alone would
    # hide what is looked for.
    period = rng.uniform(10, 40, (2, batch, 1, 1, channels))
    phase = rng.uniform(0, 6.28, (batch, 1, 1, channels))
    waves = np.sin(x[..., None] * 6.28 / period[0] + y[..., None] * 6.28 / period[1] + phase)
    image = 0.5 + 0.45 * waves + rng.uniform(-0.02, 0.02, case.shape)
    # Darker towards its border, where the image drops to zero within a pixel: else the rounding of
    # coordinates there were the largest error everywhere.
    across, down = ((2 * axis + 1) / size - 1 for axis, size in ((x, width), (y, height)))
    image = image * (1 - 0.7 * np.maximum(across**8, down**8))[..., None]
    angle = np.deg2rad(20) + rng.uniform(-0.05, 0.05, batch)
    zoom = 1.1 + rng.uniform(-0.05, 0.05, batch)
    shift = rng.uniform(-0.1, 0.1, (2, batch))
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    theta = np.stack([cos, -sin, shift[0], sin, cos, shift[1]], axis=-1).reshape(batch, 2, 3)
    if case.transform == "thin_plate_spline":
        control = _control_points()
        turned = control @ theta[:, :, :2].transpose(0, 2, 1) + theta[:, None, :, 2]
        theta = turned + rng.uniform(-0.05, 0.05, turned.shape)
    return Inputs(
        image=np.clip(image, 0, 1).astype(np.float32),
        theta=theta.astype(np.float32),
        upstream=rng.uniform(-1, 1, case.shape).astype(np.float32),
    )


@lru_cache(maxsize=4)
def basis(case: Case) -> Array:
    """Return what every point of the output is multiplied by: grid = basis @ parameters.

    Affine: (x, y, 1), times the transposed theta `[3, 2]`. Spline: the kernel of the point and all
    control points beside (1, x, y), times the inverse of the spline's system; theta `[K * K, 2]`.

    Returns:
        `[height * width, parameters]` float64, row by row from the top left.

    Source:
        Jaderberg et al. 2015, eq. 1; Bookstein 1989, Principal Warps.
    """
    _, height, width, _ = case.shape
    x, y = ((2 * np.arange(size) + 1) / size - 1 for size in (width, height))
    points = np.stack([np.tile(x, height), np.repeat(y, width)], axis=1)
    ones = np.ones((len(points), 1))
    if case.transform == "affine":
        return np.concatenate([points, ones], axis=1)
    control = _control_points()
    count = len(control)
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = _radial(control, control)
    system[:count, count:] = np.concatenate([np.ones((count, 1)), control], axis=1)
    system[count:, :count] = system[:count, count:].T
    rows = np.concatenate([_radial(points, control), ones, points], axis=1)
    return np.asarray(rows @ np.linalg.inv(system)[:, :count])


def _control_points() -> Array:
    axis = np.linspace(-1, 1, CONTROL_POINTS)
    return np.stack([np.tile(axis, CONTROL_POINTS), np.repeat(axis, CONTROL_POINTS)], axis=1)


def _radial(points: Array, control: Array) -> Array:
    """Return r^2 log r^2 of all distances, 0 at 0."""
    squared = ((points[:, None] - control[None]) ** 2).sum(-1)
    return np.asarray(squared * np.log(np.where(squared > 0, squared, 1)))
