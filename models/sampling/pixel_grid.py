"""Points of a grid in pixel coordinates, ready for the sampler: finite, both axes in one tensor.

For an affine theta a point is the sum of what its column gives and what its row gives. The way from
theta to pixels is then folded into these two vectors, a few hundred numbers, where it would be
several passes over every pixel of the output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from stnkit.models.sampling.training_form import is_compiled, with_gradient
from stnkit.models.shapes import Size, as_float, sizes

# Coordinates beyond these become them, so that a sum of two is finite, and what is NaN or infinite
# ends far outside. NaN, and infinities that would cancel to NaN, end on the low side: their sum is
# below zero whatever the other part is.
_ACROSS = (-1e9, -4e9, 1e9)  # lowest that is kept, what lower ones and NaN become, highest
_DOWN = (-5e8, -2e9, 5e8)
_POINT = (-1e9, -1e9, 1e9)


@dataclass(frozen=True)
class PixelGrid:
    """Where each pixel of the output is read.

    Convention:
        0 is the centre of the first pixel of the image, the size less 1 that of the last. Axis 1
        holds x and y. No value is NaN or infinite.

    Attributes:
        parts: `[batch, 2, width]` and `[batch, 2, height]` whose outer sum is the grid; None where
            it is no such sum.
        planes: x and y, `[batch, height, width]` each; None where one of the others says it.
        points: `[batch, 2, height, width]`; likewise.
        origin: Kind of theta and theta itself, where an exporter can compute the grid from it anew;
            `theta_kind` makes the kinds.
    """

    parts: tuple[Any, Any] | None = None
    planes: tuple[Any, Any] | None = None
    points: Any = None
    origin: tuple[str, Any] | None = None

    @property
    def dtype(self) -> Any:
        """float32, or float64."""
        return (self.parts or self.planes or [self.points])[0].dtype

    def dense(self, shift: float = 0.0) -> Any:
        """Return `[batch, 2, height, width]`, with a number added to all coordinates."""
        if self.parts is None:
            points = self.points if self.planes is None else tf.stack(self.planes, axis=1)
            return points + shift if shift else points
        across, down = self.parts
        return tf.expand_dims(across, 2) + tf.expand_dims(down + shift if shift else down, 3)

    def apart(self, shift: float = 0.0) -> tuple[Any, Any]:
        """Return x and y, `[batch, height, width]` each, with a number added to all coordinates."""
        x, y = tf.unstack(self.dense(), axis=1) if self.planes is None else self.planes
        return (x + shift, y + shift) if shift else (x, y)


def theta_kind(align_corners: bool, control_points: int = 0) -> str:
    """Return what kind of theta a grid comes from, in the letters that names of ops may have.

    Args:
        align_corners: What -1 and 1 stand for: "corners" if True, else "edges".
        control_points: Those of a thin plate spline along a side, theta `[batch, K * K, 2]`:
            "spline4edges"; 0 for an affine theta `[batch, 2, 3]`.
    """
    where = "corners" if align_corners else "edges"
    return f"spline{control_points}{where}" if control_points else where


def frame(image_size: tuple[Size, Size], align_corners: bool, dtype: Any) -> tuple[Any, Any]:
    """Return scale and offset from normalised to pixel coordinates, `[2]` each, x first."""
    height, width = image_size
    lengths = [as_float(size, dtype) for size in (width, height)]
    scale = [(length - 1) / 2 if align_corners else length / 2 for length in lengths]
    offset = [(length - 1) / 2 for length in lengths]
    if isinstance(height, int) and isinstance(width, int):
        return tf.constant(scale, dtype), tf.constant(offset, dtype)
    return tf.stack(scale), tf.stack(offset)


def affine_pixel_grid(
    theta: Any, axes: tuple[Any, Any], image_size: tuple[Size, Size], align_corners: bool
) -> PixelGrid:
    """Return the grid of affine thetas.

    Args:
        theta: `[batch, 2, 3]` float32 or float64.
        axes: Normalised coordinates of the output's columns `[width]` and rows `[height]`.
        image_size: `(height, width)` of the image that is read, px.
        align_corners: What -1 and 1 stand for.
    """
    columns, rows = axes
    scale, offset = (tf.reshape(it, [2, 1]) for it in frame(image_size, align_corners, theta.dtype))

    def parts(theta: Any) -> Any:
        scaled = theta * scale
        across = scaled[:, :, 0:1] * columns
        down = scaled[:, :, 1:2] * rows + (scaled[:, :, 2:3] + offset)

        def gradient(by_across: Any, by_down: Any) -> Any:
            # As if nothing had been kept within bounds: points that far outside have the gradient 0
            # already, and TensorFlow's own way takes three times as many ops.
            sums = (by_across * columns, by_down * rows, by_down)
            return tf.stack([tf.reduce_sum(it, 2) for it in sums], 2) * scale

        return (_kept(across, _ACROSS), _kept(down, _DOWN)), gradient

    origin = theta_kind(align_corners), theta
    if is_compiled():
        scaled = theta * scale
        x, y = (
            _kept_freely(flat_plane(scaled[:, axis], columns, rows) + offset[axis], _POINT)
            for axis in range(2)
        )
        return PixelGrid(planes=(x, y), origin=origin)
    return PixelGrid(parts=with_gradient(parts, theta), origin=origin)


def flat_plane(slopes: Any, columns: Any, rows: Any) -> Any:
    """Return a plane that is flat, as a sum over x, y and 1 at each pixel.

    For XLA: an outer sum of two vectors is cheap enough to be computed again, theta's products
    included, in every loop that reads a point, and there for every channel. A sum is done once.

    Args:
        slopes: What the plane has along x and along y, and in the middle, `[batch, 3]`.
        columns: x, `[width]` normalised.
        rows: y, `[height]` normalised.

    Returns:
        `[batch, height, width]`.
    """
    (width,), (height,) = sizes(columns), sizes(rows)
    x, y = tf.tile(columns, [height]), tf.repeat(rows, width)
    places = tf.stack([x, y, tf.ones_like(x)], axis=1)  # [height * width, 3]

    def plane(slopes: Any) -> Any:
        found = tf.reduce_sum(tf.expand_dims(slopes, 1) * places, 2)

        def gradient(upstream: Any) -> Any:
            by_column, by_row = tf.reduce_sum(upstream, 1), tf.reduce_sum(upstream, 2)
            sums = (by_column * columns, by_row * rows, by_row)
            return tf.stack([tf.reduce_sum(it, 1) for it in sums], 1)

        return tf.reshape(found, [-1, height, width]), gradient

    return with_gradient(plane, slopes)


def dense_pixel_grid(
    planes: tuple[Any, Any], image_size: tuple[Size, Size], align_corners: bool
) -> PixelGrid:
    """Return the grid of any planes (x, y), `[batch, height, width]` each, normalised."""
    scale, offset = frame(image_size, align_corners, planes[0].dtype)
    if is_compiled():
        x, y = (_kept(it * scale[axis] + offset[axis], _POINT) for axis, it in enumerate(planes))
        return PixelGrid(planes=(x, y))
    shape = [2, 1, 1]
    points = tf.stack(planes, axis=1) * tf.reshape(scale, shape) + tf.reshape(offset, shape)
    return PixelGrid(points=_kept(points, _POINT))


def _kept_freely(values: Any, bounds: tuple[float, float, float]) -> Any:
    """Return values within bounds, in training with their gradient as if they had not been moved.

    Points that far outside have the gradient 0 already.
    """
    return with_gradient(lambda values: (_kept(values, bounds), lambda upstream: upstream), values)


def _kept(values: Any, bounds: tuple[float, float, float]) -> Any:
    """Return values within bounds. A comparison with NaN is false in every runtime."""
    lowest, instead, highest = (np.asarray(bound, values.dtype.as_numpy_dtype) for bound in bounds)
    return tf.minimum(tf.where(values > lowest, values, instead), highest)
