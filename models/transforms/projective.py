"""The projective transform (homography)."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from stnkit.models.transforms.base import MatrixTransform, Planes, base_axes

_SMALLEST = 1e-8


class Projective(MatrixTransform):
    r"""A plane seen from elsewhere. Theta is the first 8 entries of a 3x3 matrix, the last is 1.

    $$(x_{in}, y_{in}) = (u / w, v / w), \quad (u, v, w)^T = H (x, y, 1)^T$$

    A point on the horizon (w = 0) is read far outside of the image.

    Source:
        Jaderberg et al. 2015, section 3.2; Hartley and Zisserman, Multiple View Geometry, 2.3.
    """

    name = "projective"

    @property
    def theta_shape(self) -> tuple[int, ...]:
        """(8,)."""
        return (8,)

    def identity(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return (1, 0, 0, 0, 1, 0, 0, 0)."""
        return np.array([1, 0, 0, 0, 1, 0, 0, 0], np.float32)

    def planes(self, theta: Any, output_size: Any, align_corners: bool) -> Planes:
        """Return the planes of the grid."""
        columns, rows = base_axes(output_size, align_corners, theta.dtype)

        def plane(first: int, constant: Any) -> Any:
            along_x = theta[:, first : first + 1] * columns
            along_y = theta[:, first + 1 : first + 2] * rows + constant
            return tf.expand_dims(along_x, 1) + tf.expand_dims(along_y, 2)

        u = plane(0, theta[:, 2:3])
        v = plane(3, theta[:, 5:6])
        w = _divisor(plane(6, tf.ones([], theta.dtype)))
        return u / w, v / w

    def map_points(self, theta: Any, points: Planes, align_corners: bool) -> Planes:
        """Return the points (x, y) seen through the homography."""
        u, v = super().map_points(theta, points, align_corners)
        g, h = (tf.reshape(theta[:, k], [-1, 1, 1]) for k in (6, 7))
        w = _divisor(g * points[0] + h * points[1] + 1)
        return u / w, v / w

    def matrix(self, theta: Any) -> Any:
        """Return the matrix `[batch, 3, 3]`."""
        return tf.reshape(tf.concat([theta, tf.ones_like(theta[:, :1])], axis=1), [-1, 3, 3])

    def from_matrix(self, matrix: Any) -> Any:
        """Return the first 8 entries of the matrix, scaled so that the last is 1."""
        flat = tf.reshape(matrix, [-1, 9])
        return flat[:, :8] / flat[:, 8:9]


def _divisor(w: Any) -> Any:
    """Return w without zeros: 0 / 0, and its gradient, would spoil those of every other pixel."""
    smallest = tf.constant(_SMALLEST, w.dtype)
    return tf.where(tf.abs(w) < smallest, smallest, w)
