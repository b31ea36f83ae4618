"""One row a tensor: what all comparisons of it found together, for people to read.

Nothing is averaged over the probes: each number is that of the worst of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stnkit.runtime.compare import KINDS, Comparison, Kind, worst_of
from stnkit.runtime.equivalence.results import EquivalenceReport
from stnkit.runtime.statistics import Statistics

__all__ = [
    "KIND_NAMES",
    "TensorSummary",
    "error_text",
    "index_text",
    "summarize_tensors",
    "value_text",
    "verdict_sentence",
]

KIND_NAMES: Mapping[Kind, str] = {"output": "output", "theta": "theta", "warped": "warped image"}


@dataclass(frozen=True)
class TensorSummary:
    """What every probe found at one tensor.

    Attributes:
        tensor: name of the output or of the tap.
        kind: `"output"`, `"theta"` or `"warped"`.
        comparisons: all of them, in the order of the probes.
        worst: the one with the largest excess; one that could not be measured before all others.
    """

    tensor: str
    kind: Kind
    comparisons: tuple[Comparison, ...]
    worst: Comparison

    @property
    def passed(self) -> bool:
        """Whether every probe passed."""
        return all(item.passed for item in self.comparisons)

    @property
    def largest(self) -> float | None:
        """Largest absolute difference; None where a probe could not be measured."""
        return _largest(item.max_abs for item in self.comparisons)

    @property
    def required(self) -> float | None:
        """Smallest atol with which all would pass; None where a probe could not be measured."""
        return _largest(item.required for item in self.comparisons)

    @property
    def pixels(self) -> float | None:
        """Largest error of theta, px; None where it is not known for any probe."""
        known = [item.pixels for item in self.comparisons if item.pixels is not None]
        return max(known, default=None)

    @property
    def statistics(self) -> tuple[Statistics, ...]:
        """Those of the probes that could be measured."""
        return tuple(it.statistics for it in self.comparisons if it.statistics is not None)

    @property
    def histogram(self) -> tuple[tuple[int, int], ...]:
        """(decade, count) of the absolute differences of all probes."""
        found: Counter[int] = Counter()
        for item in self.comparisons:
            found.update(dict(item.histogram))
        return tuple(sorted(found.items()))

    @property
    def decades_over(self) -> frozenset[int]:
        """Decades of the histogram in which an element is beyond what its own probe allows."""
        return frozenset(
            decade
            for item in self.comparisons
            for decade, _ in item.histogram
            if not item.passed and 10.0**decade >= item.tolerance.atol
        )

    @property
    def equal(self) -> int:
        """Number of elements that are equal bit for bit, or as zeros are."""
        return sum(item.count - item.differing for item in self.statistics)


def summarize_tensors(comparisons: Iterable[Comparison]) -> tuple[TensorSummary, ...]:
    """Return one summary a tensor: outputs, then theta, then warped images.

    Args:
        comparisons: those of one candidate, any order of probes.
    """
    found: dict[tuple[Kind, str], list[Comparison]] = {}
    for item in comparisons:
        found.setdefault((item.kind, item.tensor), []).append(item)
    rows = []
    for (kind, tensor), items in sorted(found.items(), key=lambda it: KINDS.index(it[0][0])):
        worst = worst_of(tuple(items)) or items[0]
        rows.append(TensorSummary(tensor, kind, tuple(items), worst))
    return tuple(rows)


def _largest(values: Iterable[float | None]) -> float | None:
    known: list[float] = []
    for value in values:
        if value is None:
            return None
        known.append(value)
    return max(known, default=None)


def verdict_sentence(report: EquivalenceReport) -> str:
    """Return the verdict over all candidates in one sentence."""
    count = len(report.candidates)
    failed = sum(not candidate.passed for candidate in report.candidates)
    if count == 1:
        name = report.candidates[0].proof.file
        if report.candidates[0].proof.not_run is not None:
            return f"{name} did not run, so nothing is known of it."
        word = "differs from" if failed else "computes what"
        return f"{name} {word} {report.reference}{'' if failed else ' computes'}."
    if not failed:
        return f"All {count} candidates compute what {report.reference} computes."
    verb = "does" if failed == 1 else "do"
    return f"{failed} of {count} candidates {verb} not compute what {report.reference} computes."


def error_text(value: float | None) -> str:
    """Return an error or a tolerance in few digits; a dash where nothing was measured."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:.3g}"
    return f"{value:.1e}".replace(".0e", "e")


def value_text(value: float | None) -> str:
    """Return a tensor's value with as many digits as tell two floats apart."""
    return "not finite" if value is None else f"{value:.9g}"


def index_text(index: tuple[int, ...] | None) -> str:
    """Return the place of an element, e.g. `[0, 3]`; a dash where there is none."""
    return "-" if index is None else f"[{', '.join(str(i) for i in index)}]"
