"""Bilinear and nearest interpolation at pixel coordinates."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from stnkit.models.sampling.coordinates import clip, reflect
from stnkit.models.sampling.flat_gather import FlatImage
from stnkit.models.shapes import Size, as_float, sizes


def _inside(pixel: Any, size: Size, padding_mode: str, align_corners: bool) -> Any:
    """Return `pixel` moved to where `padding_mode` reads it: all later arithmetic is in bounds."""
    last = as_float(size, pixel.dtype) - 1
    if padding_mode == "zeros":
        # One pixel of zeros surrounds the image: what lies further out reads zeros there.
        return clip(pixel, -1.0, last + 1)
    if padding_mode == "border":
        return clip(pixel, 0.0, last)
    return reflect(pixel, size, align_corners)


def _surround(image: Any, padding_mode: str) -> tuple[Any, int]:
    """Return the image to read from, and the index that its pixel 0 has there."""
    if padding_mode != "zeros":
        return image, 0
    # Padding once replaces a mask on each of the four taps, and makes the last pixel fade to zero.
    return tf.pad(image, [[0, 0], [1, 1], [1, 1], [0, 0]]), 1


def _restore(values: Any, like: Any, channels: Size) -> Any:
    batch, height, width = sizes(like)
    return tf.reshape(values, [batch, height, width, channels])


def bilinear(image: Any, x: Any, y: Any, padding_mode: str, align_corners: bool) -> Any:
    r"""Return the image at (x, y), blended from the four pixels around.

    $$V = \sum_n \sum_m U_{nm} \max(0, 1 - |x - m|) \max(0, 1 - |y - n|)$$

    Args:
        image: `[batch, height, width, channels]` float.
        x: `[batch, h, w]` float, column in pixels.
        y: `[batch, h, w]` float, row in pixels.
        padding_mode: "zeros", "border" or "reflection".
        align_corners: Where reflection has its axes.

    Returns:
        `[batch, h, w, channels]` of the image's dtype.

    Source:
        Jaderberg et al. 2015, eq. 5; the derivatives TensorFlow finds are eq. 6 and 7.
    """
    _, height, width, channels = sizes(image)
    padded, margin = _surround(image, padding_mode)
    pixels = FlatImage(padded)

    def split(pixel: Any, size: Size) -> tuple[Any, Any, Any]:
        pixel = _inside(pixel, size, padding_mode, align_corners)
        # The left neighbour may be the last pixel but one at most: the right one then exists.
        # A coordinate on the last pixel has the weight 1 on the right, which is the same value.
        highest = as_float(size, pixel.dtype) - (1 if margin else 2)
        left = tf.minimum(tf.floor(pixel), highest)
        if not margin:
            left = tf.maximum(left, 0.0)  # an axis of one pixel
        weight = tf.cast(pixel - left, image.dtype)
        first = tf.cast(left, tf.int32) + margin
        second = first + 1 if margin else tf.minimum(first + 1, size - 1)
        return first, second, tf.reshape(weight, [-1, 1])

    x0, x1, right = split(x, width)
    y0, y1, below = split(y, height)
    top_left = pixels.read(pixels.index(x0, y0))
    top_right = pixels.read(pixels.index(x1, y0))
    bottom_left = pixels.read(pixels.index(x0, y1))
    bottom_right = pixels.read(pixels.index(x1, y1))
    top = top_left + (top_right - top_left) * right
    bottom = bottom_left + (bottom_right - bottom_left) * right
    return _restore(top + (bottom - top) * below, x, channels)


def nearest(image: Any, x: Any, y: Any, padding_mode: str, align_corners: bool) -> Any:
    """Return the image at the pixels nearest to (x, y); ties go to the even index.

    Args and Returns are those of `bilinear`. There is no gradient for x and y.

    Source:
        ONNX operator GridSample, mode "nearest"; C `nearbyint`, as PyTorch uses it.
    """
    _, height, width, channels = sizes(image)
    padded, margin = _surround(image, padding_mode)
    pixels = FlatImage(padded)

    def closest(pixel: Any, size: Size) -> Any:
        pixel = _inside(pixel, size, padding_mode, align_corners)
        return tf.cast(tf.round(pixel), tf.int32) + margin

    index = pixels.index(closest(x, width), closest(y, height))
    return _restore(pixels.read(index), x, channels)
