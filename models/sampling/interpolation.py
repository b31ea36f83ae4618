"""Bilinear, nearest and bicubic interpolation at pixel coordinates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from stnkit.models.sampling.coordinates import clip, reflect
from stnkit.models.sampling.flat_gather import FlatImage
from stnkit.models.shapes import Size, as_float, sizes

_CUBIC = -0.75  # the coefficient of PyTorch and of ONNX's default


def _inside(pixel: Any, size: Size, padding_mode: str, align_corners: bool) -> Any:
    """Return `pixel` moved to where `padding_mode` reads it: all later arithmetic is in bounds."""
    last = as_float(size, pixel.dtype) - 1
    if padding_mode == "zeros":
        # One pixel of zeros surrounds the image: what lies further out reads zeros there.
        return clip(pixel, -1.0, last + 1)
    if padding_mode == "border":
        return clip(pixel, 0.0, last)
    return reflect(pixel, size, align_corners)


def _surround(image: Any, padding_mode: str, width: int) -> tuple[Any, int]:
    """Return the image to read from, and the index that its pixel 0 has there."""
    if padding_mode != "zeros":
        return image, 0
    # Padding once replaces a mask on every tap, and makes the last pixel fade to zero.
    spatial = [[width, width]] * (image.shape.rank - 2)
    return tf.pad(image, [[0, 0], *spatial, [0, 0]]), width


def _restore(values: Any, like: Any, channels: Size) -> Any:
    return tf.reshape(values, [*sizes(like), channels])


def bilinear(image: Any, coordinates: Sequence[Any], padding_mode: str, align_corners: bool) -> Any:
    r"""Return the image blended from the pixels around each point, four of them or eight.

    $$V = \sum_n \sum_m U_{nm} \max(0, 1 - |x - m|) \max(0, 1 - |y - n|)$$

    Args:
        image: `[batch, *spatial, channels]` float.
        coordinates: `[batch, *output]` float pixels for each axis, the slowest first: (y, x) for
            images and (z, y, x) for volumes.
        padding_mode: "zeros", "border" or "reflection".
        align_corners: Where reflection has its axes.

    Returns:
        `[batch, *output, channels]` of the image's dtype.

    Source:
        Jaderberg et al. 2015, eq. 5; the derivatives TensorFlow finds are eq. 6 and 7.
    """
    _, *spatial, channels = sizes(image)
    padded, margin = _surround(image, padding_mode, 1)
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

    axes = [split(pixel, size) for pixel, size in zip(coordinates, spatial, strict=True)]

    def blend(chosen: list[Any]) -> Any:
        if len(chosen) == len(axes):
            return pixels.read(pixels.index(chosen))
        first, second, weight = axes[len(chosen)]
        low, high = blend([*chosen, first]), blend([*chosen, second])
        return low + (high - low) * weight

    return _restore(blend([]), coordinates[0], channels)


def nearest(image: Any, coordinates: Sequence[Any], padding_mode: str, align_corners: bool) -> Any:
    """Return the image at the pixels nearest to each point; ties go to the even index.

    Args and Returns are those of `bilinear`. There is no gradient for the coordinates.

    Source:
        ONNX operator GridSample, mode "nearest"; C `nearbyint`, as PyTorch uses it.
    """
    _, *spatial, channels = sizes(image)
    padded, margin = _surround(image, padding_mode, 1)
    pixels = FlatImage(padded)
    closest = [
        tf.cast(tf.round(_inside(pixel, size, padding_mode, align_corners)), tf.int32) + margin
        for pixel, size in zip(coordinates, spatial, strict=True)
    ]
    return _restore(pixels.read(pixels.index(closest)), coordinates[0], channels)


def bicubic(image: Any, coordinates: Sequence[Any], padding_mode: str, align_corners: bool) -> Any:
    r"""Return the image interpolated by cubic convolution over 4 x 4 pixels, with a = -0.75.

    $$k(d) = (a + 2) d^3 - (a + 3) d^2 + 1 \;(d \le 1), \quad
    k(d) = a d^3 - 5 a d^2 + 8 a d - 4 a \;(1 < d < 2)$$

    Convention:
        Each of the 16 pixels is moved by the padding mode on its own, after the point's own
        neighbourhood is chosen: that is how ONNX and PyTorch define it.

    Args and Returns are those of `bilinear`; images only.

    Source:
        Keys 1981, Cubic Convolution Interpolation; ONNX operator GridSample, mode "cubic".
    """
    _, *spatial, channels = sizes(image)
    # Of a point up to two pixels outside, one tap may still be in the image: the ring is wider.
    padded, margin = _surround(image, padding_mode, 3)
    pixels = FlatImage(padded)

    def taps(pixel: Any, size: Size) -> tuple[list[Any], list[Any]]:
        last = as_float(size, pixel.dtype) - 1
        if padding_mode != "reflection":
            # Further out every tap reads zero, or the same border pixel: the answer is the same.
            pixel = clip(pixel, -2.0, last + 2)
        else:
            pixel = _finite(pixel)
        left = tf.floor(pixel)
        if margin:
            left = tf.minimum(left, last + 1)
        # Weights of a half-precision image are rounded once, after the cubics.
        weights = [
            tf.reshape(tf.cast(weight, image.dtype), [-1, 1])
            for weight in _cubic_weights(pixel - left)
        ]
        places = []
        for step in range(-1, 3):
            place = left + step
            if padding_mode == "border":
                place = clip(place, 0.0, last)
            elif padding_mode == "reflection":
                place = tf.round(reflect(place, size, align_corners))
            places.append(tf.cast(place, tf.int32) + margin)
        return places, weights

    (rows, row_weights), (columns, column_weights) = (
        taps(pixel, size) for pixel, size in zip(coordinates, spatial, strict=True)
    )

    def line(row: Any) -> Any:
        values = [pixels.read(pixels.index([row, column])) for column in columns]
        return _weighted(values, column_weights)

    return _restore(_weighted([line(row) for row in rows], row_weights), coordinates[0], channels)


def _finite(pixel: Any) -> Any:
    """Keep a coordinate where floor and reflection are defined; NaN reads at the low end."""
    return clip(pixel, -1e6, 1e6)


def _cubic_weights(away: Any) -> list[Any]:
    """Return the weights of the four pixels around a point `away` in [0, 1] from the second."""

    def near(d: Any) -> Any:
        return ((_CUBIC + 2) * d - (_CUBIC + 3)) * d * d + 1

    def far(d: Any) -> Any:
        return ((_CUBIC * d - 5 * _CUBIC) * d + 8 * _CUBIC) * d - 4 * _CUBIC

    return [far(away + 1), near(away), near(1 - away), far(2 - away)]


def _weighted(values: list[Any], weights: list[Any]) -> Any:
    total = values[0] * weights[0]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total = total + value * weight
    return total


INTERPOLATIONS: dict[str, Callable[[Any, Sequence[Any], str, bool], Any]] = {
    "bilinear": bilinear,
    "nearest": nearest,
    "bicubic": bicubic,
}
