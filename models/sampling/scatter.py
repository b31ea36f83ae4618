"""Adding up at indices: the gradient of reading pixels, and in turn the gradient of that."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled

from stnkit.models.shapes import sizes

_INT32_MAX = 2**31 - 1


def number_dtype(image: Any) -> Any:
    """Return the integer type that can count the numbers of one image.

    Args:
        image: `[batch, height, width, channels]`.
    """
    _, *one = sizes(image)
    count = 1
    for size in one:
        if not isinstance(size, int):
            return tf.int64
        count *= size
    return tf.int32 if count <= _INT32_MAX else tf.int64


def add_numbers(values: Any, index: Any, image: Any) -> Any:
    """Return zeros of the image's shape with each value added to the number at its index.

    Numbers, and not rows of channels: where channels are few that takes TensorFlow half as long.

    Args:
        values: `[batch, n]` float.
        index: `[batch, n]` of `number_dtype(image)`: which number of its own image, counted through
            rows, columns and channels.
        image: `[batch, height, width, channels]`; only its shape and dtype are used.
    """
    shape = sizes(image)
    count = tf.constant(1, index.dtype)
    for size in shape[1:]:
        count = count * tf.cast(size, index.dtype)
    # Many small numbers are never added up in half precision.
    dtype = tf.float64 if image.dtype == tf.float64 else tf.float32

    @tf.custom_gradient
    def added(numbers: Any) -> Any:
        if is_op_determinism_enabled():  # which the other op refuses on a GPU
            batch = tf.cast(shape[0], index.dtype)
            rows = tf.reshape(index + count * tf.expand_dims(tf.range(batch), 1), [-1])
            total = tf.math.unsorted_segment_sum(tf.reshape(numbers, [-1]), rows, count * batch)
            total = tf.reshape(total, [batch, count])
        else:
            total = tf.raw_ops.DenseBincount(input=index, size=count, weights=numbers)
        return total, lambda upstream: tf.gather(upstream, index, batch_dims=1)

    return tf.cast(tf.reshape(added(tf.cast(values, dtype)), shape), image.dtype)


def add_rows(rows: Any, index: Any, image: Any) -> Any:
    """Return zeros of the image's shape with each row of channels added to the pixel at its index.

    Args:
        rows: `[n, channels]`.
        index: `[n]` int32, counted through all images.
        image: As in `add_numbers`.
    """
    shape = sizes(image)
    batch, height, width, _ = shape
    total = tf.math.unsorted_segment_sum(rows, index, batch * height * width)
    return tf.reshape(total, shape)
