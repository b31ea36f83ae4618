"""What `stnkit verify` prints of a comparison of models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stnkit.cli.views.table import print_table

if TYPE_CHECKING:
    from stnkit.runtime.compare import Kind
    from stnkit.runtime.equivalence.results import CandidateReport, EquivalenceReport

_KINDS: tuple[tuple[Kind, str], ...] = (
    ("theta", "theta error"),
    ("warped", "warp error"),
    ("output", "output error"),
)


def print_comparison(report: EquivalenceReport) -> None:
    """Print a row a candidate, what was allowed and why, and what explains a difference."""
    rows = []
    for candidate in report.candidates:
        proof = candidate.proof
        cells = [proof.file, f"{proof.backend} {proof.backend_version}"]
        cells += [_error(candidate, kind) for kind, _ in _KINDS]
        ranks = [f"{rank.top1} of {rank.items}" for rank in candidate.rankings.values()]
        rows.append([*cells, ", ".join(ranks) or "-", _verdict(candidate)])
    headings = [f">{title}" for _, title in _KINDS]
    print_table(["model", "ran on", *headings, ">same class", "verdict"], rows)
    driven = [probe for probe in report.probes if probe.driven]
    click.echo(
        f"Compared with {report.reference} on {len(report.probes)} probes"
        + (f", {len(driven)} of them with thetas of their own" if driven else "")
        + f", in {report.seconds:.1f} s. Errors are the largest absolute differences."
    )
    if any(candidate.precision == "float32" for candidate in report.candidates):
        click.echo("Allowed:")
        for name, reason in report.reasons.items():
            click.echo(f"  {name}: {reason}")
    for candidate in report.candidates:
        _print_candidate(candidate)


def _verdict(candidate: CandidateReport) -> str:
    if not candidate.passed:
        return "DIFFERS"
    # Of low precision nothing is equal: it is as near as such a model can be.
    return "equal" if candidate.precision == "float32" else f"fits {candidate.precision}"


def _error(candidate: CandidateReport, kind: Kind) -> str:
    error = candidate.proof.largest_error(kind)
    if error is None:
        unmeasured = any(item.kind == kind for item in candidate.proof.comparisons)
        return "not measurable" if unmeasured else "-"
    pixels = [
        item.pixels
        for item in candidate.proof.comparisons
        if item.kind == kind and item.pixels is not None
    ]
    return f"{error:.1e} ({max(pixels):.1e} px)" if pixels else f"{error:.1e}"


def _print_candidate(candidate: CandidateReport) -> None:
    name = candidate.proof.file
    needed = ", ".join(
        f"{kind} {value:.1e}" if value is not None else f"{kind} not measurable"
        for kind, value in candidate.required.items()
    )
    click.echo(f"{name}: minimum required tolerance: {needed}")
    for note in candidate.notes:
        click.echo(f"  Note: {note}.")
    for item in candidate.proof.failures[:5]:
        click.echo(f"  {item.describe()}")
    further = len(candidate.proof.failures) - 5
    if further > 0:
        click.echo(f"  and {further} more")
    for finding in candidate.findings:
        click.echo(f"  Likely cause, {finding.cause}: {finding.sentence} ({finding.evidence})")
    if candidate.bisection is not None:
        from stnkit.cli.views.bisection import print_bisection

        print_bisection(candidate.bisection)
