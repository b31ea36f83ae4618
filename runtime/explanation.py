"""Say what a session took, and why it did not take the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Candidate", "Explanation"]


@dataclass(frozen=True)
class Candidate:
    """An artifact that was considered and not taken.

    Attributes:
        artifact: its file name.
        backend: the backend that would run it.
        reason: why it was not taken.
    """

    artifact: str
    backend: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values."""
        return {"artifact": self.artifact, "backend": self.backend, "reason": self.reason}


@dataclass(frozen=True)
class Explanation:
    """What a session runs, on what, and why.

    Attributes:
        bundle: name of the bundle.
        device: `"cpu"` or `"cuda:N"`.
        device_reason: why this device.
        artifact: file name of the artifact.
        artifact_reason: why this artifact.
        rejected: the other artifacts, in the manifest's order.
        backend: name of the backend.
        backend_version: its version.
        purpose: what the session is for.
        threads: number of threads that share one run; None where the backend has chosen.
        spinning: whether idle threads wait busily.
        parallel_runs: how many runs go on at once at most; None for as many as there are callers.
        batch_buckets: sizes that batches are filled up to; empty where they run as they come.
        cuda_graph: whether runs replay a CUDA graph.
        notes: further sentences, e.g. which nodes are not on the GPU.
    """

    bundle: str
    device: str
    device_reason: str
    artifact: str
    artifact_reason: str
    rejected: tuple[Candidate, ...]
    backend: str
    backend_version: str
    purpose: str
    threads: int | None
    spinning: bool
    parallel_runs: int | None
    batch_buckets: tuple[int, ...]
    cuda_graph: bool
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values."""
        return {
            "bundle": self.bundle,
            "device": self.device,
            "device_reason": self.device_reason,
            "artifact": self.artifact,
            "artifact_reason": self.artifact_reason,
            "rejected": [candidate.to_json() for candidate in self.rejected],
            "backend": self.backend,
            "backend_version": self.backend_version,
            "purpose": self.purpose,
            "threads": self.threads,
            "spinning": self.spinning,
            "parallel_runs": self.parallel_runs,
            "batch_buckets": list(self.batch_buckets),
            "cuda_graph": self.cuda_graph,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        """Return a few lines for a person."""
        threads = "the backend's own number of" if self.threads is None else str(self.threads)
        plural = "" if self.threads == 1 else "s"
        lines = [
            f"device     {self.device}: {self.device_reason}",
            f"artifact   {self.artifact}: {self.artifact_reason}",
            *(f"  not      {it.artifact} ({it.backend}): {it.reason}" for it in self.rejected),
            f"backend    {self.backend} {self.backend_version}",
            f"purpose    {self.purpose}: {threads} thread{plural} a run, "
            f"{'spinning' if self.spinning else 'no spinning'}, {self._parallel()}",
        ]
        if self.batch_buckets:
            sizes = ", ".join(str(size) for size in self.batch_buckets)
            lines.append(f"batches    filled up to {sizes}")
        if self.device != "cpu":
            lines.append(f"CUDA graph {'yes' if self.cuda_graph else 'no'}")
        lines += [f"note       {note}" for note in self.notes]
        return "\n".join(lines)

    def _parallel(self) -> str:
        if self.parallel_runs is None:
            return "as many runs at once as there are callers"
        return f"at most {self.parallel_runs} run{'s'[: self.parallel_runs - 1]} at once"
