"""One failed candidate, and the questions that hypotheses ask of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stnkit.runtime.compare import Comparison
from stnkit.runtime.equivalence.answers import Answer
from stnkit.runtime.equivalence.binding import Binding
from stnkit.runtime.equivalence.results import Bisection, Finding
from stnkit.runtime.equivalence.stored_values import CASE
from stnkit.runtime.equivalence.subject import Subject

__all__ = ["Case", "Claim", "gap", "share", "values_of", "worst_gap"]

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """A hypothesis that holds.

    Attributes:
        cause: short name.
        sentence: what is likely wrong, and what to do.
        evidence: the measurement.
        score: how much of the difference it explains, in [0, 1].
    """

    cause: str
    sentence: str
    evidence: str
    score: float

    def finding(self) -> Finding:
        """Return what the report shows."""
        return Finding(self.cause, self.sentence, self.evidence)


@dataclass(frozen=True)
class Case:
    """A failed candidate.

    Attributes:
        reference: what it was compared with.
        candidate: it.
        binding: how its tensors are called.
        received: the answers of both to every probe, under the reference's names.
        comparisons: what was compared.
        bisection: where the two part; None where nobody looked.
        until: when to stop, on the clock of `time.monotonic`.
    """

    reference: Subject
    candidate: Subject
    binding: Binding
    received: Sequence[tuple[Answer, Answer]]
    comparisons: Sequence[Comparison]
    bisection: Bisection | None
    until: float

    @property
    def plain(self) -> list[tuple[Answer, Answer]]:
        """The answers to probes that give no theta, the largest batch first."""
        found = [pair for pair in self.received if not pair[0].probe.thetas]
        return sorted(found, key=lambda pair: -pair[0].probe.batch)

    @property
    def driven(self) -> list[tuple[Answer, Answer]]:
        """The answers to probes that give a theta, through an input or inside."""
        return [pair for pair in self.received if pair[0].probe.thetas]

    @property
    def in_time(self) -> bool:
        """Whether there is time for another hypothesis."""
        return time.monotonic() < self.until

    def failed(self, kind: str, *, driven: bool | None = None) -> list[Comparison]:
        """Return failed comparisons of a kind, on driven probes or on plain ones alone."""
        names = {pair[0].probe.name for pair in self.driven}
        return [
            item
            for item in self.comparisons
            if not item.passed
            and item.kind == kind
            and item.case != CASE
            and (driven is None or (item.case in names) == driven)
        ]

    def wrong_tensors(self) -> tuple[str, ...]:
        """Return the names of all tensors of which a comparison failed."""
        return tuple(dict.fromkeys(item.tensor for item in self.comparisons if not item.passed))

    def ask_candidate(self, inputs: Values, like: Answer) -> dict[str, Any]:
        """Run the candidate on further inputs; outputs and taps under the reference's names."""
        fed = self.binding.feed(inputs)
        found = self.binding.read(self.candidate.run(fed), like.outputs)
        if self.binding.taps and like.taps:
            found |= self.binding.read(self.candidate.run(fed, taps=True), like.taps)
        return found

    def ask_reference(self, inputs: Values) -> dict[str, Any]:
        """Run the reference on further inputs; outputs and taps."""
        found = dict(self.reference.run(inputs))
        if self.binding.taps:
            found |= self.reference.run(inputs, taps=True)
        return found


def values_of(answer: Answer) -> dict[str, Any]:
    """Return outputs and taps of an answer together."""
    return {**answer.outputs, **answer.taps}


def gap(a: Any, b: Any) -> float:
    """Return the mean absolute difference; infinite where the two cannot be compared."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or not a.size:
        return float("inf")
    with np.errstate(all="ignore"):
        found = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).mean())
    return found if np.isfinite(found) else float("inf")


def worst_gap(a: Any, b: Any) -> float:
    """Return the largest absolute difference; infinite as in `gap`."""
    if not np.isfinite(gap(a, b)):
        return float("inf")
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max())


def share(before: float, after: float) -> float:
    """Return how much of a difference is explained when `after` is left of `before`."""
    if not np.isfinite(before):
        return 0.0 if not np.isfinite(after) else 1.0
    return max(0.0, 1 - after / before) if before > 0 and np.isfinite(after) else 0.0
