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

from stnkit.models.sampling.flat_gather import FlatImage
from stnkit.models.sampling.pixel_grid import PixelGrid
from stnkit.models.shapes import as_float, sizes
from stnkit.models.taps import mark_sampled

PADDING_MODES = ("zeros", "border")
"""Padding modes that this form knows."""

_RING = 2
_PACKED_CHANNELS_MAX = 4
_PACKED_POINTS_MIN = 4096  # for fewer, TensorFlow takes longer to start these ops than to do them
_EXACT_FLOAT32 = 2**24  # integers up to here are exact in float32


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
    _, height, width, channels = sizes(image)
    lengths = [width, height]
    if padding_mode == "zeros":
        # Two pixels of zeros on every side: all four pixels of a point that lies further out are
        # among them. Its gradient is then 0 by itself, and no mask has to say so.
        highest = [as_float(length, grid.dtype) + _RING for length in lengths]
        points = _clipped(grid.dense(_RING), _limits(highest, grid.dtype))
        left = tf.floor(points)
        padded = _padded(image, _RING)
    else:
        highest = [as_float(length, grid.dtype) - 1 for length in lengths]
        limits = _limits(highest, grid.dtype)
        points = tf.minimum(tf.maximum(grid.dense(), tf.constant(0, grid.dtype)), limits)
        left = tf.floor(points)
        if all(isinstance(length, int) and length > 1 for length in lengths):
            # A point on the last pixel has the weight 1 on the right, which is the same value.
            most = [float(length - 2) for length in lengths]
            padded, left = image, tf.minimum(left, _limits(most, grid.dtype))
        else:
            padded = tf.pad(image, [[0, 0], [0, 1], [0, 1], [0, 0]], mode="SYMMETRIC")
    weights = tf.cast(points - left, image.dtype)
    _, _, rows, columns = sizes(points)
    few = isinstance(rows, int) and isinstance(columns, int) and rows * columns < _PACKED_POINTS_MIN
    if isinstance(channels, int) and channels <= _PACKED_CHANNELS_MAX and not few:
        values = _packed(padded, left, weights, channels)
    else:
        values = _four_gathers(padded, left, weights)
    batch = sizes(image)[0]
    sampled = tf.reshape(values, [batch, rows, columns, channels])
    return mark_sampled(sampled, image, grid, padding_mode)


def _limits(values: list[Any], dtype: Any) -> Any:
    """Return a limit for x and one for y, to be broadcast along `[batch, 2, height, width]`."""
    if not all(isinstance(value, (int, float)) for value in values):
        return tf.reshape(tf.stack(values), [2, 1, 1])
    same = values[0] == values[1]
    return tf.constant(values[0] if same else np.reshape(values, [2, 1, 1]), dtype)


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


def _packed(padded: Any, left: Any, weights: Any, channels: int) -> Any:
    """Return `[points, channels]` by one gather of cells."""
    taps = 4 * channels
    copy = np.zeros((2, 2, channels, taps))
    # From the two weights of a point to those of its four pixels, repeated for every channel.
    across, down = np.zeros((2, taps)), np.zeros((2, taps))
    add = np.zeros((taps, channels))
    for number in range(taps):
        tap, channel = divmod(number, channels)
        row, column = divmod(tap, 2)
        copy[row, column, channel, number] = 1
        across[0, number], down[1, number] = 2 * column - 1, 2 * row - 1
        add[number, channel] = 1
    dtype = padded.dtype
    cells = FlatImage(tf.nn.conv2d(padded, tf.constant(copy, dtype), strides=1, padding="VALID"))
    found = cells.read(_index(cells, left))
    pairs = tf.reshape(tf.transpose(weights, [0, 2, 3, 1]), [-1, 2])
    along_x = tf.matmul(pairs, tf.constant(across, dtype)) + tf.constant(across[0] < 0, dtype)
    along_y = tf.matmul(pairs, tf.constant(down, dtype)) + tf.constant(down[1] < 0, dtype)
    return tf.matmul(found * (along_x * along_y), tf.constant(add, dtype))


def _index(image: FlatImage, left: Any) -> Any:
    """Return the flat index of the pixel at each point, `[batch, height, width]` int32."""
    # Not left[:, 0]: of all the ways to cut a tensor that is the slowest in LiteRT, by far.
    column, row = tf.unstack(left, axis=1)
    height, width = image.spatial
    static = all(isinstance(size, int) for size in (image.batch, height, width))
    if not static or (left.dtype == tf.float32 and image.batch * height * width >= _EXACT_FLOAT32):
        return image.index([tf.cast(row, tf.int32), tf.cast(column, tf.int32)])
    # Floats count exactly this far: one cast is left, where runtimes vectorise float arithmetic.
    index = row * tf.constant(width, left.dtype) + column
    if image.batch > 1:
        first = np.arange(image.batch) * (height * width)
        index = index + tf.constant(first.reshape(-1, 1, 1), left.dtype)
    return tf.cast(index, tf.int32)


def _four_gathers(padded: Any, left: Any, weights: Any) -> Any:
    """Return `[points, channels]` by a gather for each of the four pixels."""
    image = FlatImage(padded)
    first = tf.reshape(_index(image, left), [-1])
    width = image.spatial[1]
    across, down = (tf.reshape(part, [-1, 1]) for part in tf.unstack(weights, axis=1))

    def line(start: Any) -> Any:
        low, high = image.read(start), image.read(start + 1)
        return low + (high - low) * across

    upper = line(first)
    return upper + (line(first + width) - upper) * down
