"""Writing reports where the user wants them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from stnkit.runtime.errors import InputError

if TYPE_CHECKING:
    from stnkit.runtime.equivalence.results import EquivalenceReport


def write_report(path: Path, text: str) -> None:
    """Write a report in one step, replacing an older one.

    Raises:
        InputError: If it cannot be written.
    """
    draft = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, "utf-8")
        draft.replace(path)
    except OSError as exc:
        raise InputError(f"{path}: cannot be written ({exc.strerror or exc})") from exc


def append_step_summary(report: EquivalenceReport) -> None:
    """Add the report to the summary of a GitHub Actions step, where one is running.

    Raises:
        InputError: If the file that GitHub names cannot be written.
    """
    from stnkit.runtime.equivalence import summary_markdown

    target = os.environ.get("GITHUB_STEP_SUMMARY")
    if not target:
        return
    try:
        with Path(target).open("a", encoding="utf-8") as stream:
            stream.write(summary_markdown(report))
    except OSError as exc:
        raise InputError(f"{target}: cannot be written ({exc.strerror or exc})") from exc
