"""Smoothing an image before it is sampled at fewer points than it has pixels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from stnkit.models.shapes import Size, sizes


def check_known_sizes(image_shape: Any, output_size: tuple[Size, Size]) -> None:
    """Check that the sizes of the filter can be worked out.

    Raises:
        ValueError: If a size of the image or of the output is open.
    """
    shape = tf.TensorShape(image_shape)
    for size in (*shape.as_list()[1:], *output_size):
        if not isinstance(size, int):
            raise ValueError(
                f"image has shape {shape} and the output {output_size}: anti-aliasing needs "
                "known sizes"
            )


def antialias(image: Any, output_size: tuple[Size, Size]) -> Any:
    """Return the image smoothed for being shrunk to `output_size`.

    Convention:
        A triangle filter of one output pixel's half width along each axis that shrinks, as
        antialiased resizing has it; the border is mirrored. It is right for a theta near the
        identity: what theta itself shrinks is not known before it is applied.

    Args:
        image: `[batch, height, width, channels]` float, sizes known.
        output_size: `(height, width)` in pixels, known.

    Raises:
        ValueError: If a size is open.
    """
    check_known_sizes(image.shape, output_size)
    _, height, width, channels = sizes(image)
    for axis, (size, target) in enumerate(zip((height, width), output_size, strict=True), start=1):
        if target < size:
            image = _smooth(image, axis, size / target, size, channels)
    return image


def _smooth(image: Any, axis: int, scale: float, size: int, channels: int) -> Any:
    reach = min(math.ceil(scale) - 1, size)
    steps = np.arange(-reach, reach + 1)
    weights = np.maximum(0.0, 1 - np.abs(steps) / scale)
    weights /= weights.sum()
    shape = [len(steps), 1] if axis == 1 else [1, len(steps)]
    kernel = np.tile(weights.reshape(*shape, 1, 1), (1, 1, channels, 1))
    padding = [[0, 0], [0, 0], [0, 0], [0, 0]]
    padding[axis] = [reach, reach]
    padded = tf.pad(image, padding, mode="SYMMETRIC")
    return tf.nn.depthwise_conv2d(
        padded, tf.constant(kernel, image.dtype), strides=[1, 1, 1, 1], padding="VALID"
    )
