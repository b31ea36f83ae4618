"""Count what a model served, for its statistics and its metrics.

Source: Open Inference Protocol extension "statistics"; times are in nanoseconds, as there.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

__all__ = ["LATENCY_BOUNDS_S", "Histogram", "ModelStatistics"]

LATENCY_BOUNDS_S = (
    *(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0),
)
"""Upper bounds of the latency histograms' buckets: a model here takes 0.1 ms to seconds."""


class Histogram:
    """Counts of values below ascending bounds; not locked.

    Args:
        bounds: upper bounds, inclusive.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class ModelStatistics:
    """What one version of a model served; any thread may add to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.success = 0
        self.success_ns = 0
        self.failures: dict[str, int] = {}
        self.fail_ns = 0
        self.items = 0
        self.executions = 0
        self.padded_items = 0
        self.queue_ns = 0
        self.compute_input_ns = 0
        self.compute_infer_ns = 0
        self.compute_output_ns = 0
        self.last_inference_ms = 0
        # batch size -> executions and their times
        self.batches: dict[int, list[int]] = {}
        self.request_s = Histogram(LATENCY_BOUNDS_S)
        self.queue_s = Histogram(LATENCY_BOUNDS_S)
        self.compute_s = Histogram(LATENCY_BOUNDS_S)

    def add_batch(
        self,
        arrivals_ns: Sequence[int],
        items: int,
        bucket: int,
        started_ns: int,
        ready_ns: int,
        done_ns: int,
        ended_ns: int,
    ) -> None:
        """Count a batch that was answered; times are readings of `time.monotonic_ns`.

        Args:
            arrivals_ns: when each of its requests arrived.
            items: items of these requests together.
            bucket: the size that ran.
            started_ns: when the batch was taken from the queue.
            ready_ns: when its inputs were put together.
            done_ns: when the backend had answered.
            ended_ns: when the answers were taken apart.
        """
        requests = len(arrivals_ns)
        with self._lock:
            self.success += requests
            self.items += items
            self.executions += 1
            self.padded_items += bucket - items
            for arrived_ns in arrivals_ns:
                waited, whole = started_ns - arrived_ns, ended_ns - arrived_ns
                self.queue_ns += waited
                self.success_ns += whole
                self.queue_s.add(waited / 1e9)
                self.request_s.add(whole / 1e9)
            # Each request is said to have taken the time of its batch, as Triton counts.
            self.compute_input_ns += requests * (ready_ns - started_ns)
            self.compute_infer_ns += requests * (done_ns - ready_ns)
            self.compute_output_ns += requests * (ended_ns - done_ns)
            self.compute_s.add((done_ns - ready_ns) / 1e9)
            self.last_inference_ms = time.time_ns() // 1_000_000
            entry = self.batches.setdefault(bucket, [0, 0, 0, 0])
            entry[0] += 1
            entry[1] += ready_ns - started_ns
            entry[2] += done_ns - ready_ns
            entry[3] += ended_ns - done_ns

    def add_failure(self, reason: str, elapsed_ns: int = 0) -> None:
        """Count a request that got no answer.

        Args:
            reason: a word of ours, never a client's: it becomes a label of a metric.
            elapsed_ns: time since it arrived.
        """
        with self._lock:
            self.failures[reason] = self.failures.get(reason, 0) + 1
            self.fail_ns += elapsed_ns

    def to_json(self, name: str, version: str) -> dict[str, Any]:
        """Return the protocol's entry of `model_stats`.

        Args:
            name: the model's name.
            version: its version.
        """
        with self._lock:
            count = self.success

            def duration(ns: int, times: int = count) -> dict[str, int]:
                return {"count": times, "ns": ns}

            return {
                "name": name,
                "version": version,
                "last_inference": self.last_inference_ms,
                "inference_count": self.items,
                "execution_count": self.executions,
                "inference_stats": {
                    "success": duration(self.success_ns),
                    "fail": duration(self.fail_ns, sum(self.failures.values())),
                    "queue": duration(self.queue_ns),
                    "compute_input": duration(self.compute_input_ns),
                    "compute_infer": duration(self.compute_infer_ns),
                    "compute_output": duration(self.compute_output_ns),
                    "cache_hit": duration(0, 0),
                    "cache_miss": duration(0, 0),
                },
                "batch_stats": [
                    {
                        "batch_size": size,
                        "compute_input": duration(entry[1], entry[0]),
                        "compute_infer": duration(entry[2], entry[0]),
                        "compute_output": duration(entry[3], entry[0]),
                    }
                    for size, entry in sorted(self.batches.items())
                ],
            }
