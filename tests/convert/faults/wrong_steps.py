"""Steps of a transformer done wrong, for models that are exported with the mistake inside."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def shifted_px(dx, dy):
    """Read beside the right place, px."""
    return lambda x, y, size: (x + 2 * dx / size[1], y + 2 * dy / size[0])


def swapped(x, y, size):
    return y, x


def mirrored(x, y, size):
    return -x, y


def on_lattice(steps):
    def rounded(value):
        return tf.round(value * (steps / 2)) / (steps / 2)

    return lambda x, y, size: (rounded(x), rounded(y))


def short_of_the_border(x, y, size):
    """Clip to the last pixel but one."""
    last = [(2 * (side - 2) + 1) / side - 1 for side in size]
    return tf.minimum(x, last[1]), tf.minimum(y, last[0])


def transposed(theta):
    return tf.concat([tf.transpose(theta[:, :, :2], [0, 2, 1]), theta[:, :, 2:]], axis=2)


def rows_swapped(theta):
    return tf.stack([theta[:, 1], theta[:, 0]], axis=1)


def inverted(theta):
    a, b, c = (theta[:, 0, k] for k in range(3))
    d, e, f = (theta[:, 1, k] for k in range(3))
    # Zero scale has no inverse; what is done there is beside the point.
    det = a * e - b * d
    det = tf.where(tf.abs(det) < 1e-6, tf.ones_like(det), det)
    rows = [e, -b, b * f - c * e], [-d, a, c * d - a * f]
    return tf.stack([tf.stack([v / det for v in row], axis=1) for row in rows], axis=1)


def shift_negated(theta):
    return theta * np.array([[1, 1, -1], [1, 1, -1]], np.float32)


def coefficient_off(row, column, by):
    def change(theta):
        offset = np.zeros((1, 2, 3), np.float32)
        offset[0, row, column] = by
        return theta + offset

    return change


def reversed_batch(value):
    return tf.reverse(value, [0])


def first_of_the_batch(image):
    """Read from the first item: the flat index lacks the offset of the item."""
    return image[:1] + 0 * image


def last_row_lost(warped, planes):
    mask = np.ones((1, warped.shape[1], 1, 1), np.float32)
    mask[:, -1] = 0
    return warped * mask


def last_row_repeated(warped, planes):
    return tf.concat([warped[:, :-1], warped[:, -2:-1]], axis=1)


def cut_off_at_centres(warped, planes):
    """Mask the point and not its four pixels: nothing fades to zero."""
    limits = [1 - 1 / warped.shape[2], 1 - 1 / warped.shape[1]]
    inside = tf.ones_like(planes[0])
    for plane, limit in zip(planes, limits, strict=True):
        inside *= tf.cast(tf.abs(plane) <= limit, tf.float32)
    return warped * inside[..., tf.newaxis]


def turned(warped, planes):
    return tf.transpose(warped, [0, 2, 1, 3])
