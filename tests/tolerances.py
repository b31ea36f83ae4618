"""The largest differences that the tests accept, per dtype and per quantity.

All are absolute and are measured on data in the project's own ranges: images in [0, 1], grids
within a few image sizes. A test that needs another figure adds a named quantity here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Tolerances:
    """Absolute tolerances of one dtype.

    Attributes:
        exact: Cases in which every intermediate number can be represented exactly, and a blend of
            two or four pixels is the only rounding left.
        grid: Grid coordinates, in units of [-1, 1].
        sample: Sampled pixel values.
        gradient: Derivatives of a weighted sum of the result by image, grid or theta.
        theta: Theta of an exported artifact against the source model.
        warp: Warped image of an exported artifact against the source model.
        output: Outputs of an exported artifact against the source model.
    """

    exact: float
    grid: float
    sample: float
    gradient: float
    theta: float
    warp: float
    output: float


TOLERANCES: dict[str, Tolerances] = {
    "float32": Tolerances(
        exact=1e-6, grid=2e-6, sample=1e-5, gradient=1e-4, theta=1e-5, warp=1e-4, output=1e-5
    ),
}


def assert_close(received: npt.ArrayLike, expected: npt.ArrayLike, atol: float) -> None:
    """Assert that two arrays agree, after asserting that the comparison means something.

    Args:
        received: What the code under test returned, any shape, float.
        expected: What it should have returned, of the same shape, float.
        atol: The largest absolute difference accepted.

    Raises:
        AssertionError: If the shapes differ, there is nothing to compare, a value is not finite,
            or a difference exceeds `atol`; the message names the worst index.
    """
    got, want = np.asarray(received), np.asarray(expected)
    assert got.shape == want.shape, f"shape {got.shape}, expected {want.shape}"
    assert got.size > 0, f"nothing to compare: shape {got.shape}"
    assert np.issubdtype(got.dtype, np.floating), f"dtype {got.dtype}, expected a float"
    assert np.isfinite(want).all(), "the expected values are not finite: the test is at fault"
    assert np.isfinite(got).all(), f"{np.count_nonzero(~np.isfinite(got))} values are not finite"
    error = np.abs(got.astype(np.float64) - want.astype(np.float64))
    worst = np.unravel_index(int(error.argmax()), error.shape)
    assert error[worst] <= atol, (
        f"largest difference {error[worst]:.3g} > {atol:g} at {tuple(map(int, worst))}: "
        f"received {got[worst]!r}, expected {want[worst]!r}; "
        f"{np.count_nonzero(error > atol)} of {error.size} values are off"
    )
