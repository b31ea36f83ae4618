r"""The four pixels around each point, read and blended, for XLA.

XLA joins ops into loops, so that many small passes cost it little. What costs is what it does row
by row, above all adding up at indices, and sums over long rows, which it does number by number.
Where channels are few, the four pixels of a point are added up in one row, and those that are one
pixel brought together after: a quarter of the rows. Where they are many, each pixel is a row, and
the sums over channels are a product, which XLA computes fast.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from stnkit.models.sampling.blending import FEW_CHANNELS
from stnkit.models.sampling.flat_gather import FlatImage
from stnkit.models.sampling.training_form import with_gradient
from stnkit.models.shapes import sizes

__all__ = ["blend_compiled"]


def blend_compiled(padded: Any, x: tuple[Any, Any], y: tuple[Any, Any]) -> Any:
    """Return images blended from the four pixels around each point.

    Args:
        padded: `[batch, height, width, channels]` float.
        x: Column to the left of each point, `[batch, h, w]` whole numbers of a float type, and what
            the one to its right, which exists as well, weighs: of that shape, in [0, 1].
        y: The same for rows.

    Returns:
        `[batch * h * w, channels]`.

    Source:
        Jaderberg et al. 2015, eq. 5; the gradient is eq. 6 and 7.
    """
    (column, across), (row, down) = x, y
    few = isinstance(padded.shape[3], int) and padded.shape[3] <= FEW_CHANNELS

    def blend(image: Any, across: Any, down: Any) -> tuple[Any, Any]:
        pixels = FlatImage(image)
        width = pixels.spatial[1]
        steps = [0, 1, width, width + 1]
        first = pixels.index([tf.cast(row, tf.int32), tf.cast(column, tf.int32)])
        places = tf.reshape(first, [-1, 1]) + tf.stack(steps)
        right, low = tf.reshape(across, [-1, 1]), tf.reshape(down, [-1, 1])
        if few:
            taps = [pixels.read(first + step) for step in steps]
        else:
            found = tf.reshape(pixels.read(places), [-1, 4, pixels.channels])
            taps = tf.unstack(found, axis=1)
        upper = taps[0] + (taps[1] - taps[0]) * right
        lower = taps[2] + (taps[3] - taps[2]) * right

        def gradient(upstream: Any) -> Any:
            shares = _shares(right, low)
            parts = tf.expand_dims(upstream, 1) * tf.expand_dims(shares, 2)
            count = tf.size(image) // pixels.channels
            if few:
                by_pixels = _together(_added(parts, tf.reshape(first, [-1]), count), steps)
                by_shares = [tf.reduce_sum(upstream * tap, 1, keepdims=True) for tap in taps]
            else:
                by_pixels = _added(parts, places, count)
                by_shares = tf.split(tf.linalg.matvec(found, upstream), 4, axis=1)
            slope, slope_below = by_shares[1] - by_shares[0], by_shares[3] - by_shares[2]
            fall, fall_right = by_shares[2] - by_shares[0], by_shares[3] - by_shares[1]
            by_across = slope + (slope_below - slope) * low
            by_down = fall + (fall_right - fall) * right
            return _like(image, by_pixels), _like(across, by_across), _like(down, by_down)

        return upper + (lower - upper) * low, gradient

    return with_gradient(blend, padded, across, down)


def _shares(right: Any, low: Any) -> Any:
    """Return what the four pixels of a point weigh, `[n, 4]`, of what two of them do."""
    columns, rows = tf.concat([1 - right, right], 1), tf.concat([1 - low, low], 1)
    return tf.reshape(tf.expand_dims(rows, 2) * tf.expand_dims(columns, 1), [-1, 4])


def _added(values: Any, index: Any, count: Any) -> Any:
    """Return `[count, ...]` with all values added up at their index; never in half precision."""
    if values.dtype.size < 4:
        values = tf.cast(values, tf.float32)
    return tf.math.unsorted_segment_sum(values, index, count)


def _together(cells: Any, steps: list[Any]) -> Any:
    """Return `[pixels, channels]` of what was added up for the four pixels from each on.

    Args:
        cells: `[pixels, 4, channels]`; none begins where one of the four is not an image's.
        steps: How far they are from the first.
    """
    first, *others = tf.unstack(cells, axis=1)
    for step, other in zip(steps[1:], others, strict=True):
        first += tf.pad(other, [[step, 0], [0, 0]])[: sizes(cells)[0]]
    return first


def _like(tensor: Any, gradient: Any) -> Any:
    return tf.cast(tf.reshape(gradient, sizes(tensor)), tensor.dtype)
