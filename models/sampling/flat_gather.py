"""Reading pixels by one flat int32 index: the form of gather that every target accepts.

A 1-D index into `[batch * height * width, channels]` on axis 0 is what mobile GPU delegates and NPU
compilers take; GATHER_ND and batched gathers are what they refuse.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from stnkit.models.shapes import sizes

_INT32_MAX = 2**31 - 1


class FlatImage:
    """A batch of images as rows of pixels, readable at integer coordinates.

    Args:
        image: `[batch, height, width, channels]`.

    Raises:
        ValueError: If the number of pixels of the batch does not fit int32.
    """

    def __init__(self, image: Any) -> None:
        self.batch, self.height, self.width, self.channels = sizes(image)
        static = [s for s in (self.batch, self.height, self.width) if isinstance(s, int)]
        pixels = 1
        for size in static:
            pixels *= size
        if pixels > _INT32_MAX:
            raise ValueError(
                f"the image batch has {pixels} pixels (padding included): flat int32 indices reach "
                f"{_INT32_MAX}. Sample a smaller batch at a time"
            )
        self._rows = tf.reshape(image, [-1, self.channels])

    def index(self, x: Any, y: Any) -> Any:
        """Return the flat index `[batch, h, w]` int32 of pixel (x, y) of each item's own image.

        Args:
            x: `[batch, h, w]` int32 column in [0, width).
            y: `[batch, h, w]` int32 row in [0, height).
        """
        # Integers, because float32 no longer counts every pixel past 2**24 of them.
        index = y * self.width + x
        if isinstance(self.batch, int) and self.batch == 1:
            return index
        first = tf.range(self.batch) * (self.height * self.width)
        return index + tf.reshape(first, [-1, 1, 1])

    def read(self, index: Any) -> Any:
        """Return `[n, channels]`, the pixels at `index` in its flattened order."""
        return tf.gather(self._rows, tf.reshape(index, [-1]))
