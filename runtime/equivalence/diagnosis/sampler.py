"""Read an image at any points, in NumPy: the sampler that hypotheses are tried on.

It follows ONNX GridSample, and is written to be taken apart, not for speed.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

__all__ = ["Interpolation", "Padding", "pixel_centres", "read", "to_pixels"]

Interpolation = Literal["bilinear", "nearest", "bicubic"]
Padding = Literal["zeros", "border", "reflection"]

_CUBIC = -0.75
_FAR = 1e6  # px; what lies further out, NaN as well, is read there


def pixel_centres(indices: Any, size: int, align_corners: bool) -> Any:
    """Return the normalised coordinates of pixels along an axis of `size` pixels."""
    if not align_corners:
        return (2 * indices + 1) / size - 1
    return 2 * indices / (size - 1) - 1 if size > 1 else np.zeros(np.shape(indices))


def to_pixels(grid: Any, size_px: tuple[int, int], align_corners: bool) -> Any:
    """Return pixel coordinates of normalised ones.

    Args:
        grid: `[n, 2]` (x, y).
        size_px: `(height, width)` of the image that is read, px.
        align_corners: what -1 and 1 stand for.

    Returns:
        `[n, 2]` (x, y); 0 is the centre of the first pixel.
    """
    sides = np.asarray([size_px[1], size_px[0]], grid.dtype)
    if align_corners:
        return (grid + 1) / 2 * (sides - 1)
    return ((grid + 1) * sides - 1) / 2


def read(
    image: Any, pixels: Any, interpolation: str, padding_mode: str, align_corners: bool
) -> Any:
    """Return an image read at points.

    Args:
        image: `[height, width, channels]`.
        pixels: `[n, 2]` (x, y), px.
        interpolation: one of `Interpolation`.
        padding_mode: one of `Padding`.
        align_corners: where reflection has its axes.

    Returns:
        `[n, channels]` float64.

    Source:
        ONNX operator GridSample.
    """
    image = np.asarray(image, np.float64)
    axes = []
    for axis, size in ((1, image.shape[0]), (0, image.shape[1])):
        place = np.nan_to_num(pixels[:, axis], nan=-_FAR, posinf=_FAR, neginf=-_FAR)
        place = np.clip(place, -_FAR, _FAR)
        if interpolation != "bicubic":
            # A point is moved inside as a whole; of a cubic neighbourhood each pixel is.
            place = _inside(place, size, padding_mode, align_corners)
        axes.append(_taps(place, interpolation))
    total = np.zeros((len(pixels), image.shape[2]))
    for row, row_weight in axes[0]:
        for column, column_weight in axes[1]:
            value = _pixels_at(image, row, column, padding_mode, align_corners)
            total += (row_weight * column_weight)[:, np.newaxis] * value
    return total


def _taps(place: Any, interpolation: str) -> list[tuple[Any, Any]]:
    """Return (index, weight) of each pixel that one axis of a point is made of."""
    if interpolation == "nearest":
        return [(np.round(place), np.ones(len(place)))]
    left = np.floor(place)
    away = place - left
    if interpolation == "bilinear":
        return [(left, 1 - away), (left + 1, away)]
    weights = [_far(away + 1), _near(away), _near(1 - away), _far(2 - away)]
    return [(left + step - 1, weight) for step, weight in enumerate(weights)]


def _near(d: Any) -> Any:
    return ((_CUBIC + 2) * d - (_CUBIC + 3)) * d * d + 1


def _far(d: Any) -> Any:
    return ((_CUBIC * d - 5 * _CUBIC) * d + 8 * _CUBIC) * d - 4 * _CUBIC


def _inside(place: Any, size: int, padding_mode: str, align_corners: bool) -> Any:
    if padding_mode == "border":
        return np.clip(place, 0, size - 1)
    if padding_mode == "reflection":
        return _reflect(place, size, align_corners)
    return place


def _reflect(place: Any, size: int, align_corners: bool) -> Any:
    low, span = (0.0, size - 1.0) if align_corners else (-0.5, float(size))
    span = max(span, 1e-6)
    offset = np.mod(place - low, 2 * span)
    return np.clip(span - np.abs(offset - span) + low, 0, size - 1)


def _pixels_at(image: Any, rows: Any, columns: Any, padding_mode: str, align_corners: bool) -> Any:
    """Return pixels by number; those that do not exist as the padding mode says."""
    chosen = []
    exists = np.ones(len(rows), bool)
    for index, size in ((rows, image.shape[0]), (columns, image.shape[1])):
        if padding_mode == "zeros":
            exists &= (index >= 0) & (index <= size - 1)
        elif padding_mode == "reflection":
            index = np.round(_reflect(index, size, align_corners))
        chosen.append(np.clip(index, 0, size - 1).astype(int))
    return image[chosen[0], chosen[1]] * exists[:, np.newaxis]
