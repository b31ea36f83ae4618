"""What `stnkit verify` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stnkit.cli.views.table import error_text, print_table

if TYPE_CHECKING:
    from stnkit.runtime.manifest import Manifest
    from stnkit.runtime.verification import VerificationReport


def print_verification(manifest: Manifest, report: VerificationReport) -> None:
    """Print a row an artifact: what ran it, its errors, and the verdict."""
    tolerances = manifest.tolerances
    rows = []
    for part in report.artifacts:
        if part.not_run is not None:
            rows.append([part.file, part.backend, "-", "-", "-", f"not run: {part.not_run}"])
            continue
        rows.append(
            [
                part.file,
                f"{part.backend} {part.backend_version}",
                error_text(part.largest_error("theta"), tolerances.theta.atol),
                error_text(part.largest_error("warped"), tolerances.warped.atol),
                error_text(part.largest_error("output"), tolerances.outputs.atol),
                "equal" if part.passed else "DIFFERS",
            ]
        )
    print_table(
        ["artifact", "ran on", ">theta error", ">warp error", ">output error", "verdict"], rows
    )
    ran = [part for part in report.artifacts if part.not_run is None]
    cases = {item.case for part in ran for item in part.comparisons}
    click.echo(
        f"{report.bundle}: {len(ran)} of {len(report.artifacts)} artifacts ran on {len(cases)} "
        f"stored probes ({', '.join(sorted(cases))})."
    )
