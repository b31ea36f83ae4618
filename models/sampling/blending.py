r"""The four pixels around each point, read and blended, and the gradient of that.

$$\frac{\partial V}{\partial x} = (1 - w_y) (U_{01} - U_{00}) + w_y (U_{11} - U_{10})$$

In training the gradient is written by hand. TensorFlow's own passes over the pixels more often, and
adds up by `unsorted_segment_sum`, which takes most of the time where channels are few.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from stnkit.models.sampling.flat_gather import FlatImage
from stnkit.models.sampling.scatter import add_numbers, add_rows, number_dtype
from stnkit.models.sampling.training_form import with_gradient
from stnkit.models.shapes import Size, sizes

FEW_CHANNELS = 4
"""Up to here `blend_cells` can be used, and gradients are added up number by number."""

_EXACT_FLOAT32 = 2**24  # integers up to here are exact in float32


def blend_cells(padded: Any, left: Any, weights: Any) -> Any:
    """Return images blended by one gather of cells: the four pixels of each lie side by side.

    Args:
        padded: `[batch, height, width, channels]` float, at most `FEW_CHANNELS` channels.
        left: Pixel above and to the left of each point, `[batch, 2, h, w]` whole numbers of a float
            type, x first. The pixels to the right and below exist as well.
        weights: What those to the right, and those below, weigh: of that shape, in [0, 1].

    Returns:
        `[batch * h * w, channels]`.

    Source:
        Jaderberg et al. 2015, eq. 5; the gradient is eq. 6 and 7.
    """
    channels = padded.shape[3]
    taps = 4 * channels
    copy = np.zeros((2, 2, channels, taps))
    # From the two weights of a point to those of its four pixels, repeated for every channel.
    across, down = np.zeros((2, taps)), np.zeros((2, taps))
    add = np.zeros((taps, channels))
    slopes = np.zeros((3, taps))
    for number in range(taps):
        tap, channel = divmod(number, channels)
        row, column = divmod(tap, 2)
        copy[row, column, channel, number] = 1
        across[0, number], down[1, number] = 2 * column - 1, 2 * row - 1
        add[number, channel] = 1
        x, y = 2 * column - 1, 2 * row - 1
        slopes[:, number] = x * (1 - row), y * (1 - column), x * y
    dtype = padded.dtype

    def blend(image: Any, weights: Any) -> Any:
        cells = FlatImage(tf.nn.conv2d(image, tf.constant(copy, dtype), strides=1, padding="VALID"))
        found = cells.read(_index(cells, left))
        pairs = tf.reshape(tf.transpose(weights, [0, 2, 3, 1]), [-1, 2])
        along_x = tf.matmul(pairs, tf.constant(across, dtype)) + tf.constant(across[0] < 0, dtype)
        along_y = tf.matmul(pairs, tf.constant(down, dtype)) + tf.constant(down[1] < 0, dtype)
        shares = along_x * along_y

        def gradient(upstream: Any) -> Any:
            spread = tf.matmul(upstream, tf.constant(add.T, dtype))
            batch, _, rows, columns = sizes(weights)
            points = rows * columns
            index = _first_numbers(image, left, [points, 1]) + _number_offsets(image, [taps])
            values = tf.reshape(spread * shares, [batch, points * taps])
            by_image = add_numbers(values, tf.reshape(index, [batch, points * taps]), image)
            found_here = tf.reshape(spread * found, [batch, points, taps])
            planes = tf.matmul(tf.constant(slopes, dtype), found_here, transpose_b=True)
            by_x, by_y, twist = tf.unstack(tf.reshape(planes, [batch, 3, rows, columns]), axis=1)
            right, low = tf.unstack(weights, axis=1)
            return by_image, tf.stack([by_x + low * twist, by_y + right * twist], axis=1)

        return tf.matmul(found * shares, tf.constant(add, dtype)), gradient

    return with_gradient(blend, padded, weights)


def blend_rows(padded: Any, left: Any, weights: Any) -> Any:
    """Return images blended by four gathers, one for each pixel around a point.

    Args:
        padded: `[batch, height, width, channels]` float.
        left: As in `blend_cells`.
        weights: As in `blend_cells`.

    Returns:
        `[batch * h * w, channels]`.
    """

    def blend(image: Any, weights: Any) -> Any:
        flat = FlatImage(image)
        first = tf.reshape(_index(flat, left), [-1])
        width = flat.spatial[1]
        across, down = (tf.reshape(part, [-1, 1]) for part in tf.unstack(weights, axis=1))

        def line(start: Any) -> tuple[Any, Any]:
            low = flat.read(start)
            change = flat.read(start + 1) - low
            return low + change * across, change

        (upper, upper_change), (lower, lower_change) = line(first), line(first + width)
        fall = lower - upper

        def gradient(upstream: Any) -> Any:
            batch, _, rows, columns = sizes(weights)
            below = upstream * down
            above = upstream - below
            above_right, below_right = above * across, below * across
            parts = [above - above_right, above_right, below - below_right, below_right]
            if isinstance(flat.channels, int) and flat.channels <= FEW_CHANNELS:
                points, channels = rows * columns, flat.channels
                values = tf.concat([tf.reshape(it, [batch, points * channels]) for it in parts], 1)
                offsets = _number_offsets(image, [4, 1, channels])
                index = _first_numbers(image, left, [1, points, 1]) + offsets
                index = tf.reshape(index, [batch, 4 * points * channels])
                by_image = add_numbers(values, index, image)
            else:
                index = tf.concat([first, first + 1, first + width, first + width + 1], 0)
                by_image = add_rows(tf.concat(parts, 0), index, image)
            slope, slope_below, by_y = (
                tf.reduce_sum(upstream * change, 1, keepdims=True)
                for change in (upper_change, lower_change, fall)
            )
            by_x = slope + (slope_below - slope) * down
            planes = [tf.reshape(by, [batch, rows, columns]) for by in (by_x, by_y)]
            return by_image, tf.stack(planes, axis=1)

        return upper + fall * down, gradient

    return with_gradient(blend, padded, weights)


def _index(image: FlatImage, left: Any) -> Any:
    """Return the flat index of the pixel at each point, `[batch, h, w]` int32."""
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


def _first_numbers(image: Any, left: Any, shape: list[Size]) -> Any:
    """Return where in its own image the numbers of each point's first pixel begin.

    Args:
        image: `[batch, height, width, channels]`.
        left: `[batch, 2, h, w]`.
        shape: What the numbers of one image are shaped to.

    Returns:
        `[batch, *shape]` of `number_dtype(image)`.
    """
    batch, _, width, channels = sizes(image)
    dtype = number_dtype(image)
    column, row = tf.unstack(tf.cast(left, dtype), axis=1)
    pixel = row * tf.cast(width, dtype) + column
    return tf.reshape(pixel * tf.cast(channels, dtype), [batch, *shape])


def _number_offsets(image: Any, shape: list[int]) -> Any:
    """Return how far from there those of the four pixels are, `[4 * channels]` in this shape."""
    _, _, width, channels = sizes(image)
    dtype = number_dtype(image)
    pixels = tf.stack([0, 1, tf.cast(width, dtype), tf.cast(width, dtype) + 1])
    offsets = tf.expand_dims(pixels * channels, 1) + tf.range(channels, dtype=dtype)
    return tf.reshape(offsets, shape)
