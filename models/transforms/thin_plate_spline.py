"""The thin plate spline transform."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf

from stnkit.models.sampling.pixel_grid import PixelGrid, flat_plane, frame, theta_kind
from stnkit.models.sampling.training_form import is_compiled, is_training
from stnkit.models.shapes import Size, sizes
from stnkit.models.transforms.base import Planes, Transform, base_axes

TINY = 1e-30  # log(0) times 0 is NaN; log of this times 0 is 0, which is the limit
# Squared distances are divided by the largest that there is. That changes U by a multiple of r^2,
# which the conditions on w cancel, and makes it six times smaller: so much less is rounded away.
SCALE = 8.0**-0.5
_STORED_BYTES_MAX = 32 * 2**20
FAR = 1e9  # px; displacements that add up to more read outside, wherever


def _radial(squared: Any) -> Any:
    """Return u log u of scaled squared distances u, 0 at 0 (NumPy)."""
    return squared * np.log(np.maximum(squared, TINY))


@lru_cache(maxsize=8)
def _kernel_values(
    points: int, columns: tuple[float, ...], rows: tuple[float, ...]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return U of the distances of all pixels to the control points, `[K * K, pixels]`."""
    axis = np.linspace(-1.0, 1.0, points)[:, np.newaxis]
    across, down = ((SCALE * (np.asarray(centres) - axis)) ** 2 for centres in (columns, rows))
    squared = down[:, np.newaxis, :, np.newaxis] + across[np.newaxis, :, np.newaxis]
    return _radial(squared).reshape(points**2, -1)


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

    Attributes:
        points: K.
        control: The control points, `[K * K, 2]` float64.
        solver: The matrix `[K * K + 3, K * K]` float64 from theta to the coefficients w, a_0, A,
            for distances that are scaled by `SCALE`.

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
        self.control = np.stack([x.ravel(), y.ravel()], axis=1)
        super().__init__(bounds)
        self.solver = self._solve()

    @property
    def theta_shape(self) -> tuple[int, ...]:
        """(K * K, 2)."""
        return (self.points**2, 2)

    def identity(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the control points, `[K * K, 2]`."""
        return self.control.astype(np.float32)

    def _solve(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the matrix `[K * K + 3, K * K]` from theta to the coefficients w, a_0, A.

        The control points never move, so the system is inverted once, here, in float64.
        """
        count = len(self.control)
        gaps = SCALE * (self.control[:, np.newaxis] - self.control[np.newaxis])
        system = np.zeros((count + 3, count + 3))
        system[:count, :count] = _radial((gaps**2).sum(-1))
        system[:count, count] = 1
        system[:count, count + 1 :] = self.control
        system[count:, :count] = system[:count, count:].T
        return np.asarray(np.linalg.inv(system)[:, :count], np.float64)

    def planes(self, theta: Any, output_size: Any, align_corners: bool) -> Planes:
        """Return the planes of the grid."""
        columns, rows = base_axes(output_size, align_corners, theta.dtype)
        moved = tf.transpose(theta - tf.constant(self.control, theta.dtype), [0, 2, 1])
        across, down, bent = self._spline(
            self._coefficients(moved), columns, rows, _foreseen_by_nobody(theta)
        )
        # Last the identity: what is far smaller than it is then rounded once.
        offsets = bent + (tf.expand_dims(across, 2) + tf.expand_dims(down, 3))
        return columns + offsets[:, 0], tf.expand_dims(rows, 1) + offsets[:, 1]

    def pixel_grid(
        self, theta: Any, output_size: Any, image_size: tuple[Size, Size], align_corners: bool
    ) -> PixelGrid:
        """Return the grid in pixel coordinates; see `Transform.pixel_grid`."""
        dtype, count = theta.dtype, len(self.control)
        columns, rows = base_axes(output_size, align_corners, dtype)
        scale, offset = (tf.reshape(it, [2, 1]) for it in frame(image_size, align_corners, dtype))
        moved = tf.transpose(theta - tf.constant(self.control, dtype), [0, 2, 1]) * scale
        # One value that is not finite spoils the coordinate everywhere. All control points are then
        # moved alike, and all pixels with them: far outside.
        sound = tf.reduce_sum(tf.abs(moved), axis=2, keepdims=True) < FAR  # [batch, 2, 1]
        moved = tf.where(sound, moved, tf.constant(-2 * FAR, dtype))  # [batch, 2, K*K], px
        # The identity in pixels is flat: it is added where there are few numbers.
        identity = tf.concat(
            [tf.zeros([2, count], dtype), offset, tf.eye(2, dtype=dtype) * scale], 1
        )
        coefficients, zero = self._coefficients(moved) + identity, _foreseen_by_nobody(theta)
        origin = theta_kind(align_corners, self.points), theta
        if is_compiled():
            kernel = self._stored_kernel(columns, rows) if is_training() else None
            planes = []
            for axis in range(2):
                bend, flat = tf.split(coefficients[:, axis : axis + 1], [count, 3], axis=2)
                flat = tf.roll(tf.squeeze(flat, 1), -1, axis=1)  # x, y, 1
                bent = self._bent(bend, columns, rows, zero, kernel)
                planes.append(flat_plane(flat, columns, rows) + tf.squeeze(bent, 1))
            return PixelGrid(planes=(planes[0], planes[1]), origin=origin)
        across, down, bent = self._spline(coefficients, columns, rows, zero)
        points = bent + (tf.expand_dims(across, 2) + tf.expand_dims(down, 3))
        return PixelGrid(points=points, origin=origin)

    def _coefficients(self, moved: Any) -> Any:
        """Return w, a_0 and A, `[batch, 2, K * K + 3]`, of displacements `[batch, 2, K * K]`."""
        return tf.matmul(moved, tf.constant(self.solver.T, moved.dtype))

    def _spline(
        self, coefficients: Any, columns: Any, rows: Any, zero: Any
    ) -> tuple[Any, Any, Any]:
        """Return the spline as what is flat in x, flat in y, and bent.

        Args:
            coefficients: `[batch, 2, K * K + 3]`, in any unit.
            columns: `[width]` normalised.
            rows: `[height]` normalised.
            zero: The number 0, which no converter knows to be one.

        Returns:
            `[batch, 2, width]`, `[batch, 2, height]` and `[batch, 2, height, width]`, in the unit
            of the coefficients; their sum is the spline.
        """
        bend, start, slope_x, slope_y = tf.split(coefficients, [len(self.control), 1, 1, 1], axis=2)
        kernel = self._stored_kernel(columns, rows) if is_training() else None
        bent = self._bent(bend, columns, rows, zero, kernel)
        return slope_x * columns, slope_y * rows + start, bent

    def _bent(self, bend: Any, columns: Any, rows: Any, zero: Any, kernel: Any) -> Any:
        """Return what is bent of the spline.

        The pixels lie as the control points do, alike to the left and right, above and below. So
        the kernel is computed for a quarter of the pixels; in the others it is the same with the
        control points' weights in mirrored order.

        Args:
            bend: w, `[batch, axes, K * K]`.
            columns: As in `_spline`.
            rows: As in `_spline`.
            zero: As in `_spline`.
            kernel: What `_stored_kernel` returned, or None for it to be computed.

        Returns:
            `[batch, axes, height, width]`.
        """
        count, axes = len(self.control), bend.shape[1]
        (height,), (width,) = sizes(rows), sizes(columns)
        if kernel is not None:
            bent = tf.matmul(tf.reshape(bend, [-1, count]), kernel)
            return tf.reshape(bent, [-1, axes, height, width])
        top, left = (height + 1) // 2, (width + 1) // 2
        kernel = self._kernel(columns[:left] * SCALE + zero, rows[:top] * SCALE + zero)
        number = np.arange(count).reshape(self.points, self.points)
        mirrored = [number, number[:, ::-1], number[::-1], number[::-1, ::-1]]
        order = np.stack(mirrored).reshape(-1)
        weights = tf.reshape(tf.gather(bend, order, axis=2), [-1, count])
        product = tf.reshape(tf.matmul(weights, kernel), [-1, axes, 4, top, left])
        quarters = tf.unstack(product, axis=2)

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
        return tf.concat([line(0), tf.reverse(lower, [2])], axis=2)

    def _kernel(self, columns: Any, rows: Any) -> Any:
        """Return U of the distances of all pixels to the control points, `[K * K, pixels]`.

        Args:
            columns: `[width]` normalised, times `SCALE`.
            rows: `[height]` likewise.
        """
        x, y = (
            tf.constant(SCALE * self.control[:, axis].reshape(-1, 1, 1), columns.dtype)
            for axis in range(2)
        )
        across = tf.math.squared_difference(tf.reshape(columns, [1, 1, -1]), x)
        down = tf.math.squared_difference(tf.reshape(rows, [1, -1, 1]), y)
        squared = across + down  # [K*K, height, width]
        kernel = squared * tf.math.log(tf.maximum(squared, tf.constant(TINY, columns.dtype)))
        return tf.reshape(kernel, [len(self.control), -1])

    def _stored_kernel(self, columns: Any, rows: Any) -> Any:
        """Return U of the distances of all pixels to the control points, computed once.

        Returns:
            `[K * K, pixels]`, beside the graph, which would else hold a copy of it; None where the
            sizes are not known yet, or K * K images are much memory.
        """
        x, y = (tf.get_static_value(axis) for axis in (columns, rows))
        if x is None or y is None:
            return None
        if len(self.control) * len(x) * len(y) * x.itemsize > _STORED_BYTES_MAX:
            return None
        with tf.init_scope():
            return tf.constant(_kernel_values(self.points, tuple(x), tuple(y)), columns.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this transform again."""
        return {"points": self.points, **super().get_config()}
