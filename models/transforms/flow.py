"""Flow fields: dense displacements, and diffeomorphic flows of a stationary velocity field."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from stnkit.models.sampling.grid_sample import sample_planes
from stnkit.models.shapes import check_output_size
from stnkit.models.transforms.base import Planes, Transform, base_axes


class DenseFlow(Transform):
    """A displacement for every point: x_in = x + u(x, y), y_in = y + v(x, y).

    Convention:
        Theta is the field (u, v) in normalised units, `[height, width, 2]`; a displacement of 2 is
        the whole side of the image. A field of another size than the output is interpolated
        bilinearly, with its border held.

    Args:
        size: `(height, width)` of the field.
        bounds: As in `Transform`.

    Raises:
        ValueError: If a size is not positive.
    """

    name = "dense_flow"

    def __init__(self, size: Any, bounds: Any = None) -> None:
        height, width = check_output_size(size)
        self.size = (int(height), int(width))
        super().__init__(bounds)

    @property
    def theta_shape(self) -> tuple[int, ...]:
        """(height, width, 2)."""
        return (*self.size, 2)

    def identity(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return a field of zeros."""
        return np.zeros(self.theta_shape, np.float32)

    def displacement(self, theta: Any, align_corners: bool) -> Any:
        """Return the displacement field `[batch, height, width, 2]` that theta stands for."""
        del align_corners
        return theta

    def planes(self, theta: Any, output_size: Any, align_corners: bool) -> Planes:
        """Return the planes of the grid."""
        columns, rows = base_axes(output_size, align_corners, theta.dtype)
        field = self.displacement(theta, align_corners)
        height, width = check_output_size(output_size)
        if (height, width) != self.size:
            field = tf.raw_ops.ResizeBilinear(
                images=field,
                size=tf.stack([height, width]),
                align_corners=align_corners,
                half_pixel_centers=not align_corners,
            )
            field = tf.cast(field, theta.dtype)
        return field[..., 0] + columns, field[..., 1] + tf.expand_dims(rows, 1)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this transform again."""
        return {"size": list(self.size), **super().get_config()}


class DiffeomorphicFlow(DenseFlow):
    r"""The flow of a stationary velocity field for one unit of time, by scaling and squaring.

    $$\phi = \exp(v): \quad \phi_0 = \mathrm{id} + v / 2^n, \quad
    \phi_{i+1} = \phi_i \circ \phi_i$$

    The map folds nowhere where the field is smooth, and the flow of -v is its inverse.

    Args:
        size: `(height, width)` of the velocity field.
        steps: n, how often the flow is composed with itself, at least 1.
        bounds: As in `Transform`.

    Raises:
        ValueError: If a size is not positive, or `steps` is below 1.

    Source:
        Arsigny et al. 2006, A Log-Euclidean Framework for Statistics on Diffeomorphisms; Dalca et
        al. 2018, Unsupervised Learning for Fast Probabilistic Diffeomorphic Registration.
    """

    name = "diffeomorphic_flow"

    def __init__(self, size: Any, steps: int = 7, bounds: Any = None) -> None:
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"steps is {steps!r}: expected a number of squarings, at least 1")
        self.steps = steps
        super().__init__(size, bounds)

    def displacement(self, theta: Any, align_corners: bool) -> Any:
        """Return the displacement of the flow of the velocity field theta."""
        columns, rows = base_axes(self.size, align_corners, theta.dtype)
        down = tf.expand_dims(rows, 1)
        field = theta / 2.0**self.steps
        for _ in range(self.steps):
            x, y = field[..., 0] + columns, field[..., 1] + down
            field = field + sample_planes(field, (x, y), "bilinear", "border", align_corners)
        return field

    def inverse(self, theta: Any) -> Any:
        """Return the velocity field of the inverse flow, -v."""
        return -self.check_theta(theta)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this transform again."""
        return {"steps": self.steps, **super().get_config()}
