"""From normalised coordinates to pixel coordinates inside the image, per padding mode."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from stnkit.models.shapes import Size, as_float


def to_pixels(coordinate: Any, size: Size, align_corners: bool) -> Any:
    """Return pixel coordinates: 0 is the centre of the first pixel, `size - 1` that of the last.

    The order of operations is the one of ONNX GridSample and PyTorch, so that the ties of nearest
    fall on the same pixel.
    """
    length = as_float(size, coordinate.dtype)
    if align_corners:
        return (coordinate + 1) * 0.5 * (length - 1)
    return ((coordinate + 1) * length - 1) * 0.5


def clip(pixel: Any, lowest: float, highest: Any) -> Any:
    """Clip to [lowest, highest], with NaN read as far out on the low side.

    A comparison with NaN is false in every runtime, while their minimum and maximum disagree on it.
    Afterwards the cast to an integer is defined, whatever came in.
    """
    low = tf.constant(lowest, pixel.dtype)
    return tf.minimum(tf.where(pixel > low, pixel, low), tf.cast(highest, pixel.dtype))


def reflect(pixel: Any, size: Size, align_corners: bool) -> Any:
    """Reflect about the image's edges until inside, then clip to the pixel centres.

    Convention:
        The edges are the outer edges of the border pixels (-0.5 and size - 0.5), with
        `align_corners=True` their centres (0 and size - 1).
    """
    length = as_float(size, pixel.dtype)
    low, span = (0.0, length - 1) if align_corners else (-0.5, length)
    if isinstance(size, int):
        span = max(span, 1e-6)  # one pixel between its own centres: everything reflects onto it
    else:
        span = tf.maximum(span, 1e-6)
    period = 2 * span
    offset = pixel - low
    offset = offset - period * tf.floor(offset / period)  # [0, period)
    return clip(span - tf.abs(offset - span) + low, 0.0, length - 1)
