"""Compare one tensor of an artifact with the source's, element by element.

Rule: `|candidate - reference| <= atol + rtol * |reference|` for every element, in float64;
integers and booleans must be equal. What cannot be measured (another shape or dtype, nothing in
it, a value that is not finite) is a failed comparison with a reason, so that one report can show
every tensor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stnkit.runtime.statistics import Statistics, histogram, measure

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["KINDS", "Comparison", "Kind", "Tolerance", "all_passed", "compare", "worst_of"]

Kind = Literal["output", "theta", "warped"]
KINDS: tuple[Kind, ...] = ("output", "theta", "warped")


@dataclass(frozen=True)
class Tolerance:
    """How far a value may lie from its reference: `atol + rtol * |reference|`.

    Attributes:
        atol: the absolute part, finite, >= 0.
        rtol: the relative part, finite, >= 0.

    Raises:
        ValueError: a negative or non-finite part.
    """

    atol: float
    rtol: float = 0.0

    def __post_init__(self) -> None:
        for part, value in (("atol", self.atol), ("rtol", self.rtol)):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{part} is {value}: expected a finite number of at least 0")

    def to_json(self) -> dict[str, float]:
        """Return `{"atol", "rtol"}`."""
        return {"atol": float(self.atol), "rtol": float(self.rtol)}

    def __str__(self) -> str:
        text = f"{self.atol:.3g}"
        return f"{text} + {self.rtol:.3g} * |reference|" if self.rtol else text


_EXACT = Tolerance(0.0, 0.0)


@dataclass(frozen=True)
class Comparison:
    """What one comparison measured.

    Attributes:
        tensor: name of the output or of the tap.
        kind: `"output"`, `"theta"` or `"warped"`.
        case: name of the probe.
        shape: the reference's shape.
        tolerance: what was allowed; (0, 0) for integers and booleans.
        passed: whether every element was within the tolerance.
        max_abs: largest absolute difference; None when nothing was measured.
        mean_abs: mean absolute difference; None when nothing was measured.
        required: smallest atol with which this would pass, given rtol; None as above.
        worst_index: index of the largest excess over the tolerance; () for a scalar; None when
            there is no such place.
        reference_value: the reference there; None where unknown or not finite.
        candidate_value: the candidate there; None where unknown or not finite.
        reason: why nothing was measured; None when it was.
        statistics: the difference in every other measure; None when nothing was measured.
        pixels: of theta, the largest distance between the places that the two read, px; None for
            everything else, and where the transform's family is not known.
        histogram: (decade, count) of the absolute differences that are not 0.
        verdict: what decided beside the tolerance, for people; None where nothing did.
    """

    tensor: str
    kind: Kind
    case: str
    shape: tuple[int, ...]
    tolerance: Tolerance
    passed: bool
    max_abs: float | None = None
    mean_abs: float | None = None
    required: float | None = None
    worst_index: tuple[int, ...] | None = None
    reference_value: float | int | None = None
    candidate_value: float | int | None = None
    reason: str | None = None
    statistics: Statistics | None = None
    pixels: float | None = None
    histogram: tuple[tuple[int, int], ...] = ()
    verdict: str | None = None

    def describe(self) -> str:
        """Return one line: the tensor, the case, the worst place, both values, the tolerance."""
        what = "output" if self.kind == "output" else f"{self.kind} tap"
        head = f'{what} "{self.tensor}", case "{self.case}"'
        if self.reason is not None:
            return f"{head}: {self.reason}"
        index = ", ".join(str(i) for i in self.worst_index or ())
        if self.verdict is not None:
            head = f"{head}: {self.verdict}"
        return (
            f"{head}: worst at [{index}], expected {_show(self.reference_value)}, "
            f"got {_show(self.candidate_value)} "
            f"(largest difference {self.max_abs:.3g}, tolerance {self.tolerance})"
        )

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values; what was not measured is null, never NaN."""
        return {
            "tensor": self.tensor,
            "kind": self.kind,
            "case": self.case,
            "shape": list(self.shape),
            "tolerance": self.tolerance.to_json(),
            "passed": self.passed,
            "max_abs": self.max_abs,
            "mean_abs": self.mean_abs,
            "required": self.required,
            "worst_index": None if self.worst_index is None else list(self.worst_index),
            "reference_value": self.reference_value,
            "candidate_value": self.candidate_value,
            "reason": self.reason,
            "statistics": None if self.statistics is None else self.statistics.to_json(),
            "pixels": self.pixels,
            "histogram": [list(pair) for pair in self.histogram],
            "verdict": self.verdict,
        }


def _show(value: float | int | None) -> str:
    return "a value that is not finite" if value is None else f"{value:.9g}"


