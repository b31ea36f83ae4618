r"""Bilinear sampling of images with "zeros" and "border" padding, in the form that runs fastest.

$$V = \sum_n \sum_m U_{nm} \max(0, 1 - |x - m|) \max(0, 1 - |y - n|)$$

Padding is done once, on the image, so that no pixel needs a mask. Few channels are read by one
gather: a convolution that only copies lays the four pixels of every cell side by side, and two
small matrix products bring the weights to the same order and add up. A gather costs by the row, and
four times as many rows of three channels cost more than the copy does. Many channels are read by
four gathers, whose rows are long enough.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from stnkit.models.sampling.blending import FEW_CHANNELS, blend_cells, blend_rows
from stnkit.models.sampling.compiled_blending import blend_compiled
from stnkit.models.sampling.pixel_grid import PixelGrid
from stnkit.models.sampling.training_form import is_compiled
from stnkit.models.shapes import as_float, sizes
from stnkit.models.taps import mark_sampled

PADDING_MODES = ("zeros", "border")
"""Padding modes that this form knows."""

_RING = 2
_CELL_POINTS_MIN = 4096  # for fewer, TensorFlow takes longer to start these ops than to do them


def sample_bilinear(image: Any, grid: PixelGrid, padding_mode: str) -> Any:
    """Return the image blended from the four pixels around each point.

    Args:
        image: `[batch, height, width, channels]` float.
        grid: Points in pixel coordinates.
        padding_mode: "zeros" or "border".

    Returns:
        `[batch, *grid, channels]` of the image's dtype.

    Source:
        Jaderberg et al. 2015, eq. 5; the derivatives TensorFlow finds are eq. 6 and 7.
    """
    batch, height, width, channels = sizes(image)
    padded, ring = _surrounded(image, padding_mode)
    if is_compiled():
        x, y = grid.apart(ring)
        _, rows, columns = sizes(x)
        axes = [
            _placed(plane, [length], ring, padded is image, image.dtype)
            for plane, length in ((x, width), (y, height))
        ]
        values = blend_compiled(padded, *axes)
    else:
        points = grid.dense(ring)
        _, _, rows, columns = sizes(points)
        left, weights = _placed(points, [width, height], ring, padded is image, image.dtype)
        known = isinstance(rows, int) and isinstance(columns, int)
        few = known and rows * columns < _CELL_POINTS_MIN
        if isinstance(channels, int) and channels <= FEW_CHANNELS and not few:
            values = blend_cells(padded, left, weights)
        else:
            values = blend_rows(padded, left, weights)
    sampled = tf.reshape(values, [batch, rows, columns, channels])
    return mark_sampled(sampled, image, grid, padding_mode)


def _surrounded(image: Any, padding_mode: str) -> tuple[Any, int]:
    """Return the image with what points can read around it, and the index of its pixel 0 there."""
    if padding_mode == "zeros":
        # Two pixels of zeros on every side: all four pixels of a point that lies further out are
        # among them. Its gradient is then 0 by itself, and no mask has to say so.
        return _padded(image, _RING), _RING
    if all(isinstance(length, int) and length > 1 for length in sizes(image)[1:3]):
        return image, 0
    return tf.pad(image, [[0, 0], [0, 1], [0, 1], [0, 0]], mode="SYMMETRIC"), 0


def _placed(points: Any, lengths: list[Any], ring: int, bare: bool, dtype: Any) -> tuple[Any, Any]:
    """Return the pixels to the left of and above points, and what those behind them weigh.

    Args:
        points: Px in the image that is read: `[batch, 2, h, w]`, or one axis of it.
        lengths: Sizes of the image itself along x and y, or along this axis.
        ring: How many zeros lie before its first pixel; 0 where the border goes on.
        bare: Whether nothing lies behind its last pixel.
        dtype: That of the image.

    Returns:
        Whole numbers of the points' dtype, and weights in [0, 1].
    """
    if ring:
        highest = [as_float(length, points.dtype) + ring for length in lengths]
        points = _clipped(points, _limits(highest, points.dtype))
        left = tf.floor(points)
    else:
        highest = [as_float(length, points.dtype) - 1 for length in lengths]
        limits = _limits(highest, points.dtype)
        points = tf.minimum(tf.maximum(points, tf.constant(0, points.dtype)), limits)
        left = tf.floor(points)
        if bare:
            # A point on the last pixel has the weight 1 on the right, which is the same value.
            most = [float(length - 2) for length in lengths]
            left = tf.minimum(left, _limits(most, points.dtype))
    return left, tf.cast(points - left, dtype)


def _limits(values: list[Any], dtype: Any) -> Any:
    """Return a limit for x and one for y, or one for all, to be broadcast along points."""
    if not all(isinstance(value, (int, float)) for value in values):
        return tf.reshape(tf.stack(values), [-1, 1, 1])
    same = values[0] == values[-1]
    return tf.constant(values[0] if same else np.reshape(values, [-1, 1, 1]), dtype)


def _clipped(points: Any, highest: Any) -> Any:
    """Return points in [0, highest], with their gradient as if they had not been moved."""

    @tf.custom_gradient
    def clip(values: Any) -> Any:
        inside = tf.minimum(tf.maximum(values, tf.constant(0, values.dtype)), highest)
        return inside, lambda upstream: upstream

    return clip(points)


def _padded(image: Any, ring: int) -> Any:
    """Return the image with rows and columns of zeros around it."""
    batch, height, width, channels = sizes(image)
    if not all(isinstance(size, int) for size in (height, width, channels)):
        return tf.pad(image, [[0, 0], [ring, ring], [ring, ring], [0, 0]])
    # As rows of numbers: LiteRT pads a few long rows in an eighth of the time of many short ones.
    rows = tf.reshape(image, [batch, height, width * channels])
    rows = tf.pad(rows, [[0, 0], [ring, ring], [ring * channels, ring * channels]])
    return tf.reshape(rows, [batch, height + 2 * ring, width + 2 * ring, channels])
