"""The thin plate spline transform."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from stnkit.models.sampling.pixel_grid import PixelGrid, frame
from stnkit.models.shapes import Size, sizes
from stnkit.models.transforms.base import Planes, Transform, base_axes

_TINY = 1e-30  # log(0) times 0 is NaN; log of this times 0 is 0, which is the limit
# Squared distances are divided by the largest that there is. That changes U by a multiple of r^2,
# which the conditions on w cancel, and makes it six times smaller: so much less is rounded away.
_SCALE = 8.0**-0.5
_FAR = 1e9  # px; farther displacements read outside, wherever


def _radial(squared: Any) -> Any:
    """Return u log u of scaled squared distances u, 0 at 0 (NumPy)."""
    return squared * np.log(np.maximum(squared, _TINY))


def _foreseen_by_nobody(theta: Any) -> Any:
    """Return 0, computed from theta.

    The kernel of pixels and control points does not depend on theta, and a converter would bake it
    into the file: K * K images. A zero that it cannot foresee keeps it computed.
    """
    return tf.stop_gradient(tf.cast(tf.reduce_max(theta) > np.inf, theta.dtype))


class ThinPlateSpline(Transform):
    r"""The smoothest map that takes a K x K grid of control points where theta says.

    $$f(p) = a_0 + A p + \sum_k w_k \, U(\lVert p - c_k \rVert), \quad U(r) = r^2 \log r^2$$

    with $f(c_k) = \theta_k$ and $\sum w_k = \sum w_k c_k = 0$. It is computed as p plus the spline
    of the displacements $\theta_k - c_k$: the same map with less rounding, none at the identity.

    Convention:
        The control points $c_k$ lie on a regular grid over the *output*, row by row from the top
        left, from -1 to 1; $\theta_k$ is the point (x, y) of the input that $c_k$ is read from. The
        identity theta is the grid itself.

    Args:
        points: K, control points along a side, at least 2.
        bounds: As in `Transform`.

    Raises:
        ValueError: If `points` is below 2 or no integer.

    Source:
        Bookstein 1989, Principal Warps; Jaderberg et al. 2015, section 3.2.
    """

    name = "thin_plate_spline"

    def __init__(self, points: int = 4, bounds: Any = None) -> None:
        if isinstance(points, bool) or not isinstance(points, int) or points < 2:
            raise ValueError(f"points is {points!r}: expected control points a side, at least 2")
        self.points = points
        axis = np.linspace(-1.0, 1.0, points)
        y, x = np.meshgrid(axis, axis, indexing="ij")
        self._control = np.stack([x.ravel(), y.ravel()], axis=1)
        super().__init__(bounds)
        self._solver = self._solve()

    @property
    def theta_shape(self) -> tuple[int, ...]:
        """(K * K, 2)."""
        return (self.points**2, 2)

    def identity(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the control points, `[K * K, 2]`."""
        return self._control.astype(np.float32)

    def _solve(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the matrix `[K * K + 3, K * K]` from theta to the coefficients w, a_0, A.

        The control points never move, so the system is inverted once, here, in float64.
        """
        count = len(self._control)
        gaps = _SCALE * (self._control[:, np.newaxis] - self._control[np.newaxis])
        system = np.zeros((count + 3, count + 3))
        system[:count, :count] = _radial((gaps**2).sum(-1))
        system[:count, count] = 1
        system[:count, count + 1 :] = self._control
        system[count:, :count] = system[:count, count:].T
        return np.asarray(np.linalg.inv(system)[:, :count], np.float64)

    def planes(self, theta: Any, output_size: Any, align_corners: bool) -> Planes:
        """Return the planes of the grid."""
        columns, rows = base_axes(output_size, align_corners, theta.dtype)
        moved = theta - tf.constant(self._control, theta.dtype)
        across, down, bent = self._spline(moved, columns, rows, _foreseen_by_nobody(theta))
        # Last the identity: what is far smaller than it is then rounded once.
        offsets = bent + (tf.expand_dims(across, 2) + tf.expand_dims(down, 3))
        return columns + offsets[:, 0], tf.expand_dims(rows, 1) + offsets[:, 1]

    def pixel_grid(
        self, theta: Any, output_size: Any, image_size: tuple[Size, Size], align_corners: bool
    ) -> PixelGrid:
        """Return the grid in pixel coordinates; see `Transform.pixel_grid`."""
        dtype = theta.dtype
        columns, rows = base_axes(output_size, align_corners, dtype)
        scale, offset = frame(image_size, align_corners, dtype)
        moved = (theta - tf.constant(self._control, dtype)) * scale  # [batch, K*K, 2], px
        # One value that is not finite spoils the coordinate everywhere: it then reads far outside.
        sound = tf.reduce_all(tf.abs(moved) < _FAR, axis=1, keepdims=True)
        moved = tf.where(sound, moved, tf.zeros_like(moved))
        away = tf.where(tf.transpose(sound, [0, 2, 1]), tf.constant(0, dtype), -2 * _FAR)
        across, down, bent = self._spline(moved, columns, rows, _foreseen_by_nobody(theta))
        x, y = tf.constant([[1.0], [0.0]], dtype), tf.constant([[0.0], [1.0]], dtype)
        across += x * (scale[0] * columns)
        down += y * (scale[1] * rows) + (tf.reshape(offset, [2, 1]) + away)
        return PixelGrid(points=bent + (tf.expand_dims(across, 2) + tf.expand_dims(down, 3)))

    def _spline(self, moved: Any, columns: Any, rows: Any, zero: Any) -> tuple[Any, Any, Any]:
        """Return the spline of displacements as what is flat in x, flat in y, and bent.

        The pixels lie as the control points do, alike to the left and right, above and below. So
        the kernel is computed for a quarter of the pixels; in the others it is the same with the
        control points' weights in mirrored order.

        Args:
            moved: `[batch, K * K, 2]` displacements of the control points, in any unit.
            columns: `[width]` normalised.
            rows: `[height]` normalised.
            zero: The number 0, which no converter knows to be one.

        Returns:
            `[batch, 2, width]`, `[batch, 2, height]` and `[batch, 2, height, width]`, in the unit
            of `moved`; their sum is the spline.
        """
        dtype, count = moved.dtype, len(self._control)
        coefficients = tf.matmul(tf.constant(self._solver, dtype), moved)
        coefficients = tf.transpose(coefficients, [0, 2, 1])  # [batch, 2, K*K + 3]
        across = coefficients[:, :, count + 1 : count + 2] * columns
        down = coefficients[:, :, count + 2 :] * rows + coefficients[:, :, count : count + 1]
        (height,), (width,) = sizes(rows), sizes(columns)
        top, left = (height + 1) // 2, (width + 1) // 2
        kernel = self._kernel(columns[:left] + zero, rows[:top] + zero)
        number = np.arange(count).reshape(self.points, self.points)
        mirrored = [number, number[:, ::-1], number[::-1], number[::-1, ::-1]]
        order = np.stack(mirrored).reshape(-1)
        weights = tf.reshape(tf.gather(coefficients, order, axis=2), [-1, 8, count])
        quarters = tf.unstack(tf.reshape(tf.matmul(weights, kernel), [-1, 2, 4, top, left]), axis=2)

        def line(first: int) -> Any:
            """Return the half of the image that two quarters make."""
            right = quarters[first + 1]
            if isinstance(width, int) and width % 2 == 0:
                return tf.concat([quarters[first], tf.reverse(right, [3])], axis=3)
            right = tf.reverse(right[:, :, :, : width - left], [3])
            return tf.concat([quarters[first], right], axis=3)

        lower = line(2)
        if not (isinstance(height, int) and height % 2 == 0):
            lower = lower[:, :, : height - top]
        return across, down, tf.concat([line(0), tf.reverse(lower, [2])], axis=2)

    def _kernel(self, columns: Any, rows: Any) -> Any:
        """Return U of the distances of all pixels to the control points, `[K * K, pixels]`."""
        scaled = tf.constant(_SCALE * self._control, columns.dtype)
        across = tf.square(tf.expand_dims(columns * _SCALE, 0) - scaled[:, 0:1])  # [K*K, width]
        down = tf.square(tf.expand_dims(rows * _SCALE, 0) - scaled[:, 1:2])  # [K*K, height]
        squared = tf.expand_dims(across, 1) + tf.expand_dims(down, 2)
        kernel = squared * tf.math.log(tf.maximum(squared, tf.constant(_TINY, columns.dtype)))
        return tf.reshape(kernel, [len(self._control), -1])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this transform again."""
        return {"points": self.points, **super().get_config()}
