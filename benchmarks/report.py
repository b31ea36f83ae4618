"""Rows of the sampler benchmark, as tables for people and as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stnkit.runtime.timing import Quartiles

PACKAGES = (
    "stnkit",
    "numpy",
    "tensorflow",
    "keras",
    "tf2onnx",
    "onnx",
    "ai-edge-litert",
    "onnxruntime",
    "onnxruntime-gpu",
    "torch",
    "onnxscript",
    "opencv-python-headless",
)


@dataclass(frozen=True)
class Row:
    """One contender, for one target and one case.

    Attributes:
        target: One of `benchmarks.peers.contender.TARGETS`.
        shape: As it is written on the command line.
        transform: Name of the transform.
        contender: Name of the contender.
        reason: Why it was not timed, or None.
        time_ms: Time of one run, or None.
        ratio: That time to the baseline's, or None.
        runs_per_round: How many runs a round's time is the mean of.
        file_bytes: Size of the file, or None where there is none.
        max_error: Largest error of the warped image against float64.
        tolerance: Largest one allowed.
    """

    target: str
    shape: str
    transform: str
    contender: str
    reason: str | None = None
    time_ms: Quartiles | None = None
    ratio: Quartiles | None = None
    runs_per_round: int | None = None
    file_bytes: int | None = None
    max_error: float | None = None
    tolerance: float | None = None


def format_table(title: str, rows: Sequence[Row], baseline: str) -> str:
    """Return the rows of one target and case as lines of text."""
    header = ["contender", "median ms", "quartiles", f"/ {baseline}", "quartiles", "KB", "error"]
    cells = [header, *(_cells(row) for row in rows if row.reason is None)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    lines = [title]
    for line in cells:
        padded = [line[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        lines.append("  " + "  ".join(padded).rstrip())
    lines += [f"  {row.contender.ljust(widths[0])}  {row.reason}" for row in rows if row.reason]
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    def spread(values: Quartiles | None, digits: int) -> list[str]:
        if values is None:
            return ["-", "-"]
        return [f"{values.median:.{digits}f}", f"{values.q1:.{digits}f}-{values.q3:.{digits}f}"]

    size = "-" if row.file_bytes is None else f"{row.file_bytes / 1000:.1f}"
    error = "-" if row.max_error is None else f"{row.max_error:.1e}"
    return [row.contender, *spread(row.time_ms, 3), *spread(row.ratio, 2), size, error]


def record(rows: Iterable[Row], **settings: Any) -> dict[str, Any]:
    """Return the rows with where they come from, as JSON values."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "architecture": platform.machine(),
            "system": platform.platform(),
        },
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        **settings,
        "results": [asdict(row) for row in rows],
    }


def cpu_name() -> str:
    """Return the model name of the processor, or what the platform calls it."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
