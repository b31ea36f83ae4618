"""The line that says how one form of an artifact was chosen."""

from __future__ import annotations

from typing import Any

from stnkit.cli.views.table import figure_text


def tuning_line(autotune: dict[str, Any], sampler: str) -> str:
    """Return what was tried, how long it took, and where.

    Args:
        autotune: The record of the manifest, as JSON values.
        sampler: The form that was kept.
    """
    timed = [form for form in autotune["forms"] if form["dropped"] is None]
    parts = [
        f"batch {time['batch']} "
        + ", ".join(
            f"{form['sampler']} {figure_text(form['times'][index]['median_ms'])} ms"
            for form in timed
        )
        for index, time in enumerate(timed[0]["times"])
    ]
    dropped = [form["sampler"] for form in autotune["forms"] if form["dropped"] is not None]
    parts += [f"{', '.join(dropped)} did not pass"] if dropped else []
    some = autotune["usable_cores"] != autotune["cores"]
    cores = f"{autotune['usable_cores']} of {autotune['cores']}" if some else autotune["cores"]
    threads = autotune["threads"] or "its own choice"
    return (
        f"autotune kept {sampler}: {'; '.join(parts)}; on {autotune['cpu']} ({cores} cores), "
        f"{autotune['backend']} {autotune['backend_version']}, threads: {threads}"
    )
