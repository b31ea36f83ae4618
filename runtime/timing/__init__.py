"""Timing the artifacts of a bundle side by side, on the machine at hand."""

from stnkit.runtime.timing.bundle_timing import time_bundle
from stnkit.runtime.timing.machine import Machine
from stnkit.runtime.timing.results import ArtifactTiming, BatchTiming, Quartiles, TimingReport

__all__ = [
    "ArtifactTiming",
    "BatchTiming",
    "Machine",
    "Quartiles",
    "TimingReport",
    "time_bundle",
]
