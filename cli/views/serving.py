"""What `stnkit bench --serve` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stnkit.cli.views.table import figure_text, print_table

if TYPE_CHECKING:
    from stnkit.runtime.timing import Quartiles
    from stnkit.runtime.timing.serving import CallerTiming, ServingReport


def print_serving(report: ServingReport) -> None:
    """Print the bare session's and the server's times side by side, and what lies between."""
    items = "item" if report.batch == 1 else "items"
    click.echo(
        f"{report.artifact} on {report.device} with {report.backend}, {report.batch} {items} a "
        "request"
    )
    click.echo("")
    print_table(
        ["", ">at a time", ">requests/s, quartiles", ">p50 ms", ">p90 ms", ">p99 ms"],
        [
            *(_row("bare session", it) for it in report.bare),
            *(_row("served", it) for it in report.served),
        ],
    )
    click.echo("")
    click.echo(
        f"The server adds {_spread(report.added_ms)} ms to a lone request, and serves at best "
        f"{_spread(report.share)} times what the bare session runs (medians, quartiles)."
    )
    machine = report.machine
    threads = "" if report.threads is None else f" of {report.threads} thread(s)"
    line = (
        f"Measured on {machine.cpu} ({machine.usable_cores} cores, shared with the load generator),"
        f" {report.instances} instance(s){threads}, HTTP with binary tensors."
    )
    if machine.busy:
        line += (
            f" The load average was {machine.load_average:.1f} at the start: other work is "
            "running: figures are too high."
        )
    click.echo(line)


def _row(name: str, timing: CallerTiming) -> list[str]:
    return [
        name,
        str(timing.callers),
        _spread(timing.requests_per_s),
        figure_text(timing.p50_ms.median),
        figure_text(timing.p90_ms.median),
        figure_text(timing.p99_ms.median),
    ]


def _spread(values: Quartiles) -> str:
    return f"{figure_text(values.median)} {figure_text(values.q1)}-{figure_text(values.q3)}"
