"""Whether a tensor of a candidate is right: by its error budget, or by what its precision allows.

A float32 candidate rounds as its source does, and the error budget says how far that carries. One
that stores or computes with fewer digits is another model by construction; what matters of it is
stated, not computed:

- theta reads within a part of a pixel of where the source's reads;
- the warped image differs by no more than a shift of under a pixel explains (the values around the
  same place) and a part of its range. Where theta is given, nothing is left to explain;
- scores keep their order: the first class is the same wherever the source decides clearly.

Field figures behind the numbers: float16 moves a warped image by 0.0004 to 0.002 of its range, int8
weights by 0.001 to 0.004 on photos and 0.1 on noise (0.2 px), int8 everywhere by 0.2 to 0.6, and by
0.03 to 0.09 where the transformer is kept in float.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from stnkit.runtime.compare import Comparison, Kind, Tolerance, compare
from stnkit.runtime.equivalence.answers import Answer, partners
from stnkit.runtime.equivalence.probes import Probe
from stnkit.runtime.equivalence.subject import Subject, Tap
from stnkit.runtime.equivalence.views import theta_error_px
from stnkit.runtime.file_precision import Precision
from stnkit.runtime.statistics import ranking

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["STATED", "AllowanceLike", "ErrorBudgets", "Judge", "StatedBudget", "StatedBudgets"]

_NEIGHBOURHOOD = 3  # px: the values that a shift of less than one can bring


class AllowanceLike(Protocol):
    """What a tensor may differ by on a probe."""

    def of(self, name: str, probe: Probe) -> Tolerance:
        """Return the tolerance of a tensor on a probe."""

    def is_given(self, name: str) -> bool:
        """Return whether the user set the tolerance of a tensor."""


@dataclass(frozen=True)
class StatedBudget:
    """What a candidate of low precision may differ by.

    Attributes:
        theta_px: distance of the places that two thetas read, px.
        warped: difference of warped images beyond what a shift explains, part of their range.
        outputs: difference of outputs, part of their largest value.
        flips: part of the clearly decided items whose first class may be another one.
        drives: whether the transformer computes in float32 still, so that thetas are given to it.
    """

    theta_px: float
    warped: float
    outputs: float
    flips: float
    drives: bool

    def sentence(self, precision: str) -> str:
        """Return the budget in words."""
        return (
            f"judged as {precision.replace('_', ' ')}: theta within {self.theta_px:g} px,"
            f" the warped image within {self.warped:.0%} of its range beyond what a shift of under "
            f"a pixel explains, outputs within {self.outputs:.0%} of the largest, and the same "
            f"first class in {1 - self.flips:.0%} of the items that are decided by more than that"
        )


STATED: Mapping[Precision, StatedBudget] = {
    "float16_weights": StatedBudget(0.1, 0.01, 0.02, 0.01, drives=True),
    "float16": StatedBudget(0.25, 0.02, 0.05, 0.01, drives=False),
    "int8_weights": StatedBudget(0.5, 0.02, 0.1, 0.02, drives=True),
    "int8": StatedBudget(0.5, 0.1, 0.2, 0.02, drives=False),
}


class Judge(Protocol):
    """Decides whether a candidate's tensor is right."""

    def takes(self, probe: Probe) -> bool:
        """Return whether the candidate is to be judged on a probe at all."""

    def compare(
        self, name: str, item: Answer, expected: npt.NDArray[Any], got: npt.NDArray[Any]
    ) -> Comparison:
        """Return the comparison of one tensor on one probe."""


class ErrorBudgets:
    """Judges by the computed error budget.

    Args:
        reference: the reference.
        allowance: what may differ.
    """

    def __init__(self, reference: Subject, allowance: AllowanceLike) -> None:
        self._reference, self._allowance = reference, allowance

    def takes(self, probe: Probe) -> bool:
        """Return True."""
        return True

    def compare(
        self, name: str, item: Answer, expected: npt.NDArray[Any], got: npt.NDArray[Any]
    ) -> Comparison:
        """Return the comparison; that of a theta says how many pixels apart they read."""
        allowed = self._allowance.of(name, item.probe)
        found = compare(name, _kind(name, item), item.probe.name, expected, got, allowed)
        return _with_pixels(self._reference, item, found, expected, got)


