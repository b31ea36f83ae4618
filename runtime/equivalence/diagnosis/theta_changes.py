"""What is known to happen to the parameters of a matrix on the way, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stnkit.runtime.equivalence.thetas import family

__all__ = ["THETA_CHANGES", "ThetaChange"]


@dataclass(frozen=True)
class ThetaChange:
    """A way to get theta wrong.

    Attributes:
        cause: short name.
        what: what is read with.
        advice: what to do.
        matrix: on `[2, 3]` float64.
    """

    cause: str
    what: str
    advice: str
    matrix: Callable[[Any], Any]

    def apply(self, theta: Any) -> Any:
        """Return one theta changed; those that are no affine matrix as they are."""
        theta = np.asarray(theta, np.float64)
        if family(theta.shape) != "affine":
            return theta
        with np.errstate(all="ignore"):
            return self.matrix(theta.reshape(2, 3)).reshape(theta.shape)


def _transposed(m: Any) -> Any:
    return np.concatenate([m[:, :2].T, m[:, 2:]], axis=1)


def _inverse(m: Any) -> Any:
    a, shift = m[:, :2], m[:, 2:]
    determinant = a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0]
    if not np.isfinite(determinant) or abs(determinant) < 1e-9:
        return m
    inverse = np.array([[a[1, 1], -a[0, 1]], [-a[1, 0], a[0, 0]]]) / determinant
    return np.concatenate([inverse, -inverse @ shift], axis=1)


def _scaled(rows: Any) -> Callable[[Any], Any]:
    factor = np.asarray(rows, np.float64)
    return lambda m: m * factor


_ORDER = "write theta row by row: x' = a x + b y + c, then y' = d x + e y + f"
_IDENTITY = np.array([[1.0, 0, 0], [0, 1, 0]])

THETA_CHANGES: tuple[ThetaChange, ...] = (
    ThetaChange("theta_transposed", "the 2 x 2 part of theta transposed", _ORDER, _transposed),
    ThetaChange(
        "theta_transposed",
        "theta read column by column",
        _ORDER,
        lambda m: m.reshape(3, 2).T,
    ),
    ThetaChange("theta_rows_swapped", "the rows of theta swapped", _ORDER, lambda m: m[::-1]),
    ThetaChange(
        "theta_xy_swapped",
        "the coefficients of x and y in theta swapped",
        _ORDER,
        lambda m: m[:, [1, 0, 2]],
    ),
    ThetaChange(
        "theta_xy_swapped",
        "x and y swapped throughout theta",
        _ORDER,
        lambda m: m[::-1, [1, 0, 2]],
    ),
    ThetaChange(
        "theta_xy_swapped",
        "the shifts of theta swapped",
        _ORDER,
        lambda m: np.concatenate([m[:, :2], m[::-1, 2:]], axis=1),
    ),
    ThetaChange(
        "theta_inverse",
        "the inverse of theta",
        "theta maps places of the output to places of the input: do not invert it",
        _inverse,
    ),
    ThetaChange("theta_sign", "theta negated", "keep its sign", _scaled(-1)),
    ThetaChange(
        "theta_sign",
        "the shifts of theta negated",
        "keep their sign",
        _scaled([1, 1, -1]),
    ),
    ThetaChange(
        "theta_sign",
        "the rotation of theta the other way round",
        "keep the sign of its off-diagonal coefficients",
        _scaled([[1, -1, 1], [-1, 1, 1]]),
    ),
    ThetaChange(
        "theta_sign", "the first row of theta negated", "keep its sign", _scaled([[-1], [1]])
    ),
    ThetaChange(
        "theta_sign", "the second row of theta negated", "keep its sign", _scaled([[1], [-1]])
    ),
    ThetaChange(
        "theta_shift_lost",
        "a theta without its shifts",
        "keep the last column of theta",
        _scaled([1, 1, 0]),
    ),
    ThetaChange(
        "theta_constant",
        "the identity, whatever theta is",
        "the localisation network was lost on the way: export the whole model",
        lambda m: _IDENTITY,
    ),
)
"""The likeliest first."""
