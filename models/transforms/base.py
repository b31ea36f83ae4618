"""What every transform can do."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from stnkit.models.grids import pixel_centres
from stnkit.models.sampling.grid_sample import check_flag
from stnkit.models.sampling.pixel_grid import PixelGrid, dense_pixel_grid
from stnkit.models.shapes import Size, check_output_size
from stnkit.models.transforms.matrices import inverse_3x3

Planes = tuple[Any, Any]
"""The x and the y coordinates of a grid, `[batch, height, width]` each."""


class Transform(ABC):
    """A family of maps from output to input coordinates, with theta as its parameters.

    Convention:
        Coordinates are (x, y), normalised to [-1, 1], x to the right and y down; with
        `align_corners=False` -1 and 1 are the outer edges of the corner pixels. Theta maps output
        to input. `compose(a, b)` is the one map that does what warping by `a` and then warping the
        result by `b` does: it applies `b` to output coordinates first, then `a`.

    Args:
        bounds: Largest distance of every parameter from its value in the identity, one number for
            all or one for each; None leaves theta unbounded. Bounded parameters pass through
            `identity + bound * tanh(raw / bound)`, which changes small values little.

    Attributes:
        name: Name under which layers and the command line know it.
        theta_shape: Shape of one theta; its batch is `[batch, *theta_shape]`.
    """

    name: ClassVar[str]

    def __init__(self, bounds: float | Sequence[float] | None = None) -> None:
        self.bounds = _check_bounds(bounds, self.num_params, type(self).__name__)

    @property
    @abstractmethod
    def theta_shape(self) -> tuple[int, ...]:
        """Shape of one theta."""

    @abstractmethod
    def planes(self, theta: Any, output_size: Any, align_corners: bool) -> Planes:
        """Return the x and y planes of the grid for a theta that `check_theta` has seen."""

    def pixel_grid(
        self, theta: Any, output_size: Any, image_size: tuple[Size, Size], align_corners: bool
    ) -> PixelGrid:
        """Return the grid in pixel coordinates of the image that is read.

        Args:
            theta: `[batch, *theta_shape]`, as `check_theta` returns it.
            output_size: `(height, width)` of the output, px.
            image_size: `(height, width)` of the image, px.
            align_corners: What -1 and 1 stand for.
        """
        planes = self.planes(theta, output_size, align_corners)
        return dense_pixel_grid(planes, image_size, align_corners)

    def map_points(self, theta: Any, points: Planes, align_corners: bool) -> Planes:
        """Return where the map takes any points, not only those of a regular grid.

        Args:
            theta: `[batch, *theta_shape]`, as `check_theta` returns it.
            points: x and y, `[batch, height, width]` each, normalised.
            align_corners: What -1 and 1 stand for.

        Raises:
            ValueError: If the family can map regular grids only.
        """
        raise ValueError(f"{type(self).__name__} maps regular grids only, not single points")

    @property
    def num_params(self) -> int:
        """Number of parameters of one theta."""
        return math.prod(self.theta_shape)

    @abstractmethod
    def identity(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the theta that leaves an image as it is, `theta_shape` float32."""

    def check_theta_shape(self, shape: Any) -> None:
        """Check the shape of a batch of thetas, as far as it is known.

        Raises:
            ValueError: If it is neither `[batch, *theta_shape]` nor `[batch, num_params]`.
        """
        shape, wanted = tf.TensorShape(shape), list(self.theta_shape)
        flat = shape.rank == 2 and shape[1] in (self.num_params, None)
        if not (flat or (shape.rank is not None and shape[1:].is_compatible_with(wanted))):
            inner = ", ".join(str(size) for size in wanted)
            raise ValueError(
                f"theta has shape {shape}: {type(self).__name__} takes [batch, {inner}] or "
                f"[batch, {self.num_params}]"
            )

    def check_theta(self, theta: Any) -> Any:
        """Return theta as `[batch, *theta_shape]`, float32 or wider.

        Args:
            theta: That shape, or `[batch, num_params]`.

        Raises:
            ValueError: If it has another shape, or is not of a float type.
        """
        theta = tf.convert_to_tensor(theta)
        if not theta.dtype.is_floating:
            raise ValueError(f"theta has dtype {theta.dtype.name}: expected a float type")
        self.check_theta_shape(theta.shape)
        wanted, shape = list(self.theta_shape), theta.shape
        if shape.rank != len(wanted) + 1 or not shape[1:].is_fully_defined():
            theta = tf.reshape(theta, [-1, *wanted])
        # Half precision resolves 1/2048 of the frame: coordinates are never computed in it.
        return theta if theta.dtype == tf.float64 else tf.cast(theta, tf.float32)

    def bounded(self, raw: Any) -> Any:
        """Return theta from raw parameters `[batch, *theta_shape]`, within the bounds if any."""
        if self.bounds is None:
            return raw
        # One number stays one number: a flow has as many parameters as pixels, twice.
        shape = self.theta_shape if isinstance(self.bounds, tuple) else ()
        bounds = tf.constant(np.reshape(self.bounds, shape), raw.dtype)
        identity = tf.constant(self.identity(), raw.dtype)
        return identity + bounds * tf.tanh((raw - identity) / bounds)

    def limits(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the bound of each parameter, `[num_params]`, infinite where there is none."""
        bounds = np.inf if self.bounds is None else np.asarray(self.bounds, np.float64)
        return np.broadcast_to(bounds, (self.num_params,))

    def grid(self, theta: Any, output_size: Any, align_corners: bool = False) -> Any:
        """Return the sampling grid.

        Args:
            theta: `[batch, *theta_shape]` or `[batch, num_params]` float.
            output_size: `(height, width)` of the output image, px.
            align_corners: What -1 and 1 stand for.

        Returns:
            `[batch, height, width, 2]` float32 (float64 for float64 theta), last axis (x, y).

        Raises:
            ValueError: If theta has another shape, or a size is not positive.
        """
        align_corners = check_flag(align_corners, "align_corners")
        x, y = self.planes(self.check_theta(theta), output_size, align_corners)
        return tf.stack([x, y], axis=-1)

    def inverse(self, theta: Any) -> Any:
        """Return the theta of the inverse map, of theta's shape.

        Raises:
            ValueError: If the family has no inverse in closed form.
        """
        raise ValueError(
            f"{type(self).__name__} has no inverse in closed form: "
            "translation, attention, similarity, affine, projective and diffeomorphic have one"
        )

    def compose(self, a: Any, b: Any) -> Any:
        """Return the theta of warping by `a`, then warping the result by `b`.

        Raises:
            ValueError: If two maps of the family do not make one of it.
        """
        raise ValueError(
            f"{type(self).__name__} cannot be composed into one theta: "
            "translation, attention, similarity, affine and projective can"
        )

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this transform again."""
        bounds = self.bounds
        return {"bounds": list(bounds) if isinstance(bounds, tuple) else bounds}

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash((type(self), repr(self.get_config())))

    def __repr__(self) -> str:
        given = {k: v for k, v in self.get_config().items() if v is not None}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in given.items())})"


