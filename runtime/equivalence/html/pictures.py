"""Turn arrays into PNG data URIs.

A picture is shrunk by whole factors where it is larger than a page shows: the mean of each block
for images, its largest value for differences, so that the worst pixel stays.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from stnkit.runtime.equivalence.html.colours import NOT_FINITE, colour_map

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["SIDE_PX_MAX", "Picture", "draw_difference", "draw_image", "value_range"]

SIDE_PX_MAX = 256
"""Longest side that is embedded; a tile of the page is about as large."""


@dataclass(frozen=True)
class Picture:
    """A PNG file in the page.

    Attributes:
        uri: `data:image/png;base64,…`.
        width_px: of the array, before it was shrunk.
        height_px: of the array.
        not_finite: number of pixels that are not finite.
    """

    uri: str = field(repr=False)
    width_px: int
    height_px: int
    not_finite: int


def value_range(*images: npt.NDArray[Any]) -> tuple[float, float]:
    """Return the values that become black and white: (0, 1) where all lie within.

    Args:
        *images: any shapes; values that are not finite do not count.
    """
    import numpy as np

    ends = []
    for image in images:
        finite = image[np.isfinite(image)]
        if finite.size:
            ends += [float(finite.min()), float(finite.max())]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def draw_image(
    image: npt.NDArray[Any], limits: tuple[float, float], channel: int | None = None
) -> Picture:
    """Draw an image, gray or in colours.

    Args:
        image: `[height, width, channels]`, at least one of each.
        limits: values that become black and white; what lies beyond is clipped.
        channel: the only channel to draw, as gray; None draws 3 as RGB, of others the first.
    """
    import numpy as np

    chosen = image if image.shape[2] == 3 and channel is None else image[:, :, [channel or 0]]
    wrong = ~np.isfinite(chosen).all(axis=2)
    low, high = limits
    # Halved first: the distance of two float64 can be too large for one.
    filled = np.where(wrong[:, :, None], low, chosen).astype(np.float64)
    scaled = (filled / 2 - low / 2) / (high / 2 - low / 2)
    small = _shrink(np.clip(scaled, 0.0, 1.0), "mean")
    gray = np.rint(small * 255).astype(np.uint8)
    pixels = np.broadcast_to(gray, (*gray.shape[:2], 3)).copy()
    pixels[_shrink(wrong[:, :, None].astype(np.float64), "max")[:, :, 0] > 0] = NOT_FINITE
    return Picture(_png_uri(pixels), image.shape[1], image.shape[0], int(wrong.sum()))


def draw_difference(difference: npt.NDArray[Any], top: float) -> Picture:
    """Draw absolute differences with `colour_map`, from 0 to `top`.

    Args:
        difference: `[height, width]`, >= 0 or not finite.
        top: what is brightest, > 0.
    """
    import numpy as np

    wrong = ~np.isfinite(difference)
    values = np.where(wrong, np.inf, difference / top)
    small = _shrink(values[:, :, None], "max")[:, :, 0]
    height, width = difference.shape
    return Picture(_png_uri(colour_map(small)), width, height, int(wrong.sum()))


def _shrink(image: npt.NDArray[Any], how: Literal["mean", "max"]) -> npt.NDArray[Any]:
    import numpy as np

    factor = -(-max(image.shape[:2]) // SIDE_PX_MAX)
    if factor == 1:
        return image
    height, width, channels = image.shape
    pad = ((0, -height % factor), (0, -width % factor), (0, 0))
    blocks = np.pad(image, pad, mode="edge").reshape(
        (height + pad[0][1]) // factor, factor, (width + pad[1][1]) // factor, factor, channels
    )
    small: npt.NDArray[Any] = blocks.mean((1, 3)) if how == "mean" else blocks.max((1, 3))
    return small


def _png_uri(pixels: npt.NDArray[np.uint8]) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
