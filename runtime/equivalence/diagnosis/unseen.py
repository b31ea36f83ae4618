"""What a transformer does wrong in a candidate that shows neither theta nor warped image.

A theta that is wrong, a grid that is swapped, flipped or shifted, and corners that are aligned
otherwise all do what another affine theta does: the source is given that theta, and asked whether
its outputs are then the candidate's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from stnkit.runtime.equivalence.answers import partners
from stnkit.runtime.equivalence.diagnosis.case import Case, Claim, gap, share
from stnkit.runtime.equivalence.diagnosis.theta_changes import THETA_CHANGES, ThetaChange
from stnkit.runtime.equivalence.thetas import family

__all__ = ["unseen_claims"]

_EXPLAINED = 0.97
_ALIKE = 0.1  # of what outputs differ by from item to item

Size = tuple[int, int]


def unseen_claims(case: Case) -> Iterator[Claim]:
    """Yield what explains outputs by another theta of a transformer that the candidate hides."""
    for transformer, (theta, warped) in partners(case.reference.taps).items():
        if theta.name in case.binding.taps or not case.plain:
            continue
        several = [pair for pair in case.plain if pair[0].probe.batch > 1] or case.plain
        expected, got = min(several, key=lambda pair: pair[0].probe.batch)
        thetas = expected.taps[theta.name]
        if family(thetas.shape[1:]) != "affine" or expected.taps[warped.name].ndim != 4:
            continue
        before = {name: gap(value, got.outputs[name]) for name, value in expected.outputs.items()}
        before = {name: value for name, value in before.items() if 0 < value < np.inf}
        height, width = expected.taps[warped.name].shape[1:3]
        for change in [*THETA_CHANGES, *_of_grids((height, width))]:
            if not case.in_time or not before:
                return
            other = np.stack([change.apply(item) for item in thetas]).astype(thetas.dtype)
            found = case.reference.run(expected.probe.inputs, taps=True, drives={theta.name: other})
            left = {name: gap(found[name], got.outputs[name]) for name in before}
            score = min(share(before[name], left[name]) for name in before)
            spread = min(_spread(got.outputs[name]) for name in before)
            worst = max(left.values())
            if score >= _EXPLAINED and worst <= _ALIKE * spread:
                yield Claim(
                    change.cause,
                    f"the transformer {transformer!r}, which the candidate hides, behaves as if it "
                    f"read with {change.what}: {change.advice}",
                    f"the source with such a theta gives the candidate's outputs to {worst:.1e} on "
                    f"average; with its own {max(before.values()):.1e}",
                    score,
                )
                break


def _spread(values: Any) -> float:
    return gap(values, np.broadcast_to(values.mean(axis=0), values.shape))


def _of_grids(size: Size) -> Iterator[ThetaChange]:
    """Yield grids that are wrong, as the thetas that make them.

    The image that is read is taken to be as large as the warped one.
    """
    places = "compare how both turn normalised coordinates into pixels"
    unit = np.array([2 / size[1], 2 / size[0]])
    axes = {"in x and y": (1, 1), "in x": (1, 0), "in y": (0, 1)}
    for cause, pixels in (("half_pixel", 0.5), ("one_pixel", 1.0)):
        for name, (x, y) in axes.items():
            for sign in (1, -1):
                shift = sign * pixels * unit * [x, y]
                yield ThetaChange(
                    cause,
                    f"its grid {sign * pixels:+g} px beside the right place {name}",
                    places,
                    _shifted(shift),
                )
    sides = np.array([size[1], size[0]], np.float64)
    ratio = sides / np.maximum(sides - 1, 1)
    for scale in (ratio, 1 / ratio):
        for grid_too in (True, False):
            yield ThetaChange(
                "align_corners",
                "the corners aligned otherwise" + ("" if grid_too else " in its sampler alone"),
                "export it with the align_corners of the source",
                _scaled(scale, grid_too),
            )


def _shifted(shift: Any) -> Callable[[Any], Any]:
    return lambda matrix: matrix + np.stack([np.zeros(2), np.zeros(2), shift], axis=1)


def _scaled(scale: Any, grid_too: bool) -> Callable[[Any], Any]:
    columns = np.append(1 / scale if grid_too else np.ones(2), 1.0)
    return lambda matrix: matrix * scale[:, np.newaxis] * columns
