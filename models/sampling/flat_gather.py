"""Reading pixels by one flat int32 index: the form of gather that every target accepts.

A 1-D index into `[batch * height * width, channels]` on axis 0 is what mobile GPU delegates and NPU
compilers take; GATHER_ND and batched gathers are what they refuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from stnkit.models.shapes import sizes

_INT32_MAX = 2**31 - 1


class FlatImage:
    """A batch of images or volumes as rows of pixels, readable at integer coordinates.

    Args:
        image: `[batch, *spatial, channels]`, e.g. `[batch, height, width, channels]`.

    Raises:
        ValueError: If the number of pixels of the batch does not fit int32.
    """

    def __init__(self, image: Any) -> None:
        self.batch, *self.spatial, self.channels = sizes(image)
        pixels = 1
        for size in (self.batch, *self.spatial):
            pixels *= size if isinstance(size, int) else 1
        if pixels > _INT32_MAX:
            raise ValueError(
                f"the image batch has {pixels} pixels (padding included): flat int32 indices reach "
                f"{_INT32_MAX}. Sample a smaller batch at a time"
            )
        self._rows = tf.reshape(image, [-1, self.channels])

    def index(self, coordinates: Sequence[Any]) -> Any:
        """Return the flat index of a pixel of each item's own image.

        Args:
            coordinates: `[batch, ...]` int32 for each axis, the slowest first: (y, x) or (z, y, x),
                each in [0, its size).

        Returns:
            `[batch, ...]` int32.
        """
        # Integers, because float32 no longer counts every pixel past 2**24 of them.
        index = coordinates[0]
        volume = self.spatial[0]
        for coordinate, size in zip(coordinates[1:], self.spatial[1:], strict=True):
            index = index * size + coordinate
            volume = volume * size
        if isinstance(self.batch, int) and self.batch == 1:
            return index
        first = tf.reshape(tf.range(self.batch) * volume, [-1, *[1] * (index.shape.rank - 1)])
        return index + first

    def read(self, index: Any) -> Any:
        """Return `[n, channels]`, the pixels at `index` in its flattened order."""
        return tf.gather(self._rows, tf.reshape(index, [-1]))
