"""What people look at: pictures of what a transformer did, and errors of theta in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stnkit.runtime.equivalence.answers import Answer, partners
from stnkit.runtime.equivalence.results import TransformerView
from stnkit.runtime.equivalence.subject import Subject, Tap
from stnkit.runtime.equivalence.thetas import grid_points, outline

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["theta_error_px", "views_of"]

_VIEWS_MAX = 4  # of one transformer: the probes with the largest differences


def theta_error_px(
    reference: npt.NDArray[Any], candidate: npt.NDArray[Any], size_px: tuple[int, int]
) -> float | None:
    """Return how far apart two batches of thetas read, at most, in pixels.

    For a matrix the largest distance is at a corner of the output. For a spline or a flow it is
    that of its control points.

    Args:
        reference: `[batch, *theta_shape]`, finite.
        candidate: the same shape, finite.
        size_px: `(height, width)` of the image that is read, px.

    Returns:
        The distance; None where the shape of theta says nothing of what it means.
    """
    import numpy as np

    scale = np.array([size_px[1], size_px[0]]) / 2
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
    largest = 0.0
    for first, second in zip(reference, candidate, strict=True):
        here, there = grid_points(first, corners), grid_points(second, corners)
        if here is None or there is None:
            if first.ndim < 2 or first.shape[-1] != 2:
                return None
            here, there = first.reshape(-1, 2), second.reshape(-1, 2)
        gaps = np.linalg.norm((here - there) * scale, axis=1)
        gaps = gaps[np.isfinite(gaps)]
        largest = max(largest, float(gaps.max(initial=0.0)))
    return largest


def views_of(
    reference: Subject, received: Sequence[tuple[Answer, Answer]]
) -> tuple[TransformerView, ...]:
    """Return pictures of each transformer, on the probes where reference and candidate differ most.

    Args:
        reference: the reference.
        received: what the reference answered, and what the candidate did, for every probe.
    """
    import numpy as np

    views: list[TransformerView] = []
    for number, (transformer, (theta, warped)) in enumerate(partners(reference.taps).items()):
        found: list[tuple[float, TransformerView]] = []
        source = _source(received) if number == 0 else None
        aligned = source is not None and _corners_aligned(received, theta, warped, source)
        for expected, got in received:
            pair = expected.taps.get(warped.name), got.taps.get(warped.name)
            if pair[0] is None or pair[1] is None or pair[0].shape != pair[1].shape:
                continue
            if pair[0].ndim != 4:
                continue
            gaps = np.abs(pair[0].astype(np.float64) - pair[1]).reshape(len(pair[0]), -1)
            worst = np.nan_to_num(gaps.max(axis=1), nan=np.inf)
            item = int(worst.argmax())
            given = expected.probe.thetas.get(theta.name)
            thetas = [
                given if given is not None else part.taps[theta.name] for part in (expected, got)
            ]
            image = None
            if source is not None:
                image = np.asarray(expected.probe.inputs[source][item], np.float32)
            inset_px = (image.shape[0], image.shape[1]) if aligned and image is not None else None
            found.append(
                (
                    float(worst[item]),
                    TransformerView(
                        transformer=transformer,
                        case=expected.probe.name,
                        item=item,
                        image=image,
                        theta_reference=np.asarray(thetas[0][item], np.float32).ravel(),
                        theta_candidate=np.asarray(thetas[1][item], np.float32).ravel(),
                        warped_reference=np.asarray(pair[0][item], np.float32),
                        warped_candidate=np.asarray(pair[1][item], np.float32),
                        outline_reference=_drawn(thetas[0][item], inset_px),
                        outline_candidate=_drawn(thetas[1][item], inset_px),
                        theta_error_px=theta_error_px(
                            thetas[0][item : item + 1],
                            thetas[1][item : item + 1],
                            (pair[0].shape[1], pair[0].shape[2]),
                        ),
                    ),
                )
            )
        found.sort(key=lambda entry: -entry[0])
        views += [view for _, view in found[:_VIEWS_MAX]]
    return tuple(views)


def _source(received: Sequence[tuple[Answer, Answer]]) -> str | None:
    """Return the only image that goes into the model: the first transformer warps it, mostly."""
    given = received[0][0].probe.inputs if received else {}
    images = [
        name
        for name, value in given.items()
        if value.ndim == 4 and value.shape[3] in (1, 3) and value.dtype.kind == "f"
    ]
    return images[0] if len(images) == 1 else None


def _corners_aligned(
    received: Sequence[tuple[Answer, Answer]], theta: Tap, warped: Tap, source: str
) -> bool:
    """Return whether the sampler aligns corners: no file says so, its warped images do."""
    # Here, because the diagnosis reads this module's package.
    from stnkit.runtime.equivalence.diagnosis.warps import convention_of, scenes_of

    scenes = scenes_of(received, theta, warped, source)
    how = convention_of(scenes) if scenes else None
    return how is not None and how.align_corners


def _drawn(theta: npt.NDArray[Any], inset_px: tuple[int, int] | None) -> Any:
    """Return the outline of a theta in a picture, whose outer edges are -1 and 1.

    Args:
        theta: one theta.
        inset_px: `(height, width)` of a picture that is read with its corners aligned: 1 is then
            the centre of its last pixel, half a pixel further in. None for others.
    """
    points = outline(theta)
    if points is None or inset_px is None:
        return points
    height, width = inset_px
    points[:, 0] *= 1 - 1 / width
    points[:, 1] *= 1 - 1 / height
    return points
