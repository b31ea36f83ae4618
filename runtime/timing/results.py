"""Define what timing a bundle gives: medians with their quartiles, never a mean alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stnkit.runtime.timing.machine import Machine

__all__ = ["ArtifactTiming", "BatchTiming", "Quartiles", "TimingReport"]


@dataclass(frozen=True)
class Quartiles:
    """Median, lower and upper quartile of some measurements, in the unit of these.

    Attributes:
        median: half of them are at most this.
        q1: a quarter of them are at most this.
        q3: three quarters of them are at most this.
    """

    median: float
    q1: float
    q3: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quartiles:
        """Return those of some values.

        Args:
            values: at least one.

        Raises:
            ValueError: there are none.
        """
        import numpy as np

        if not values:
            raise ValueError("no values: expected at least one")
        q1, median, q3 = np.percentile(np.asarray(values, np.float64), [25, 50, 75])
        return cls(float(median), float(q1), float(q3))

    def to_json(self) -> dict[str, float]:
        """Return a dict of JSON values."""
        return {"median": self.median, "q1": self.q1, "q3": self.q3}


@dataclass(frozen=True)
class BatchTiming:
    """How long one artifact takes for one batch size.

    Attributes:
        batch: number of items in a run, >= 1.
        inputs: what it was run on: the name of a stored probe, or "random".
        sizes: sizes of the named dimensions, by name; empty where the model leaves none open.
        first_run_ms: the first run after opening the file, ms.
        rounds_ms: of each round, the time of one run, ms; all artifacts of a batch size have one
            turn in each round.
        runs_per_round: how many runs a round's time is the mean of.
        cores_busy: CPU time over wall time while it ran, median over the rounds.
        ratio: time over that of the fastest artifact of this batch size in the same round; None
            where it is the only one.
    """

    batch: int
    inputs: str
    sizes: Mapping[str, int]
    first_run_ms: Quartiles
    rounds_ms: tuple[float, ...]
    runs_per_round: int
    cores_busy: float
    ratio: Quartiles | None

    @property
    def run_ms(self) -> Quartiles:
        """Time of one run, ms, over the rounds."""
        return Quartiles.of(self.rounds_ms)

    @property
    def item_ms(self) -> float:
        """Median time of one item of the batch, ms."""
        return self.run_ms.median / self.batch

    @property
    def items_per_s(self) -> float:
        """Items a second at the median time."""
        return 1000 / self.item_ms

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values."""
        return {
            "batch": self.batch,
            "inputs": self.inputs,
            "sizes": dict(self.sizes),
            "first_run_ms": self.first_run_ms.to_json(),
            "run_ms": self.run_ms.to_json(),
            "item_ms": self.item_ms,
            "items_per_s": self.items_per_s,
            "ratio": None if self.ratio is None else self.ratio.to_json(),
            "cores_busy": self.cores_busy,
            "runs_per_round": self.runs_per_round,
            "rounds_ms": list(self.rounds_ms),
        }


@dataclass(frozen=True)
class ArtifactTiming:
    """How long one artifact takes.

    Attributes:
        file: the artifact's file name.
        format: `"tflite"` or `"onnx"`.
        precision: the manifest's word for it, e.g. `"fp32"`.
        sampler: the manifest's word for it, e.g. `"gather"`.
        bytes: size of the file.
        backend: the backend that ran it, or would have.
        backend_version: its version; None when it did not run.
        load_ms: opening the file, ms; None when it did not run.
        batches: one a batch size; empty only when it did not run.
        not_run: why it did not run; None when it did.

    Raises:
        ValueError: it ran and nothing was timed, or did not run and something was.
    """

    file: str
    format: str
    precision: str
    sampler: str
    bytes: int
    backend: str
    backend_version: str | None = None
    load_ms: Quartiles | None = None
    batches: tuple[BatchTiming, ...] = ()
    not_run: str | None = None

    def __post_init__(self) -> None:
        if (self.not_run is None) != bool(self.batches):
            raise ValueError(
                f"{self.file}: {len(self.batches)} batch sizes and not_run={self.not_run!r}: "
                "expected some, or a reason for having none"
            )

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values."""
        return {
            "file": self.file,
            "format": self.format,
            "precision": self.precision,
            "sampler": self.sampler,
            "bytes": self.bytes,
            "backend": self.backend,
            "backend_version": self.backend_version,
            "not_run": self.not_run,
            "load_ms": None if self.load_ms is None else self.load_ms.to_json(),
            "batches": [batch.to_json() for batch in self.batches],
        }


@dataclass(frozen=True)
class TimingReport:
    """How long the artifacts of a bundle take on one machine.

    Attributes:
        bundle: name of the bundle.
        device: `"cpu"` or `"cuda:N"`.
        threads: number of threads that shared one run; None where each backend chose its own.
        machine: where it was measured.
        artifacts: one an artifact, in the manifest's order; at least one ran.

    Raises:
        ValueError: no artifact ran.
    """

    bundle: str
    device: str
    threads: int | None
    machine: Machine
    artifacts: tuple[ArtifactTiming, ...]

    def __post_init__(self) -> None:
        if all(item.not_run is not None for item in self.artifacts):
            raise ValueError(f"{self.bundle}: no artifact ran: expected at least one")

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values."""
        return {
            "bundle": self.bundle,
            "device": self.device,
            "threads": self.threads,
            "machine": self.machine.to_json(),
            "artifacts": [item.to_json() for item in self.artifacts],
        }