class StatedBudgets:
    """Judges by what a precision allows.

    Args:
        reference: the reference.
        allowance: what the user set; nothing else of it counts.
        budget: what the precision allows.
        answers: the reference's answers, for the ranges of its tensors.
    """

    def __init__(
        self,
        reference: Subject,
        allowance: AllowanceLike,
        budget: StatedBudget,
        answers: Sequence[Answer],
    ) -> None:
        self._reference, self._allowance, self._budget = reference, allowance, budget
        self._range, self._largest = _extents(answers)

    def takes(self, probe: Probe) -> bool:
        """Return whether the sampler still computes in float32 where a probe gives it a theta."""
        return self._budget.drives or not probe.thetas

    def compare(
        self, name: str, item: Answer, expected: npt.NDArray[Any], got: npt.NDArray[Any]
    ) -> Comparison:
        """Return the comparison; one that fails says by which of the budgets."""
        kind, probe, budget = _kind(name, item), item.probe, self._budget
        if self._allowance.is_given(name):
            allowed = self._allowance.of(name, probe)
            found = compare(name, kind, probe.name, expected, got, allowed)
            return _with_pixels(self._reference, item, found, expected, got)
        if kind == "theta":
            return self._theta(name, item, expected, got)
        if kind == "warped":
            allowed = Tolerance(budget.warped * self._range[name])
            slack = None if probe.thetas else _local_range(expected)
            return compare(name, kind, probe.name, expected, got, allowed, slack)
        allowed = Tolerance(budget.outputs * self._largest[name])
        found = compare(name, kind, probe.name, expected, got, allowed)
        return found if probe.thetas else self._ordered(found, expected, got)

    def _theta(self, name: str, item: Answer, expected: Any, got: Any) -> Comparison:
        size = _warped_size(self._reference, item, name)
        # As far as one parameter alone may be off; where its pixels are known they decide.
        allowed = Tolerance(2 * self._budget.theta_px / max(size))
        found = compare(name, "theta", item.probe.name, expected, got, allowed)
        found = _with_pixels(self._reference, item, found, expected, got)
        if found.pixels is None:
            return found
        passed = found.pixels <= self._budget.theta_px
        verdict = f"{found.pixels:.2g} px apart, allowed {self._budget.theta_px:g} px"
        return replace(found, passed=passed, verdict=verdict)

    def _ordered(self, found: Comparison, expected: Any, got: Any) -> Comparison:
        """Return an output's comparison, failed where too many items change their class."""
        if found.reason is not None or ranking(expected, got) is None:
            return found
        decided, flipped = _flips(expected, got, found.tolerance.atol)
        if flipped <= int(self._budget.flips * decided):
            return found
        verdict = f"another first class in {flipped} of {decided} clearly decided items"
        return replace(found, passed=False, verdict=verdict)


def _kind(name: str, item: Answer) -> Kind:
    return "output" if name in item.outputs else Tap.of_name(name).kind


def _with_pixels(
    reference: Subject, item: Answer, found: Comparison, expected: Any, got: Any
) -> Comparison:
    if found.kind != "theta" or found.reason is not None:
        return found
    size = _warped_size(reference, item, found.tensor)
    return replace(found, pixels=theta_error_px(expected, got, size))


def _warped_size(reference: Subject, item: Answer, theta: str) -> tuple[int, int]:
    for first, warped in partners(reference.taps).values():
        if first.name == theta and warped.name in item.taps:
            shape = item.taps[warped.name].shape
            return (shape[1], shape[2])
    return (2, 2)  # one pixel is then one unit


def _extents(answers: Sequence[Answer]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the range and the largest absolute value of every tensor, over all probes."""
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    for item in answers:
        for name, value in {**item.outputs, **item.taps}.items():
            if value.size:
                low[name] = min(low.get(name, 0.0), float(value.min()))
                high[name] = max(high.get(name, 0.0), float(value.max()))
    spans = {name: high[name] - low[name] for name in low}
    return spans, {name: max(-low[name], high[name]) for name in low}


def _local_range(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return how far the values around each pixel lie apart, `[batch, height, width, channels]`."""
    import numpy as np
    from numpy.lib.stride_tricks import sliding_window_view

    if image.ndim != 4:
        return np.zeros(image.shape, np.float64)
    reach = _NEIGHBOURHOOD // 2
    # Beyond the output may lie what is outside of the image: zeros.
    padded = np.pad(image, [(0, 0), (reach, reach), (reach, reach), (0, 0)])
    around = sliding_window_view(padded, (_NEIGHBOURHOOD, _NEIGHBOURHOOD), axis=(1, 2))
    found: npt.NDArray[Any] = around.max(axis=(-2, -1)) - around.min(axis=(-2, -1))
    return found.astype(np.float64)


def _flips(expected: Any, got: Any, margin: float) -> tuple[int, int]:
    """Return how many items are decided by more than a margin, and how many of them flipped."""
    import numpy as np

    there, here = (np.asarray(v, np.float64).reshape(len(v), -1) for v in (expected, got))
    ordered = np.sort(there, axis=1)
    decided = ordered[:, -1] - ordered[:, -2] > margin
    flipped = decided & (there.argmax(axis=1) != here.argmax(axis=1))
    return int(decided.sum()), int(flipped.sum())
