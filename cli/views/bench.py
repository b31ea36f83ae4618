"""What `stnkit bench` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stnkit.cli.views.table import figure_text, print_table, size_text

if TYPE_CHECKING:
    from stnkit.runtime import ArtifactTiming, TimingReport
    from stnkit.runtime.timing import BatchTiming, Quartiles


def print_timing(report: TimingReport) -> None:
    """Print what the artifacts are, how long a run takes, what is paid once, and where it holds."""
    print_table(
        ["artifact", "format", "ran on", "sampler", "precision", ">size"],
        [_file_row(item) for item in report.artifacts],
    )
    click.echo("")
    timings = [(batch, item.file) for item in report.artifacts for batch in item.batches]
    # Three narrow tables and quartiles without brackets: a terminal of 80 columns breaks no number.
    print_table(
        [
            *(">batch", "artifact", ">ms a run, quartiles", ">ms an item", ">items/s"),
            ">/ fastest, quartiles",
        ],
        # Those that were timed together stand together, in the manifest's order.
        [_timing_row(*pair) for pair in sorted(timings, key=lambda pair: pair[0].batch)],
    )
    click.echo("")
    _print_starts([item for item in report.artifacts if item.not_run is None])
    for item in report.artifacts:
        if item.not_run is not None:
            click.echo(f"{item.file}: not run: {item.not_run}")
    click.echo(_machine_line(report))


def _file_row(item: ArtifactTiming) -> list[str]:
    ran_on = "not run" if item.not_run else f"{item.backend} {item.backend_version}"
    size = size_text(item.bytes)
    return [item.file, item.format, ran_on, item.sampler, item.precision, size]


def _timing_row(timing: BatchTiming, file: str) -> list[str]:
    return [
        str(timing.batch),
        file,
        _spread(timing.run_ms),
        figure_text(timing.item_ms),
        figure_text(timing.items_per_s),
        _ratio(timing.ratio),
    ]


def _print_starts(items: list[ArtifactTiming]) -> None:
    batches = sorted({timing.batch for item in items for timing in item.batches})
    rows = []
    for item in items:
        first = {timing.batch: timing.first_run_ms for timing in item.batches}
        assert item.load_ms is not None
        row = [item.file, _spread(item.load_ms)]
        row += [_spread(first[batch]) if batch in first else "-" for batch in batches]
        rows.append(row)
    columns = [f">first run at batch {batch}, ms" for batch in batches]
    print_table(["artifact", ">load ms, quartiles", *columns], rows)


def _spread(values: Quartiles) -> str:
    return f"{figure_text(values.median)} {figure_text(values.q1)}-{figure_text(values.q3)}"


def _ratio(values: Quartiles | None) -> str:
    if values is None:
        return "-"
    # In every round the fastest is one times itself, exactly.
    return "fastest" if values.q1 == values.q3 == 1.0 else _spread(values)


def _machine_line(report: TimingReport) -> str:
    machine = report.machine
    some = machine.usable_cores != machine.cores
    cores = f"{machine.usable_cores} of {machine.cores}" if some else str(machine.cores)
    line = f"Measured on {machine.cpu} ({cores} cores, {machine.architecture}), threads: "
    line += f"{report.threads}." if report.threads else f"{_own_choices(report)}."
    if machine.busy:
        line += (
            f" The load average was {machine.load_average:.1f} at the start: other work is "
            "running: figures are too high."
        )
    return line


def _own_choices(report: TimingReport) -> str:
    """Return how many cores each backend used that was not told how many."""
    busy: dict[str, float] = {}
    for item in report.artifacts:
        for timing in item.batches:
            busy[item.backend] = max(busy.get(item.backend, 0.0), timing.cores_busy)
    used = ", ".join(f"{backend} kept {cores:.1f} cores busy" for backend, cores in busy.items())
    return f"each backend's own choice ({used})"
