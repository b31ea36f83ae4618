"""Describe the machine on which something is timed: a time means nothing without it."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stnkit.runtime.errors import one_line
from stnkit.runtime.purposes import usable_cores

__all__ = ["Machine", "this_machine"]

_CPU_FILE = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Machine:
    """Where something was timed.

    Attributes:
        cpu: the processor's name, as the system has it.
        architecture: its instruction set, e.g. `"x86_64"`.
        cores: number of logical cores.
        usable_cores: number of those that this process may use.
        load_average: processes that ran or wanted to, over the last minute, before anything was
            timed; None where the system does not say.
    """

    cpu: str
    architecture: str
    cores: int
    usable_cores: int
    load_average: float | None

    @property
    def busy(self) -> bool:
        """Whether more wanted to run than there are cores, so that times are too long."""
        return self.load_average is not None and self.load_average > self.cores

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values."""
        return {
            "cpu": self.cpu,
            "architecture": self.architecture,
            "cores": self.cores,
            "usable_cores": self.usable_cores,
            "load_average": self.load_average,
            "busy": self.busy,
        }


def this_machine() -> Machine:
    """Return the machine at hand, with its load at this moment."""
    cores = os.cpu_count() or 1
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):  # not on every system
        load = None
    return Machine(_cpu_name(), platform.machine(), cores, usable_cores(), load)


def _cpu_name() -> str:
    try:
        text = _CPU_FILE.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        # Processors of Arm have no such line.
        if name.strip() == "model name" and value.strip():
            return one_line(value)
    return platform.processor() or platform.machine() or "unknown processor"
