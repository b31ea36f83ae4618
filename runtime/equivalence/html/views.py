"""The pictures of each transformer: input, both warps, their difference, and theta."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stnkit.runtime.equivalence.html.colours import css_gradient
from stnkit.runtime.equivalence.html.markup import Markup, element
from stnkit.runtime.equivalence.html.outline import outline_legend, outline_stage
from stnkit.runtime.equivalence.html.pictures import (
    Picture,
    draw_difference,
    draw_image,
    value_range,
)
from stnkit.runtime.equivalence.html.tables import table
from stnkit.runtime.equivalence.results import TransformerView
from stnkit.runtime.equivalence.summary import error_text, value_text

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["transformer_section"]

_OPEN_MAX = 3
_VIEWS_MAX = 12
_THETA_MAX = 12


def transformer_section(name: str, views: Sequence[tuple[TransformerView, float]]) -> Markup:
    """Show one transformer: its worst views, at most 12.

    Args:
        name: of the transformer.
        views: all of it, at least one, each with the absolute tolerance of its warped image.
    """
    ordered = sorted(views, key=lambda pair: _badness(*pair), reverse=True)[:_VIEWS_MAX]
    figures = [_view(view, allowed) for view, allowed in ordered]
    parts = [
        element("h4", "Transformer ", element("code", name)),
        *figures[:_OPEN_MAX],
    ]
    if rest := figures[_OPEN_MAX:]:
        left_out = len(views) - len(ordered)
        tail = f" ({left_out} with smaller errors are left out)" if left_out else ""
        parts.append(
            element("details", element("summary", f"{len(rest)} more pictures{tail}"), *rest)
        )
    return element("section", *parts)


def _view(view: TransformerView, allowed: float) -> Markup:
    source, artifact = _image(view.warped_reference), _image(view.warped_candidate)
    original = None if view.image is None else _image(view.image)
    largest = _largest_difference(view)
    title = [f'Probe "{view.case}", item {view.item}']
    if largest is not None:
        title.append(f": the warped images differ by at most {error_text(largest)}")
    if view.theta_error_px is not None:
        title.append(f", the two thetas read {error_text(view.theta_error_px)} px apart")
    parts = [element("figcaption", "".join(title) + ".")]
    if source is None or artifact is None:
        shapes = f"{list(view.warped_reference.shape)} and {list(view.warped_candidate.shape)}"
        parts.append(element("p", f"They cannot be drawn: their shapes are {shapes}."))
    else:
        limits = value_range(*(it for it in (original, source) if it is not None))
        channel = _worst_channel(source, artifact)
        tiles = [
            _original_tile(view, original, limits),
            _tile("Source warp", draw_image(source, limits, channel), _note(source, channel)),
            _tile("Artifact warp", draw_image(artifact, limits, channel), _note(artifact, channel)),
            _difference_tile(source, artifact, allowed),
        ]
        parts.append(element("div", *tiles, class_="tiles"))
    parts.append(_theta_table(view))
    return element("figure", *parts, class_="view")


def _original_tile(
    view: TransformerView, image: npt.NDArray[Any] | None, limits: tuple[float, float]
) -> Markup:
    if image is None:
        unknown = element("p", "not known for this model", class_="note")
        return element("div", element("p", "Input"), unknown, class_="tile")
    picture = draw_image(image, limits)
    outlines = (view.outline_reference, view.outline_candidate)
    alt = f"Input of {view.transformer}, probe {view.case}, with the outline that each theta reads"
    if all(outline is None for outline in outlines):
        return _tile("Input", picture, "no outline: the kind of transform is not known")
    stage, note = outline_stage(picture, alt, outlines)
    parts = [element("p", "Input and outline"), stage, outline_legend()]
    parts += [element("p", note, class_="note")] if note else []
    return element("div", *parts, class_="tile")


def _tile(title: str, picture: Picture, note: str) -> Markup:
    size = f"{picture.width_px} x {picture.height_px} px"
    if picture.not_finite:
        note = f"{picture.not_finite:,} pixels are not finite (cyan). {note}".strip()
    image = element("img", src=Markup(picture.uri), alt=f"{title}, {size}")
    return element(
        "div",
        element("p", title),
        element("div", image, class_="stage"),
        element("p", f"{size}. {note}".strip(), class_="note"),
        class_="tile",
    )


def _difference_tile(
    source: npt.NDArray[Any], artifact: npt.NDArray[Any], allowed: float
) -> Markup:
    import numpy as np

    title = "Absolute difference"
    if source.shape != artifact.shape:
        note = f"shapes {list(source.shape)} and {list(artifact.shape)}"
        return element("div", element("p", title), element("p", note, class_="note"), class_="tile")
    difference = np.abs(_wide(source) - _wide(artifact)).max(axis=2)
    finite = difference[np.isfinite(difference)]
    largest = float(finite.max()) if finite.size else 0.0
    top = max(largest, allowed) or 1.0
    picture = draw_difference(difference, top)
    marks = []
    if 0 < allowed < top:
        marks.append(element("i", style=f"left:{100 * allowed / top:.2f}%"))
    bar = element("div", *marks, class_="scale", style=f"background:{css_gradient()}")
    ends = element("div", element("span", "0"), element("span", error_text(top)), class_="ends")
    if largest == 0 and not picture.not_finite:
        note = "Equal in every pixel."
    elif largest <= allowed:
        note = f"Largest {error_text(largest)}; brightest is what is allowed."
    else:
        note = f"Largest {error_text(largest)}; the line is what is allowed, {error_text(allowed)}."
    if picture.not_finite:
        note += f" {picture.not_finite:,} pixels are not finite (cyan)."
    alt = f"Heat map of the difference from 0 to {error_text(top)}"
    return element(
        "div",
        element("p", title),
        element("div", element("img", src=Markup(picture.uri), alt=alt), class_="stage"),
        bar,
        ends,
        element("p", note, class_="note"),
        class_="tile",
    )


def _theta_table(view: TransformerView) -> Markup:
    import numpy as np

    source, artifact = view.theta_reference.ravel(), view.theta_candidate.ravel()
    if source.shape != artifact.shape or not source.size:
        return element("p", f"Theta has {source.size} and {artifact.size} values.", class_="note")
    difference = _wide(artifact) - _wide(source)
    chosen = np.arange(source.size)
    caption = "Theta"
    if source.size > _THETA_MAX:
        # NaN sorts last: what is not finite is the worst.
        chosen = np.sort(np.argsort(np.abs(difference))[-_THETA_MAX:])
        caption = f"Theta: the {_THETA_MAX} of {source.size:,} values that differ most"
    rows = [
        ["source", *(_short_value(source[i]) for i in chosen)],
        ["artifact", *(_short_value(artifact[i]) for i in chosen)],
        ["difference", *(_signed(float(difference[i])) for i in chosen)],
    ]
    return table(caption, ["", *(f">θ[{i}]" for i in chosen.tolist())], rows)


def _badness(view: TransformerView, allowed: float) -> float:
    """Return the largest difference beside what is allowed; infinity where it has no number."""
    largest = _largest_difference(view)
    if largest is None:
        return math.inf
    return largest / allowed if allowed > 0 else largest


def _largest_difference(view: TransformerView) -> float | None:
    import numpy as np

    source, artifact = view.warped_reference, view.warped_candidate
    if source.shape != artifact.shape or not source.size:
        return None
    largest = float(np.abs(_wide(source) - _wide(artifact)).max())
    return largest if math.isfinite(largest) else None


def _image(array: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    if array.ndim == 2:
        array = array[:, :, None]
    return array if array.ndim == 3 and array.size else None


def _worst_channel(source: npt.NDArray[Any], artifact: npt.NDArray[Any]) -> int | None:
    """Return the channel to draw of what is no picture; None for gray and RGB."""
    import numpy as np

    channels = min(source.shape[2], artifact.shape[2])
    if channels in (1, 3) or source.shape != artifact.shape:
        return None
    errors = np.nan_to_num(np.abs(_wide(source) - _wide(artifact)), nan=np.inf).max(axis=(0, 1))
    return int(errors.argmax())


def _note(image: npt.NDArray[Any], channel: int | None) -> str:
    return "" if channel is None else f"Channel {channel} of {image.shape[2]}, the worst."


def _wide(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    import numpy as np

    return array.astype(np.float64)


def _short_value(value: Any) -> str:
    number = float(value)
    return value_text(number if math.isfinite(number) else None)


def _signed(value: float) -> str:
    if not math.isfinite(value):
        return "not finite"
    return ("-" if value < 0 else "+" if value > 0 else "") + error_text(abs(value))
