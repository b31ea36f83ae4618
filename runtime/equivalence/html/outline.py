"""The input with the quadrilateral that the transformer reads, drawn over it.

Convention: points are (x, y) normalised to [-1, 1]; -1 and 1 are the image's outer edges, also for
a model that aligns corners, whose outline joins the centres of the output's corner pixels. The
first point, where the output's first pixel is read, has a dot: a flip or a turn by 180 degrees
shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stnkit.runtime.equivalence.html.markup import Markup, element, fragment
from stnkit.runtime.equivalence.html.pictures import Picture

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["outline_legend", "outline_stage"]

_REACH = 2.2
"""How far from the centre is shown at most, in halves of the image: farther out is cut off."""

_AIR = 1.06
_CLASSES = ("source", "artifact")


def outline_stage(
    picture: Picture, alt: str, outlines: tuple[npt.NDArray[Any] | None, npt.NDArray[Any] | None]
) -> tuple[Markup, str]:
    """Draw an image with the outlines of the source and of the artifact.

    Args:
        picture: the image.
        alt: what it shows, for those who cannot see it.
        outlines: the source's and the artifact's, `[points, 2]`; None is not drawn.

    Returns:
        The box, and what cannot be seen in it; empty where all can.
    """
    import numpy as np

    drawn: list[tuple[str, npt.NDArray[Any]]] = []
    notes = []
    reach = 1.0
    for owner, outline in zip(_CLASSES, outlines, strict=True):
        if outline is None:
            continue
        if not outline.size or not np.isfinite(outline).all():
            notes.append(f"the {owner}'s outline is not finite")
            continue
        drawn.append((owner, outline))
        reach = max(reach, float(np.abs(outline).max()))
    if reach > _REACH:
        notes.append("the outline goes on outside of what is shown")
    half = min(reach, _REACH) * (_AIR if reach > 1 else 1.0)
    width, height = float(picture.width_px), float(picture.height_px)
    shapes = []
    for owner, outline in drawn:
        # Far outside a browser's float32 coordinates break; what is cut off may end at 50 images.
        points = np.clip(outline.astype(np.float64), -50.0, 50.0) * (width / 2, height / 2)
        text = " ".join(f"{x:.2f},{y:.2f}" for x, y in points.tolist())
        shapes += [
            element("polygon", points=Markup(text), class_="quad halo"),
            element("polygon", points=Markup(text), class_=f"quad {owner}"),
        ]
        radius = 0.035 * half * max(width, height) / 2
        x, y = points[0].tolist()
        shapes.append(element("circle", cx=x, cy=y, r=radius, class_=f"dot {owner}"))
    view = f"{-half * width / 2:g} {-half * height / 2:g} {half * width:g} {half * height:g}"
    inset, share = 50 * (1 - 1 / half), 100 / half
    image = element(
        "img",
        src=Markup(picture.uri),
        alt=alt,
        style=f"left:{inset:.3f}%;top:{inset:.3f}%;width:{share:.3f}%;height:{share:.3f}%",
    )
    overlay = element("svg", *shapes, viewBox=view, preserveAspectRatio="none", aria_hidden="true")
    box = element(
        "div", image, overlay, class_="stage inset", style=f"aspect-ratio:{width:g}/{height:g}"
    )
    return box, "; ".join(notes)


def outline_legend() -> Markup:
    """Return what the two lines and the dots mean."""

    def item(owner: str, text: str) -> Markup:
        line = element("line", x1=0, y1=5, x2=26, y2=5, class_=f"quad {owner}")
        return element("span", element("svg", line, viewBox="0 0 26 10", aria_hidden="true"), text)

    parts = [
        item("source", "source (solid)"),
        item("artifact", "artifact (dashed)"),
        element("span", "dot: where the output's first pixel is read"),
    ]
    return element("div", fragment(parts), class_="legend")