class MatrixTransform(Transform):
    """A transform that is a 3x3 matrix on (x, y, 1), normalised coordinates."""

    @abstractmethod
    def matrix(self, theta: Any) -> Any:
        """Return the matrix `[batch, 3, 3]` that maps output to input coordinates."""

    @abstractmethod
    def from_matrix(self, matrix: Any) -> Any:
        """Return the theta of matrices of the family, `[batch, 3, 3]`."""

    def map_points(self, theta: Any, points: Planes, align_corners: bool) -> Planes:
        """Return the points (x, y) multiplied by the matrix."""
        del align_corners
        rows = self.matrix(theta)
        x, y = points

        def row(index: int) -> Any:
            a, b, c = (tf.reshape(rows[:, index, k], [-1, 1, 1]) for k in range(3))
            return a * x + b * y + c

        return row(0), row(1)

    def compose(self, a: Any, b: Any) -> Any:
        """Return the theta of warping by `a`, then warping the result by `b`: A times B."""
        left = self.matrix(self.check_theta(a))
        right = self.matrix(self.check_theta(b))
        return self.from_matrix(tf.matmul(left, right))

    def inverse(self, theta: Any) -> Any:
        """Return the theta of the inverse map, by the adjugate of the matrix.

        A degenerate theta (zero scale) has no inverse: its parameters become infinite or NaN.
        """
        return self.from_matrix(inverse_3x3(self.matrix(self.check_theta(theta))))


def base_axes(output_size: Any, align_corners: bool, dtype: Any) -> tuple[Any, Any]:
    """Return the normalised coordinates of the output's columns `[width]` and rows `[height]`."""
    height, width = check_output_size(output_size)
    return (
        pixel_centres(width, align_corners, dtype),
        pixel_centres(height, align_corners, dtype),
    )


def _check_bounds(
    bounds: float | Sequence[float] | None, count: int, owner: str
) -> float | tuple[float, ...] | None:
    if bounds is None:
        return None
    try:
        values = np.asarray(bounds, np.float64)
    except (TypeError, ValueError):
        values = np.array(np.nan)
    if values.shape not in ((), (count,)) or not (np.isfinite(values) & (values > 0)).all():
        raise ValueError(
            f"bounds of {owner} are {bounds!r}: expected one positive number, or {count} of them"
        )
    return float(values) if values.ndim == 0 else tuple(float(value) for value in values)
