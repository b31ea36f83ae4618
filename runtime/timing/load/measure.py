"""Run a load, in this process or in one of its own."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from stnkit.runtime.errors import InputError, StnkitError, one_line
from stnkit.runtime.timing.load.loops import ClosedLoop, Loop, OpenLoop
from stnkit.runtime.timing.load.plan import LoadPlan
from stnkit.runtime.timing.load.result import LoadResult

__all__ = ["WRONG_USE", "measure_load", "run_load"]

WRONG_USE = 2
"""What the process of a load exits with where the error is one of stnkit's own."""

_SLACK_S = 30.0


def measure_load(plan: LoadPlan) -> LoadResult:
    """Run a load in a process of its own, so that it shares no lock with a server in this one.

    Args:
        plan: what to send where.

    Raises:
        InputError: nothing listens there.
        StnkitError: the process failed.
    """
    command = [sys.executable, "-m", "stnkit.runtime.timing.load"]
    limit_s = plan.whole_s + 2 * plan.timeout_s + _SLACK_S
    try:
        done = subprocess.run(
            command, input=plan.to_bytes(), capture_output=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise StnkitError(f"the load generator did not end within {limit_s:.0f} s") from exc
    if done.returncode == 0:
        return LoadResult.from_bytes(done.stdout)
    text = one_line(done.stderr.decode("utf-8", "replace")[-400:])
    if done.returncode == WRONG_USE:
        raise InputError(text)
    raise StnkitError(f"the load generator failed with {done.returncode}: {text}")


def run_load(plan: LoadPlan) -> LoadResult:
    """Run a load in this process, on an event loop of its own.

    Args:
        plan: what to send where.

    Raises:
        InputError: nothing listens there.
    """
    loop = (ClosedLoop if plan.rate_per_s is None else OpenLoop)(plan)
    cpu_s, wall_s = time.process_time(), time.monotonic()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(loop.run())
    return _result(loop, time.process_time() - cpu_s, time.monotonic() - wall_s)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return uvloop's where it is installed: it does half as much again."""
    try:
        factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(
            "uvloop"
        ).new_event_loop
    except ImportError:
        return asyncio.new_event_loop
    return factory


def _result(loop: Loop, cpu_s: float, wall_s: float) -> LoadResult:
    plan = loop.plan
    scheduled, sent, done = (
        np.frombuffer(times, np.int64) for times in (loop.scheduled_ns, loop.sent_ns, loop.done_ns)
    )
    status = np.frombuffer(loop.status, np.int16)
    duration_s = plan.duration_s
    if plan.rate_per_s is None and status.size == plan.requests_most:
        # It ended when all were answered, not when the time was over; the last one counts.
        last_s = (int(done.max()) - loop.begin_ns + 1000) / 1e9
        duration_s = min(duration_s, max(1e-9, last_s - plan.warm_up_s))
    return LoadResult(
        scheduled_ns=scheduled - loop.begin_ns,
        delay_ns=sent - scheduled,
        latency_ns=done - scheduled,
        status=status,
        warm_up_s=plan.warm_up_s,
        duration_s=duration_s,
        connections=plan.connections,
        sent_bytes=len(plan.request) * int((sent < done).sum()),
        received_bytes=loop.received_bytes,
        cpu_s=cpu_s,
        wall_s=wall_s,
        problem=loop.problem,
    )
