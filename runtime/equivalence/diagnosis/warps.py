"""Which convention of its sampler or theta makes a transformer's warped image what it is.

1. The convention that makes the reference's warped image from the image that is known and the
   thetas that it was driven with is found first; where none does, nothing is claimed.
2. Then one step of it is changed at a time, until the candidate's warped image comes out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from stnkit.runtime.equivalence.answers import Answer, partners
from stnkit.runtime.equivalence.diagnosis.case import Case, Claim, gap, share
from stnkit.runtime.equivalence.diagnosis.warp_changes import changes_of
from stnkit.runtime.equivalence.diagnosis.warping import Change, Convention, Scene, predict
from stnkit.runtime.equivalence.subject import Tap

__all__ = ["convention_of", "sampler_claims", "scenes_of"]

_SCENES_MAX = 14
_SIDE_MAX = 40  # rows and columns of a scene that are looked at: sampling in NumPy is slow
_REPRODUCED = 0.02  # of the spread of the reference's values: ties of nearest may fall otherwise
_EXPLAINED = 0.9
_ENOUGH = 0.995  # explains it: nothing further is tried
_PROMISING = 0.2  # share on the first scenes below which a hypothesis is dropped
_FIRST = 3
# Of the search for an offset of theta: parameters, steps of Gauss-Newton, and their nudge.
_PARAMETERS_MAX, _STEPS, _NUDGE = 9, 3, 1e-5


def sampler_claims(case: Case) -> Iterator[Claim]:
    """Yield what explains warped images that are wrong where theta is given."""
    for transformer, (theta, warped) in partners(case.reference.taps).items():
        if not any(item.tensor == warped.name for item in case.failed("warped", driven=True)):
            continue
        for source, scenes in _sources(case, theta, warped):
            convention = convention_of(scenes)
            if convention is not None:
                yield from _explanations(case, transformer, source, convention, scenes)
                break


def scenes_of(
    pairs: Sequence[tuple[Answer, Answer]], theta: Tap, warped: Tap, source: str
) -> list[Scene]:
    """Return what a transformer was seen to do, with the theta that each side had.

    Args:
        pairs: answers of the reference and of the candidate.
        theta: its theta.
        warped: its warped image.
        source: name of the input or tap that it may read.
    """
    found: list[Scene] = []
    for expected, got in pairs:
        images = _value(expected, source)
        thetas = _value(expected, theta.name)
        there, here = expected.taps.get(warped.name), got.taps.get(warped.name)
        if images is None or thetas is None or there is None or here is None:
            continue
        if images.ndim != 4 or there.ndim != 4 or here.shape != there.shape:
            continue
        for item in range(len(there)):
            if not np.isfinite(thetas[item]).all() or np.abs(thetas[item]).max() > 100:
                continue
            if images.shape[3] == there.shape[3]:
                found.append(_scene(images[item], thetas[item], there[item], here[item]))
    return found[:_SCENES_MAX]


def _value(answer: Answer, name: str) -> Any:
    probe = answer.probe
    for values in (probe.inputs, probe.thetas, answer.taps):
        if name in values:
            return values[name]
    return None


def _scene(image: Any, theta: Any, there: Any, here: Any) -> Scene:
    height, width = there.shape[:2]
    rows, columns = (
        np.unique(np.linspace(0, size - 1, min(size, _SIDE_MAX)).round().astype(int))
        for size in (height, width)
    )
    rows, columns = (part.ravel() for part in np.meshgrid(rows, columns, indexing="ij"))
    return Scene(
        image, theta, rows, columns, (height, width), there[rows, columns], here[rows, columns]
    )


def _sources(case: Case, theta: Tap, warped: Tap) -> Iterator[tuple[str, list[Scene]]]:
    """Yield every image that a transformer may read, with what it made of it."""
    pairs = [pair for pair in case.driven if theta.name in pair[0].probe.thetas]
    names = [spec.name for spec in case.reference.inputs if spec.dtype.startswith("float")]
    names += [tap.name for tap in case.reference.taps if tap.kind == "warped" and tap != warped]
    for name in names:
        scenes = scenes_of(pairs, theta, warped, name)
        if scenes:
            yield name, scenes


def convention_of(scenes: Sequence[Scene]) -> Convention | None:
    """Return the convention that makes what the reference made; None where none that is known does.

    Args:
        scenes: what a transformer was seen to do, one at least.
    """
    spread = max(float(np.std(np.concatenate([s.reference.ravel() for s in scenes]))), 1e-12)
    flags = [(False, False), (True, True), (True, False), (False, True)]
    modes = itertools.product(
        flags, ("zeros", "border", "reflection"), ("bilinear", "nearest", "bicubic")
    )
    best: tuple[float, Convention] | None = None
    for (corners, grid), padding, mode in modes:
        how = Convention(mode, padding, corners, grid)
        left = _left(scenes[:_FIRST], how, "reference")
        if left < _PROMISING * spread * 2:
            left = _left(scenes, how, "reference")
            if best is None or left < best[0]:
                best = (left, how)
    return None if best is None or best[0] > _REPRODUCED * spread else best[1]


def _left(
    scenes: Sequence[Scene], how: Convention, side: str, change: Change | None = None
) -> float:
    """Return the mean difference between what one side made and what is predicted."""
    total = 0.0
    for scene in scenes:
        values = predict(scene, how) if change is None else predict(scene, how, change)
        if values is None:
            return float("inf")
        total += gap(getattr(scene, side), values)
    return total / len(scenes)


def _explanations(
    case: Case, transformer: str, source: str, convention: Convention, scenes: Sequence[Scene]
) -> Iterator[Claim]:
    # The scenes that differ most say most: the first few of them decide what is followed.
    scenes = sorted(scenes, key=lambda scene: -gap(scene.reference, scene.candidate))
    before = _left(scenes, convention, "candidate")
    first = _left(scenes[:_FIRST], convention, "candidate")
    best: tuple[float, float, Change] | None = None
    for change in changes_of(convention):
        if not case.in_time:
            break
        if share(first, _left(scenes[:_FIRST], convention, "candidate", change)) < _PROMISING:
            continue
        left = _left(scenes, convention, "candidate", change)
        if best is None or left < 0.5 * best[1]:
            best = (share(before, left), left, change)
            if best[0] >= _ENOUGH:
                break
    if best is None or best[0] < _EXPLAINED:
        yield from _theta_off(transformer, convention, scenes, before)
        return
    score, left, change = best
    yield Claim(
        change.cause,
        f"the transformer {transformer!r} gets the right theta, but it {change.what}: "
        f"{change.advice}",
        f"a sampler that does the same, given {source!r} and {len(scenes)} known thetas, makes the "
        f"candidate's warped image to {left:.1e} on average; the source's sampler ({convention}) "
        f"is {before:.1e} away",
        score,
    )


def _theta_off(
    transformer: str, convention: Convention, scenes: Sequence[Scene], before: float
) -> Iterator[Claim]:
    """Yield that theta is off by a constant behind its tap: Gauss-Newton steps find which."""
    shape = scenes[0].theta.shape
    count = int(np.prod(shape))
    if count > _PARAMETERS_MAX:
        return
    found = np.zeros(count)

    def made(offset: Any) -> Any:
        change = Change("theta", "", "", theta=lambda theta: theta + offset.reshape(shape))
        values = [predict(scene, convention, change) for scene in scenes]
        return None if any(v is None for v in values) else np.concatenate([*map(np.ravel, values)])

    wanted = np.concatenate([scene.candidate.ravel() for scene in scenes])
    for _ in range(_STEPS):
        start = made(found)
        if start is None:
            return
        moved = [made(found + _NUDGE * unit) for unit in np.eye(count)]
        slopes = np.stack([(part - start) / _NUDGE for part in moved], axis=1)
        found = found + np.linalg.lstsq(slopes, wanted - start, rcond=None)[0]
    left = float(np.abs(made(found) - wanted).mean())
    if share(before, left) < _EXPLAINED:
        return
    worst = int(np.abs(found).argmax())
    others = np.abs(np.delete(found, worst)).max(initial=0.0)
    alone = others <= 0.05 * abs(found[worst])
    shown = ", ".join(f"{value:+.3g}" for value in found)
    what = f"coefficient {worst} of its theta" if alone else "its theta"
    yield Claim(
        "theta_coefficient" if alone else "theta_offset",
        f"the transformer {transformer!r} reads as if {what} were another by the same amount on "
        "every image, behind a theta that is right: look at what is done to theta before the grid",
        f"off by [{shown}] the source's sampler makes the candidate's warped image to {left:.1e} "
        f"on average; without {before:.1e}",
        share(before, left),
    )
