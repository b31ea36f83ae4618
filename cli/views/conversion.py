"""What `stnkit convert` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from stnkit.cli.views.table import error_text, print_table, size_text
from stnkit.cli.views.tuning import tuning_line

if TYPE_CHECKING:
    from stnkit.convert.pipeline import ConversionResult


def print_conversion(result: ConversionResult) -> None:
    """Print a table of the artifacts with their errors, and what it means."""
    tolerances = result.manifest.tolerances
    agreement = {row.artifact: row for row in result.agreement}
    columns = ["artifact", ">size", ">theta error", ">warp error", ">output error"]
    if agreement:
        columns += [">accuracy", ">same class as Keras"]
    rows = []
    for artifact in result.manifest.artifacts:
        errors = artifact.errors
        assert errors is not None
        row = [
            artifact.file,
            size_text(artifact.bytes),
            error_text(errors.theta, tolerances.theta.atol),
            error_text(errors.warped, tolerances.warped.atol),
            error_text(errors.outputs, tolerances.outputs.atol),
        ]
        if agreement:
            found = agreement[artifact.file]
            row += [f"{found.accuracy:.1%}", f"{found.same_class} of {found.count}"]
        rows.append(row)
    print_table(columns, rows)
    for artifact in result.manifest.artifacts:
        if artifact.autotune is not None:
            line = tuning_line(artifact.autotune.to_json(), artifact.sampler)
            click.echo(f"{artifact.file}: {line}.")
    if agreement:
        source = agreement["source"]
        click.echo(f"Keras itself: {source.accuracy:.1%} of {source.count} labelled images.")
    transformers = list(dict.fromkeys(tap.transformer for tap in result.manifest.taps))
    if transformers:
        click.echo(
            f"Errors are the largest absolute differences from the Keras model / what is allowed; "
            f"compared at the outputs and inside {', '.join(transformers)}."
        )
    else:
        click.echo(
            "No spatial transformer of stnkit's was found inside: only the outputs were compared. "
            "A layer of your own shows its theta and image through stnkit.models.mark_theta and "
            "mark_warped."
        )
    for note in result.notes:
        click.echo(f"Note: {note}.")
    click.echo(f"Published: {result.bundle}")


def conversion_json(result: ConversionResult) -> dict[str, Any]:
    """Return the result as JSON values."""
    return {
        "bundle": str(result.bundle),
        "passed": all(report.passed for report in result.reports),
        "artifacts": [artifact.to_json() for artifact in result.manifest.artifacts],
        "tolerances": result.manifest.tolerances.to_json(),
        "labelled_images": [row.to_json() for row in result.agreement],
        "notes": list(result.notes),
        "transformers": list(dict.fromkeys(tap.transformer for tap in result.manifest.taps)),
    }
