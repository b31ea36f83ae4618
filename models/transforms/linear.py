"""Translation, attention, similarity and affine: transforms without perspective."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from stnkit.models.grids import affine_coordinates
from stnkit.models.sampling.pixel_grid import PixelGrid, affine_pixel_grid
from stnkit.models.shapes import Size, sizes
from stnkit.models.transforms.base import MatrixTransform, Planes, base_axes
from stnkit.models.transforms.matrices import stack_matrix

Array = np.ndarray[Any, np.dtype[np.float32]]


class LinearTransform(MatrixTransform):
    """A map without perspective: two rows of its matrix say it."""

    def rows(self, theta: Any) -> Any:
        """Return the first two rows of the matrix, `[batch, 2, 3]`."""
        return self.matrix(theta)[:, :2]

    def pixel_grid(
        self, theta: Any, output_size: Any, image_size: tuple[Size, Size], align_corners: bool
    ) -> PixelGrid:
        """Return the grid in pixel coordinates, as two vectors; see `Transform.pixel_grid`."""
        axes = base_axes(output_size, align_corners, theta.dtype)
        return affine_pixel_grid(self.rows(theta), axes, image_size, align_corners)


def _columns(theta: Any) -> list[Any]:
    return [theta[:, index] for index in range(theta.shape[1])]


class Translation(LinearTransform):
    """Shift: x_in = x + tx, y_in = y + ty. Theta is (tx, ty)."""

    name = "translation"

    @property
    def theta_shape(self) -> tuple[int, ...]:
        """(2,)."""
        return (2,)

    def identity(self) -> Array:
        """Return (0, 0)."""
        return np.zeros(2, np.float32)

    def planes(self, theta: Any, output_size: Any, align_corners: bool) -> Planes:
        """Return the planes of the grid."""
        columns, rows = base_axes(output_size, align_corners, theta.dtype)
        return _separable(columns + theta[:, 0:1], rows + theta[:, 1:2])

    def matrix(self, theta: Any) -> Any:
        """Return the matrix `[batch, 3, 3]`."""
        tx, ty = _columns(theta)
        one, zero = tf.ones_like(tx), tf.zeros_like(tx)
        return stack_matrix([[one, zero, tx], [zero, one, ty], [zero, zero, one]])

    def from_matrix(self, matrix: Any) -> Any:
        """Return (tx, ty)."""
        return matrix[:, 0:2, 2]


class Attention(LinearTransform):
    """Crop: x_in = s x + tx, y_in = s y + ty. Theta is (s, tx, ty).

    Source:
        Jaderberg et al. 2015, eq. 2.
    """

    name = "attention"

    @property
    def theta_shape(self) -> tuple[int, ...]:
        """(3,)."""
        return (3,)

    def identity(self) -> Array:
        """Return (1, 0, 0)."""
        return np.array([1, 0, 0], np.float32)

    def planes(self, theta: Any, output_size: Any, align_corners: bool) -> Planes:
        """Return the planes of the grid."""
        columns, rows = base_axes(output_size, align_corners, theta.dtype)
        scale = theta[:, 0:1]
        return _separable(scale * columns + theta[:, 1:2], scale * rows + theta[:, 2:3])

    def matrix(self, theta: Any) -> Any:
        """Return the matrix `[batch, 3, 3]`."""
        s, tx, ty = _columns(theta)
        one, zero = tf.ones_like(s), tf.zeros_like(s)
        return stack_matrix([[s, zero, tx], [zero, s, ty], [zero, zero, one]])

    def from_matrix(self, matrix: Any) -> Any:
        """Return (s, tx, ty)."""
        return tf.stack([matrix[:, 0, 0], matrix[:, 0, 2], matrix[:, 1, 2]], axis=-1)


class Similarity(LinearTransform):
    """Rotation, isotropic scale and shift. Theta is (a, b, tx, ty).

    x_in = a x - b y + tx, y_in = b x + a y + ty, where a = s cos(angle), b = s sin(angle).

    Convention:
        The rotation is one in normalised coordinates: in an image that is not square it shears
        pixels, as every normalised theta does.
    """

    name = "similarity"

    @property
    def theta_shape(self) -> tuple[int, ...]:
        """(4,)."""
        return (4,)

    def identity(self) -> Array:
        """Return (1, 0, 0, 0)."""
        return np.array([1, 0, 0, 0], np.float32)

    def planes(self, theta: Any, output_size: Any, align_corners: bool) -> Planes:
        """Return the planes of the grid."""
        return affine_coordinates(self.rows(theta), output_size, align_corners)

    def rows(self, theta: Any) -> Any:
        """Return the first two rows of the matrix, `[batch, 2, 3]`."""
        a, b, tx, ty = _columns(theta)
        return tf.reshape(tf.stack([a, -b, tx, b, a, ty], axis=-1), [-1, 2, 3])

    def matrix(self, theta: Any) -> Any:
        """Return the matrix `[batch, 3, 3]`."""
        a, b, tx, ty = _columns(theta)
        one, zero = tf.ones_like(a), tf.zeros_like(a)
        return stack_matrix([[a, -b, tx], [b, a, ty], [zero, zero, one]])

    def from_matrix(self, matrix: Any) -> Any:
        """Return (a, b, tx, ty)."""
        entries = [matrix[:, 0, 0], matrix[:, 1, 0], matrix[:, 0, 2], matrix[:, 1, 2]]
        return tf.stack(entries, axis=-1)


class Affine(LinearTransform):
    """Any linear map and shift. Theta is the 2x3 matrix.

    Source:
        Jaderberg et al. 2015, eq. 1.
    """

    name = "affine"

    @property
    def theta_shape(self) -> tuple[int, ...]:
        """(2, 3)."""
        return (2, 3)

    def identity(self) -> Array:
        """Return [[1, 0, 0], [0, 1, 0]]."""
        return np.eye(2, 3, dtype=np.float32)

    def planes(self, theta: Any, output_size: Any, align_corners: bool) -> Planes:
        """Return the planes of the grid."""
        return affine_coordinates(theta, output_size, align_corners)

    def rows(self, theta: Any) -> Any:
        """Return theta."""
        return theta

    def matrix(self, theta: Any) -> Any:
        """Return the matrix `[batch, 3, 3]`."""
        zero = tf.zeros_like(theta[:, :1, :2])
        last = tf.concat([zero, tf.ones_like(theta[:, :1, :1])], axis=2)
        return tf.concat([theta, last], axis=1)

    def from_matrix(self, matrix: Any) -> Any:
        """Return the first two rows."""
        return matrix[:, :2, :]


def _separable(x: Any, y: Any) -> Planes:
    """Return planes from x `[batch, width]`, the same in every row, and y `[batch, height]`."""
    # Not x + zeros: a converter adds the zeros to what is constant in x, and stores whole planes.
    width, height = sizes(x)[1], sizes(y)[1]
    across = tf.tile(tf.expand_dims(x, 1), [1, height, 1])
    down = tf.tile(tf.expand_dims(y, 2), [1, 1, width])
    return across, down
