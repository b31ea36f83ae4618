"""Bounds on what models may take while they run.

A valid file of 300 bytes can ask for terabytes, or go on for ever, and only running it tells. Under
a limit the allocation fails inside the backend, which raises an error, where otherwise the system
would end this process or another one; and a run that does not end is ended. TensorFlow does not
check every allocation and may crash: the process around it then says so.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from stnkit.runtime.errors import InputError, OutOfMemoryError, one_line
from stnkit.runtime.memory import map_large_blocks

OWN_PROCESS = object()
"""What click carries where the command line is all that its process is for."""

SECONDS = 1800
"""Longest that a comparison may take where nobody says otherwise."""

_MIB = 2**20
# Room for the rest of the machine, and for files that are read while models run.
_OF_AVAILABLE = 0.9
_PR_SET_PDEATHSIG = 1  # prctl.h
_CGROUP_FILES = ("memory.max", "memory/memory.limit_in_bytes")  # of version 2 and of version 1


def outlive_crashes() -> None:
    """Go on in a child process; this one waits for it, and ends with one line where it crashes.

    For a process that does nothing else, before it has threads. Does nothing but on Linux, where
    alone a limit of memory brings crashes about, and a child can be made to end with its parent.
    """
    if sys.platform != "linux":
        return
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed by whoever started this
            stream.flush()
    parent = os.getpid()
    child = os.fork()
    if not child:
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before that was said
            os._exit(2)
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the child gets it too, and says so
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        _say(
            f"running the models crashed ({signal.Signals(-code).name}): one is damaged, or needs "
            "more memory than there is or --memory-limit allows"
        )
    os._exit(code if code >= 0 else 2)


def collect_seldom() -> None:
    """Have Python look for cycles of objects after 100,000 new ones, and seldom through old ones.

    The hundreds of thousands of objects that TensorFlow's import makes stay: to look through them
    again and again takes 0.7 s. For a process that does one short thing; what holds weights is
    freed by `give_back(cycles=True)`.
    """
    gc.set_threshold(100_000, 20, 20)


def free_early() -> None:
    """Have memory given back when it is freed, by TensorFlow too: call this before its import.

    Both it and the C library keep what the largest batch took, for the next run of the same model:
    here another model runs next. For a process that does nothing else. The same kernels run.

    Source: tensorflow/core/util/onednn_env_vars.cc, `UseSystemAlloc`.
    """
    # Read where TensorFlow computes with oneDNN, which has an allocator of its own.
    os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")
    map_large_blocks()


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody may be listening
        click.echo(f"error: {text}", err=True)


@contextmanager
def bounded(seconds: int, memory_mib: int | None) -> Iterator[None]:
    """Bound what the code inside may take.

    Args:
        seconds: Longest time. Past it the process ends with exit code 2 and one line: a backend
            inside a loop can be told to stop in no other way.
        memory_mib: Most memory of this process; None for 0.9 of what is available. Only Linux
            can bound it.

    Raises:
        OutOfMemoryError: If more memory was asked for.
        InputError: If memory cannot be bounded here, and was to be.
    """
    with _memory_bounded(memory_mib) as limit:
        timer = threading.Timer(seconds, _end, (seconds,))
        timer.daemon = True
        timer.start()
        try:
            yield
        except (OutOfMemoryError, MemoryError, SystemError) as exc:
            # SystemError: from extension modules that were short of memory and did not say so.
            own = isinstance(exc, OutOfMemoryError)
            said = str(exc) if own else f"not enough memory to compare ({one_line(exc)})"
            allowed = f" (limit {limit / _MIB:,.0f} MiB)" if limit else ""
            raise OutOfMemoryError(
                f"{said}{allowed}: compare smaller models, or where they are to be trusted allow "
                "more with --memory-limit"
            ) from exc
        finally:
            timer.cancel()


def _end(seconds: int) -> None:
    _say(
        f"the comparison has not ended within {seconds} s: a model may go on for ever; if one is "
        "only slow, allow more with --time-limit"
    )
    os._exit(2)


@contextmanager
def _memory_bounded(mib: int | None) -> Iterator[int | None]:
    """Bound this process's private memory and yield the limit in bytes; None where it cannot be."""
    # Elsewhere the limit does not exist, or covers little of what is allocated.
    if sys.platform != "linux":
        if mib is not None:
            raise InputError(f"--memory-limit {mib}: memory can be bounded on Linux alone")
        yield None
        return
    import resource

    # Not the address space: most of what libraries map there is never touched.
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _default_bytes() if mib is None else mib * _MIB
    limits = [
        limit for limit in (wanted, soft, hard) if limit not in (None, resource.RLIM_INFINITY)
    ]
    limit = min(limits, default=None)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield limit
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _default_bytes() -> int | None:
    """Return what this process may hold where nobody says: what it does, and what is available."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[5])
        free = sum(
            int(line.split()[1]) * 1024
            for line in lines
            if line.startswith(("MemAvailable:", "SwapFree:"))
        )
    except (OSError, ValueError, IndexError):  # a sandbox without /proc
        return None
    bounds = [pages * os.sysconf("SC_PAGESIZE") + int(free * _OF_AVAILABLE)]
    for name in _CGROUP_FILES:  # a container's own limit: past it the system ends the process
        with contextlib.suppress(OSError, ValueError):
            bounds.append(int(int(Path("/sys/fs/cgroup", name).read_text("ascii")) * _OF_AVAILABLE))
    return min(bounds)
