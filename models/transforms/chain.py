"""Several transforms behind one another, as one transform: the image is sampled once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from stnkit.models.transforms.base import Planes, Transform


class Chain(Transform):
    r"""Warp by the first transform, the result by the second, and so on, in one grid.

    $$x_{in} = T_1(T_2(\dots T_n(x_{out})))$$

    Transforms of one family are better composed by their own `compose`; a chain joins different
    ones, an affine map and a flow for instance.

    Convention:
        Theta is the thetas of the parts, each flattened, in their order. Bounds are those of the
        parts.

    Args:
        transforms: Two or more, as objects, names or configurations. All but the last must be able
            to map any point: matrices and flows can, a thin plate spline can stand last.

    Raises:
        ValueError: If there are fewer than two, or one stands where it cannot.

    Source:
        Jaderberg et al. 2015, section 3.2: the maps are differentiable, so is their composition.
    """

    name = "chain"

    def __init__(self, transforms: Sequence[Any]) -> None:
        # The registry knows this class: it can be asked only when it is complete.
        from stnkit.models.transforms.registry import as_transform

        several = isinstance(transforms, Sequence) and not isinstance(transforms, (str, bytes))
        if not several or len(transforms) < 2:
            raise ValueError(
                f"transforms is {transforms!r}: expected two or more transforms, "
                "e.g. [Affine(), DenseFlow(size=(28, 28))]"
            )
        self.transforms = tuple(as_transform(part) for part in transforms)
        for part in self.transforms[:-1]:
            if not _maps_points(part):
                raise ValueError(
                    f"{part!r} cannot map single points: in a chain it can only stand last"
                )
        self._counts = [part.num_params for part in self.transforms]
        super().__init__(None)

    @property
    def theta_shape(self) -> tuple[int, ...]:
        """(sum of the parts' parameters,)."""
        return (sum(self._counts),)

    def identity(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the parts' identities, flattened, behind one another."""
        return np.concatenate([np.ravel(part.identity()) for part in self.transforms])

    def split(self, theta: Any) -> list[Any]:
        """Return the theta of each part, `[batch, *theta_shape]`, from `[batch, num_params]`."""
        pieces = tf.split(theta, self._counts, axis=1)
        return [
            tf.reshape(piece, [-1, *part.theta_shape])
            for piece, part in zip(pieces, self.transforms, strict=True)
        ]

    def limits(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the bounds of the parts' parameters."""
        return np.concatenate([part.limits() for part in self.transforms])

    def bounded(self, raw: Any) -> Any:
        """Return theta from raw parameters, each part within its own bounds."""
        parts = [
            part.bounded(piece)
            for part, piece in zip(self.transforms, self.split(raw), strict=True)
        ]
        flat = [
            tf.reshape(piece, [-1, count]) for piece, count in zip(parts, self._counts, strict=True)
        ]
        return tf.concat(flat, axis=1)

    def planes(self, theta: Any, output_size: Any, align_corners: bool) -> Planes:
        """Return the planes of the grid."""
        thetas = self.split(theta)
        points = self.transforms[-1].planes(thetas[-1], output_size, align_corners)
        return self._outer(thetas[:-1], points, align_corners)

    def map_points(self, theta: Any, points: Planes, align_corners: bool) -> Planes:
        """Return where the points are read, the last transform first."""
        return self._outer(self.split(theta), points, align_corners)

    def _outer(self, thetas: Sequence[Any], points: Planes, align_corners: bool) -> Planes:
        pairs = list(zip(self.transforms, thetas, strict=False))
        for part, theta in reversed(pairs):
            points = part.map_points(theta, points, align_corners)
        return points

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this transform again."""
        from stnkit.models.transforms.registry import describe

        return {"transforms": [describe(part) for part in self.transforms]}


def _maps_points(transform: Transform) -> bool:
    """Return whether a transform maps any point: a chain does so if its last part does."""
    while isinstance(transform, Chain):
        transform = transform.transforms[-1]
    return type(transform).map_points is not Transform.map_points