def compare(
    tensor: str,
    kind: Kind,
    case: str,
    reference: npt.NDArray[Any],
    candidate: npt.NDArray[Any],
    tolerance: Tolerance,
    slack: npt.NDArray[Any] | None = None,
) -> Comparison:
    """Compare a candidate with its reference: `|c - r| <= atol + rtol * |r| + slack`.

    Args:
        tensor: name of the output or of the tap.
        kind: `"output"`, `"theta"` or `"warped"`.
        case: name of the probe.
        reference: the source's values, any shape; float, integer or bool.
        candidate: the artifact's values, same shape and dtype.
        tolerance: what is allowed for floats; integers and bools must be equal.
        slack: what each element may differ by on top, shape of the reference; None is nothing.

    Returns:
        The comparison. Its worst element is the one with the largest excess over the tolerance.
    """
    import numpy as np

    reference, candidate = np.asarray(reference), np.asarray(candidate)
    exact = reference.dtype.kind in "iub"
    allowed = _EXACT if exact else tolerance

    def unmeasured(reason: str, index: tuple[int, ...] | None = None) -> Comparison:
        return Comparison(
            tensor,
            kind,
            case,
            tuple(reference.shape),
            allowed,
            passed=False,
            worst_index=index,
            reference_value=None if index is None else _finite(reference[index]),
            candidate_value=None if index is None else _finite(candidate[index]),
            reason=reason,
        )

    if reference.shape != candidate.shape:
        return unmeasured(
            f"the artifact gave shape {list(candidate.shape)}: expected {list(reference.shape)}"
        )
    if reference.dtype != candidate.dtype:
        return unmeasured(f"the artifact gave {candidate.dtype}: expected {reference.dtype}")
    if reference.dtype.kind not in "fiub":
        return unmeasured(f"{reference.dtype} cannot be compared: expected float, integer or bool")
    if reference.size == 0:
        return unmeasured(f"shape {list(reference.shape)} holds nothing to compare")
    for owner, values in (("the source", reference), ("the artifact", candidate)):
        finite = np.isfinite(values)
        if not finite.all():
            flat = int(np.argmin(finite))
            index = tuple(int(i) for i in np.unravel_index(flat, values.shape))
            count = int(values.size - np.count_nonzero(finite))
            return unmeasured(
                f"{owner} gave {count} values that are not finite, the first at {list(index)}: "
                f"expected {_show(_finite(reference[index]))}, "
                f"got {_show(_finite(candidate[index]))} (tolerance {allowed})",
                index,
            )

    # An overflow to infinity is a difference larger than any tolerance, which is what it should be.
    with np.errstate(over="ignore"):
        wide = reference.astype(np.float64)
        difference = np.abs(candidate.astype(np.float64) - wide)
    if exact:
        # Neighbouring int64 values beyond 2**53 are one float64: a difference must not vanish.
        difference = np.where(candidate != reference, np.maximum(difference, 1.0), 0.0)
    largest = np.finfo(np.float64).max
    difference = np.minimum(difference, largest)
    beside = allowed.rtol * np.abs(wide)
    if slack is not None and not exact:
        beside = beside + slack
    needed = difference - beside
    limit = allowed.atol + beside
    excess = needed - allowed.atol
    flat = int(np.argmax(excess))
    index = tuple(int(i) for i in np.unravel_index(flat, reference.shape))
    with np.errstate(over="ignore"):
        mean = min(float(np.mean(difference)), float(largest))
    return Comparison(
        tensor,
        kind,
        case,
        tuple(reference.shape),
        allowed,
        passed=bool(np.all(difference <= limit)),
        max_abs=float(np.max(difference)),
        mean_abs=mean,
        required=max(float(np.max(needed)), 0.0),
        worst_index=index,
        reference_value=_finite(reference[index]),
        candidate_value=_finite(candidate[index]),
        statistics=measure(reference, candidate),
        histogram=histogram(difference),
    )


def _finite(value: np.generic) -> float | int | None:
    number = value.item()
    if isinstance(number, bool):
        return int(number)
    return number if isinstance(number, (int, float)) and math.isfinite(number) else None


def worst_of(comparisons: tuple[Comparison, ...], kind: Kind | None = None) -> Comparison | None:
    """Return the worst comparison: failures first, unmeasured ones before all others.

    Args:
        comparisons: any number of them.
        kind: look only at this kind; None looks at all.

    Returns:
        The worst one, or None where there is none of the kind.
    """

    def badness(item: Comparison) -> tuple[bool, float, float]:
        if item.required is None or item.max_abs is None:
            return (True, math.inf, math.inf)
        return (not item.passed, item.required - item.tolerance.atol, item.max_abs)

    chosen = [item for item in comparisons if kind is None or item.kind == kind]
    return max(chosen, key=badness, default=None)


def all_passed(comparisons: tuple[Comparison, ...]) -> bool:
    """Return whether every comparison passed.

    Args:
        comparisons: at least one.

    Raises:
        ValueError: none at all, because comparing nothing proves nothing.
    """
    if not comparisons:
        raise ValueError("nothing was compared: expected at least one comparison")
    return all(item.passed for item in comparisons)
