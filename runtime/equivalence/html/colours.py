"""A colour map whose lightness grows evenly, so that brighter always means more.

t in [0, 1] becomes a colour of OKLab: lightness L = 0.16 + 0.80 t, chroma C = 0.16 sin(pi t)^0.7,
hue h = 290 + 180 t degrees, from dark violet over red to light yellow.

Source: B. Ottosson, "A perceptual color space for image processing" (2020), for OKLab; IEC
61966-2-1 for the gamma of sRGB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["NOT_FINITE", "colour_map", "css_gradient"]

NOT_FINITE = (0, 255, 255)
"""Cyan, which the map does not hold: a pixel whose value is not finite."""

_LMS = (
    (1.0, 0.3963377774, 0.2158037573),
    (1.0, -0.1055613458, -0.0638541728),
    (1.0, -0.0894841775, -1.2914855480),
)
_RGB = (
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.7076147010),
)


def colour_map(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return the colours of values.

    Args:
        values: any shape; what lies outside of [0, 1] has the colour of its end, what is not
            finite is `NOT_FINITE`.

    Returns:
        `[*shape, 3]` uint8, sRGB.
    """
    import numpy as np

    finite = np.isfinite(values)
    t = np.clip(np.where(finite, values, 0.0).astype(np.float64), 0.0, 1.0)
    lightness = 0.16 + 0.80 * t
    chroma = 0.16 * np.sin(np.pi * t) ** 0.7
    hue = np.deg2rad(290.0 + 180.0 * t)
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)
    linear = np.clip((lab @ np.array(_LMS).T) ** 3 @ np.array(_RGB).T, 0.0, 1.0)
    gamma = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    colours = np.rint(gamma * 255).astype(np.uint8)
    return np.where(finite[..., None], colours, np.array(NOT_FINITE, np.uint8))


def css_gradient(stops: int = 12) -> str:
    """Return the map from left to right as a CSS value.

    Args:
        stops: number of colours, at least 2.
    """
    import numpy as np

    colours = colour_map(np.linspace(0.0, 1.0, stops))
    parts = ", ".join(f"rgb({r} {g} {b})" for r, g, b in colours.tolist())
    return f"linear-gradient(to right, {parts})"
