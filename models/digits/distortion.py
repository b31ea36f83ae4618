"""Random rotation, scale and shift of digits: what the transformer learns to undo."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from stnkit.models.grids import affine_grid
from stnkit.models.sampling import grid_sample
from stnkit.models.shapes import sizes


@dataclass(frozen=True)
class Distortion:
    """Ranges from which each digit's distortion is drawn, uniformly and independently.

    Attributes:
        rotation_degrees: Largest rotation either way.
        scale: Smallest and largest factor on the digit's size.
        shift_px: Largest shift along each axis, either way.
    """

    rotation_degrees: float = 45.0
    scale: tuple[float, float] = (0.7, 1.2)
    shift_px: float = 3.0

    def draw(self, rng: np.random.Generator, count: int, side_px: int) -> Any:
        """Return `count` random thetas `[count, 2, 3]` float32 for square images.

        Convention:
            Theta maps output to input: it is the inverse of what happens to the digit.
        """
        angle = np.deg2rad(rng.uniform(-self.rotation_degrees, self.rotation_degrees, count))
        scale = rng.uniform(*self.scale, count)
        shift = rng.uniform(-self.shift_px, self.shift_px, (count, 2)) * 2 / side_px
        cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
        matrix = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], 1)
        offset = -np.einsum("nij,nj->ni", matrix, shift)
        return np.concatenate([matrix, offset[:, :, None]], axis=2).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Return the ranges as JSON."""
        return asdict(self)


@tf.function(reduce_retracing=True)
def warp(images: Any, theta: Any) -> Any:
    """Return uint8 images `[n, h, w]` warped by theta, as `[n, h, w, 1]` float32 in [0, 1]."""
    pixels = tf.cast(images, tf.float32)[..., tf.newaxis] / 255.0
    # Not of the static shape: it is relaxed when images of a second size come.
    _, height, width, _ = sizes(pixels)
    return grid_sample(pixels, affine_grid(theta, (height, width)))
