"""Set threads and spinning for what a session is for.

The figures behind the choices are in docs/runtime.md; `benchmarks/session_purposes.py` takes them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from stnkit.runtime.errors import InputError, one_line

__all__ = ["PURPOSES", "RunSettings", "settings_for", "usable_cores"]

PURPOSES = ("shared", "latency", "throughput")
"""What a session may be for: a machine with other work, one request at a time, many at once."""


@dataclass(frozen=True)
class RunSettings:
    """How a backend uses the processor.

    Attributes:
        purpose: one of `PURPOSES`.
        threads: number of threads that share one run; None leaves it to the backend.
        spinning: whether idle threads of a run wait busily for the next one (ONNX Runtime only).
        instances: how many runs a backend that serves one thread at a time has room for (LiteRT
            only: ONNX Runtime runs as many at once as there are callers).
    """

    purpose: str = "shared"
    threads: int | None = None
    spinning: bool = False
    instances: int = 1


def settings_for(purpose: str, threads: int | None) -> RunSettings:
    """Return how to use the processor.

    Args:
        purpose: one of `PURPOSES`.
        threads: number of threads that share one run, where the caller has chosen.

    Raises:
        InputError: no such purpose, or a thread count below 1.
    """
    if purpose not in PURPOSES:
        raise InputError(
            f'there is no purpose "{one_line(str(purpose))}": expected one of {", ".join(PURPOSES)}'
        )
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}: expected at least 1, or None for the default")
    if purpose == "throughput":
        # Runs side by side need no threads of their own, which would only wait for each other.
        return RunSettings(purpose, threads or 1, instances=usable_cores())
    if purpose == "latency":
        return RunSettings(purpose, threads or usable_cores(), spinning=True)
    return RunSettings(purpose, threads)


def usable_cores() -> int:
    """Return the number of logical cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
