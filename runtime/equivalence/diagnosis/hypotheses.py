"""Try every known cause of a difference, and report those that explain it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from stnkit.runtime.compare import Comparison
from stnkit.runtime.equivalence.answers import Answer
from stnkit.runtime.equivalence.binding import Binding
from stnkit.runtime.equivalence.diagnosis.batches import batch_claims
from stnkit.runtime.equivalence.diagnosis.case import Case, Claim
from stnkit.runtime.equivalence.diagnosis.inputs import input_claims
from stnkit.runtime.equivalence.diagnosis.outputs import output_claims
from stnkit.runtime.equivalence.diagnosis.places import place_claims, shape_claims
from stnkit.runtime.equivalence.diagnosis.precision import damage_claims, precision_claims
from stnkit.runtime.equivalence.diagnosis.theta_causes import theta_claims
from stnkit.runtime.equivalence.diagnosis.unseen import unseen_claims
from stnkit.runtime.equivalence.diagnosis.warps import sampler_claims
from stnkit.runtime.equivalence.results import Bisection, Finding
from stnkit.runtime.equivalence.subject import Subject

__all__ = ["diagnose"]

_SECONDS_MAX = 20.0  # then no further hypothesis is tried
_FINDINGS_MAX = 4

# In the order of the data's way; of two that explain as much the earlier one is the likelier.
_HYPOTHESES: tuple[Callable[[Case], Iterator[Claim]], ...] = (
    batch_claims,
    input_claims,
    theta_claims,
    sampler_claims,
    unseen_claims,
    output_claims,
    damage_claims,
    precision_claims,
    shape_claims,
    place_claims,
)


def diagnose(
    reference: Subject,
    candidate: Subject,
    binding: Binding,
    received: Sequence[tuple[Answer, Answer]],
    comparisons: Sequence[Comparison],
    bisection: Bisection | None = None,
) -> tuple[Finding, ...]:
    """Return the likely causes of a difference, the likeliest first.

    A cause is claimed only where it was tried and came close: a sampler with that mistake makes the
    candidate's warped image, the source on inputs prepared like that gives the candidate's outputs.
    What cannot be tried is skipped, nothing is raised, and after 20 s nothing more is begun.

    Args:
        reference: what the candidate was compared with.
        candidate: a model that differs.
        binding: how its tensors are called.
        received: the answers of both to every probe, under the reference's names.
        comparisons: what was compared.
        bisection: where the two part, if that is known.

    Returns:
        The findings; empty where every comparison passed.
    """
    case = Case(
        reference=reference,
        candidate=candidate,
        binding=binding,
        received=received,
        comparisons=comparisons,
        bisection=bisection,
        until=time.monotonic() + _SECONDS_MAX,
    )
    if not case.wrong_tensors():
        return ()
    claims: list[Claim] = []
    for hypothesis in _HYPOTHESES:
        if case.in_time or hypothesis in (shape_claims, place_claims):
            claims += _tried(hypothesis, case)
    claims.sort(key=lambda claim: -round(claim.score, 2))  # stable: the order above decides ties
    best: dict[str, Claim] = {}
    for claim in claims:
        best.setdefault(claim.cause, claim)
    return tuple(claim.finding() for claim in [*best.values()][:_FINDINGS_MAX])


def _tried(hypothesis: Callable[[Case], Iterator[Claim]], case: Case) -> list[Claim]:
    """Return what a hypothesis claims; a model that refuses its questions claims nothing."""
    found: list[Claim] = []
    try:
        with np.errstate(all="ignore"):
            for claim in hypothesis(case):
                found.append(claim)
    except Exception:  # an explanation is extra: it must never hide the comparison it explains
        return found
    return found
