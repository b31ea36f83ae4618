"""How far apart two tensors inside two models are, whatever layout each is in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stnkit.runtime.compare import Tolerance

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Facts", "Gap", "facts_of", "gap_between", "may_agree"]


@dataclass(frozen=True)
class Facts:
    """What is known of a tensor without its values; a layout changes none of it.

    Attributes:
        size: number of elements.
        low: smallest value.
        high: largest value.
        mean: mean of the values.
        mean_abs: mean of the absolute values.
        is_float: whether it holds floats.
        finite: whether all values are finite; the others are 0 where not.
    """

    size: int
    low: float
    high: float
    mean: float
    mean_abs: float
    is_float: bool
    finite: bool = True

    @property
    def largest(self) -> float:
        """The largest absolute value."""
        return max(abs(self.low), abs(self.high))


@dataclass(frozen=True)
class Gap:
    """The difference of two tensors.

    Attributes:
        max_abs: largest absolute difference; infinite where one is finite and the other is not.
        share: how much of what is allowed it takes at most; more than 1 is wrong.
    """

    max_abs: float
    share: float


def facts_of(value: npt.NDArray[Any]) -> Facts:
    """Return what is known of a tensor with one element at least."""
    import numpy as np

    is_float = value.dtype.kind == "f"
    if is_float and not np.isfinite(value).all():
        return Facts(value.size, 0.0, 0.0, 0.0, 0.0, is_float, finite=False)
    return Facts(
        value.size,
        float(value.min()),
        float(value.max()),
        float(value.mean(dtype=np.float64)),
        float(np.abs(value).mean(dtype=np.float64)),
        is_float,
    )


def may_agree(reference: Facts, candidate: Facts, tolerance: Tolerance) -> bool:
    """Return whether two tensors may hold the same values, in one layout or another."""
    if reference.size != candidate.size or not (reference.finite and candidate.finite):
        return False
    allowed = tolerance.atol + tolerance.rtol * reference.largest
    return all(
        abs(a - b) <= allowed
        for a, b in (
            (reference.low, candidate.low),
            (reference.high, candidate.high),
            (reference.mean, candidate.mean),
            (reference.mean_abs, candidate.mean_abs),
        )
    )


def gap_between(
    reference: npt.NDArray[Any], candidate: npt.NDArray[Any], tolerance: Tolerance
) -> Gap | None:
    """Return the difference in the layout in which it is smallest; None for different sizes.

    Tried are the values in order, whatever the shape, and those of the candidate with its channels
    moved from second to last, or back.
    """
    if reference.size != candidate.size:
        return None
    flat = reference.reshape(-1)
    best: Gap | None = None
    for view in _views(candidate):
        found = _gap(flat, view, tolerance)
        if best is None or found.max_abs < best.max_abs:
            best = found
        if best.share <= 1:
            break
    return best


def _views(value: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    import numpy as np

    yield value.reshape(-1)
    if value.ndim > 2:
        yield np.moveaxis(value, 1, -1).reshape(-1)
        yield np.moveaxis(value, -1, 1).reshape(-1)


def _gap(reference: npt.NDArray[Any], candidate: npt.NDArray[Any], tolerance: Tolerance) -> Gap:
    import numpy as np

    both_float = reference.dtype == candidate.dtype == np.float32
    dtype = np.float32 if both_float else np.float64
    with np.errstate(all="ignore"):
        difference = np.abs(np.subtract(candidate, reference, dtype=dtype))
        largest = float(difference.max())
        if not np.isfinite(largest):
            # Equal infinities differ by NaN, and so do two NaN.
            same = (reference == candidate) | (np.isnan(reference) & np.isnan(candidate))
            difference[same] = 0
            if not np.isfinite(difference).all():
                return Gap(float("inf"), float("inf"))
            largest = float(difference.max())
        if not largest:
            return Gap(0.0, 0.0)
        scale = np.where(np.isfinite(reference), np.abs(reference.astype(dtype, copy=False)), 0)
        share = difference / (tolerance.atol + tolerance.rtol * scale)
        return Gap(largest, float(share.max()))
