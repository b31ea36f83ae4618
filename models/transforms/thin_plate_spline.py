"""The thin plate spline transform."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from stnkit.models.transforms.base import Planes, Transform, base_axes

_TINY = 1e-30  # log(0) times 0 is NaN; log of this times 0 is 0, which is the limit


def _radial(squared: Any) -> Any:
    """Return r^2 log r^2 of squared distances, 0 at 0 (NumPy)."""
    return squared * np.log(np.maximum(squared, _TINY))


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
        gaps = self._control[:, np.newaxis] - self._control[np.newaxis]
        system = np.zeros((count + 3, count + 3))
        system[:count, :count] = _radial((gaps**2).sum(-1))
        system[:count, count] = 1
        system[:count, count + 1 :] = self._control
        system[count:, :count] = system[:count, count:].T
        return np.asarray(np.linalg.inv(system)[:, :count], np.float64)

    def planes(self, theta: Any, output_size: Any, align_corners: bool) -> Planes:
        """Return the planes of the grid."""
        dtype, count = theta.dtype, len(self._control)
        columns, rows = base_axes(output_size, align_corners, dtype)
        # The kernel of pixels and control points does not depend on theta, and a converter would
        # bake it into the file: K * K images. A zero that it cannot foresee keeps it computed.
        zero = tf.cast(tf.reduce_max(theta) > np.inf, dtype)
        columns = columns + tf.stop_gradient(zero)
        control = tf.constant(self._control, dtype)
        coefficients = tf.matmul(tf.constant(self._solver, dtype), theta - control)
        across = tf.square(tf.expand_dims(columns, 0) - control[:, 0:1])  # [K*K, width]
        down = tf.square(tf.expand_dims(rows, 0) - control[:, 1:2])  # [K*K, height]
        squared = tf.expand_dims(across, 1) + tf.expand_dims(down, 2)
        kernel = squared * tf.math.log(tf.maximum(squared, tf.constant(_TINY, dtype)))
        flat = tf.reshape(kernel, [count, -1])
        weights = tf.transpose(coefficients[:, :count], [0, 2, 1])  # [batch, 2, K*K]
        height, width = tf.shape(rows)[0], tf.shape(columns)[0]
        if rows.shape[0] is not None and columns.shape[0] is not None:
            height, width = rows.shape[0], columns.shape[0]
        bent = tf.reshape(tf.matmul(weights, flat), [-1, 2, height, width])
        planes = []
        for axis, identity in enumerate((columns, tf.expand_dims(rows, 1))):
            constant = coefficients[:, count, axis : axis + 1]
            along_x = coefficients[:, count + 1, axis : axis + 1] * columns
            along_y = coefficients[:, count + 2, axis : axis + 1] * rows + constant
            flat_part = tf.expand_dims(along_x, 1) + tf.expand_dims(along_y, 2)
            planes.append(identity + (bent[:, axis] + flat_part))
        return planes[0], planes[1]

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this transform again."""
        return {"points": self.points, **super().get_config()}
