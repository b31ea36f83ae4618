"""What happened to theta itself, from the thetas that both sides computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from stnkit.runtime.equivalence.diagnosis.case import Case, Claim, gap, share
from stnkit.runtime.equivalence.diagnosis.theta_changes import THETA_CHANGES
from stnkit.runtime.equivalence.thetas import family

__all__ = ["theta_claims"]

_EXPLAINED = 0.97
_ALONE = 0.02  # a coefficient is the only wrong one where the others are off by this part of it


def theta_claims(case: Case) -> Iterator[Claim]:
    """Yield what explains thetas that are wrong."""
    for name in dict.fromkeys(item.tensor for item in case.failed("theta", driven=False)):
        pairs = [
            (expected.taps[name], got.taps[name])
            for expected, got in case.plain
            if name in expected.taps and name in got.taps
        ]
        if not pairs or any(a.shape != b.shape for a, b in pairs):
            continue
        there = np.concatenate([pair[0] for pair in pairs]).astype(np.float64)
        here = np.concatenate([pair[1] for pair in pairs]).astype(np.float64)
        if np.isfinite(here).all():
            yield from _matrices(name, there, here)
            yield from _constant(name, there, here)
            yield from _coefficient(name, there, here)
            yield from _scale(name, there, here)


def _matrices(name: str, there: Any, here: Any) -> Iterator[Claim]:
    if family(there.shape[1:]) != "affine":
        return
    before = gap(there, here)
    for change in THETA_CHANGES:
        left = gap(np.stack([change.apply(theta) for theta in there]), here)
        if share(before, left) >= _EXPLAINED:
            yield Claim(
                change.cause,
                f"{name!r} is {change.what}: {change.advice}",
                f"the source's theta, changed like this, is within {left:.1e} of the candidate's "
                f"on average; unchanged {before:.1e}",
                share(before, left),
            )


def _constant(name: str, there: Any, here: Any) -> Iterator[Claim]:
    varies = float(there.std(axis=0).max())
    still = float(here.std(axis=0).max())
    if len(there) > 1 and varies > 0 and still <= 1e-3 * varies:
        values = ", ".join(f"{value:.4g}" for value in here[0].ravel()[:8])
        yield Claim(
            "theta_constant",
            f"{name!r} is the same whatever the image: the weights of the localisation network "
            "were lost or zeroed; export the whole model after its weights are loaded",
            f"[{values}] on all {len(here)} images, where the source's varies by {varies:.1e}",
            0.99,
        )


def _coefficient(name: str, there: Any, here: Any) -> Iterator[Claim]:
    flat = (here - there).reshape(len(there), -1)
    if flat.shape[1] < 2 or flat.shape[1] > 64:
        return
    sizes = np.abs(flat).mean(axis=0)
    worst = int(sizes.argmax())
    others = np.delete(sizes, worst)
    if sizes[worst] > 0 and others.max() <= _ALONE * sizes[worst]:
        mean, spread = float(flat[:, worst].mean()), float(flat[:, worst].std())
        how = (
            f"by {mean:+.3g} on every image: its bias is another"
            if spread <= 0.02 * abs(mean)
            else f"by {mean:+.3g} on average, {spread:.1g} from image to image: its weights are "
            "others"
        )
        yield Claim(
            "theta_coefficient",
            f"coefficient {worst} of {name!r} is off {how}; look at the last layer before theta",
            f"{sizes[worst]:.1e} there, at most {others.max():.1e} at the other coefficients",
            1 - float(others.max() / sizes[worst]),
        )


def _scale(name: str, there: Any, here: Any) -> Iterator[Claim]:
    offset = (here - there).reshape(len(there), -1)
    before = float(np.abs(offset).mean())
    left = float(np.abs(offset - offset.mean(axis=0)).mean())
    if share(before, left) >= _EXPLAINED:
        values = ", ".join(f"{value:+.3g}" for value in offset.mean(axis=0)[:8])
        yield Claim(
            "theta_offset",
            f"{name!r} is off by the same on every image: the bias of the last layer before it was "
            "changed or lost",
            f"by [{values}], to {left:.1e}",
            0.95 * share(before, left),
        )
