r"""How far apart two faithful computations of one model may lie: the error budget.

Two runtimes add the same products up in another order and round differently. With u = 2^-24, the
rounding of float32, and n products added up on the way from input to output, each result is
uncertain by about

$$r = u \, (4 + \sqrt{n} / 2)$$

relative to what it is computed from: errors are of either sign, so that they grow with the root,
and kernels add up in several lanes, which shortens the rows. How much of it arrives is measured and
not guessed: the reference is run on its own probes and on the same probes changed by a known
relative amount, and what a change of 1 at the input does to a tensor is its sensitivity s. A tensor
whose largest value is m is then allowed

$$\mathrm{atol} = 4 \, r \, (m + s)$$

At the warped image comes what the coordinates round: u times the largest coordinate, in pixels,
times the steepest step between two pixels.

Source: Higham 2002, Accuracy and Stability of Numerical Algorithms, 2.8, 3.1 (growth with the root
of n); the factor 4 leaves room for the largest of many errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stnkit.runtime.compare import Kind, Tolerance
from stnkit.runtime.equivalence.thetas import family, spline_reach

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "UNIT",
    "Budget",
    "Measured",
    "budget_for",
    "changed",
    "coordinate_rounding",
    "sensitivity",
]

UNIT = 2.0**-24
_SAFETY = 4.0
_OPERATIONS = 4  # roundings beside the sums: bias, scale, activation, blending
_CHANGE = 2.0**-10  # relative change of the inputs when sensitivity is measured
_RTOL = 1e-5


@dataclass(frozen=True)
class Measured:
    """What is known of one tensor of the reference.

    Attributes:
        kind: `"output"`, `"theta"` or `"warped"`.
        largest: largest absolute value over all probes.
        sensitivity: what a change of the inputs by 1, relative to each value, does to it at most.
    """

    kind: Kind
    largest: float
    sensitivity: float


@dataclass(frozen=True)
class Budget:
    """What a tensor may differ by, and why.

    Attributes:
        tolerance: the allowance.
        reason: how it comes about, for people.
    """

    tolerance: Tolerance
    reason: str


def budget_for(
    measured: Measured, length: float, coordinates: float = 0.0, given: float | None = None
) -> Budget:
    """Return the budget of one tensor.

    Args:
        measured: what is known of it.
        length: n, the number of products added up on the way.
        coordinates: what the rounding of coordinates adds, in the tensor's units.
        given: what the user allows instead.
    """
    if given is not None:
        return Budget(Tolerance(given, _RTOL), f"{given:.1e}, as given")
    relative = UNIT * (_OPERATIONS + math.sqrt(length) / 2)
    reach = measured.largest + measured.sensitivity
    atol = _SAFETY * relative * reach + coordinates
    # Below one rounding of 1 nothing can be told apart from nothing.
    atol = max(atol, _SAFETY * UNIT)
    reason = (
        f"{atol:.1e} = 4 x {relative:.1e} (float32, {length:,.0f} products) x "
        f"({measured.largest:.3g} largest value + {measured.sensitivity:.3g} sensitivity)"
    )
    if coordinates:
        reason += f" + {coordinates:.1e} (rounding of coordinates)"
    return Budget(Tolerance(atol, _RTOL), reason)


def changed(
    inputs: Mapping[str, npt.NDArray[Any]], seed: int
) -> dict[str, npt.NDArray[Any]] | None:
    """Return the inputs, each float changed by a known relative amount of random sign.

    Returns:
        The changed inputs; None where there is no float to change.
    """
    import numpy as np

    rng = np.random.default_rng([seed, 1001])
    found = {}
    any_float = False
    for name, value in inputs.items():
        if value.dtype.kind != "f":
            found[name] = value
            continue
        any_float = True
        sign = rng.choice([-_CHANGE, _CHANGE], value.shape)
        found[name] = (value * (1 + sign)).astype(value.dtype)
    return found if any_float else None


def sensitivity(before: npt.NDArray[Any], after: npt.NDArray[Any]) -> float:
    """Return what a relative change of 1 at the input does to a tensor, from one of `changed`."""
    import numpy as np

    if before.dtype.kind != "f" or not before.size:
        return 0.0
    return float(np.abs(after.astype(np.float64) - before.astype(np.float64)).max()) / _CHANGE


def coordinate_rounding(
    thetas: Sequence[npt.NDArray[Any]], size_px: tuple[int, int], step: float
) -> float:
    """Return what the rounding of coordinates can do to a warped image.

    A coordinate is rounded relative to the largest number on the way to it, which is no less than 1
    and about the sum of theta's parameters; half the image's side turns it into pixels.

    Args:
        thetas: thetas of the probes, `[batch, …]`; those that are not finite are left out.
        size_px: `(height, width)` of the image that is read, px.
        step: steepest step between two pixels, in the image's units.
    """
    import numpy as np

    reach = 1.0
    for theta in thetas:
        flat = np.abs(theta.reshape(len(theta), -1).astype(np.float64))
        if family(theta.shape[1:]) == "thin_plate_spline":
            rows = np.array(
                [spline_reach(item) if np.isfinite(item).all() else np.inf for item in theta]
            )
        elif flat.shape[1] <= 9:
            rows = flat.sum(axis=1)
        else:
            # A flow has a theta for every pixel, of which one counts: the sum would count them all.
            rows = 1 + 3 * flat.max(axis=1)
        finite = rows[np.isfinite(rows)]
        if finite.size:
            reach = max(reach, float(finite.max()))
    return _SAFETY * UNIT * reach * max(size_px) / 2 * step
