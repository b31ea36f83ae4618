"""Counts and times, as the protocol's statistics have them."""

from __future__ import annotations

import threading

from stnkit.runtime.serving.statistics import LATENCY_BOUNDS_S, Histogram, ModelStatistics

MS = 1_000_000


def test_one_batch_by_hand():
    statistics = ModelStatistics()
    # Arrived at 0 and 2 ms, taken at 3, ready at 4, computed at 9, taken apart at 11 ms.
    statistics.add_batch([0, 2 * MS], 3, 4, 3 * MS, 4 * MS, 9 * MS, 11 * MS)
    found = statistics.to_json("m", "2")
    assert (found["name"], found["version"]) == ("m", "2")
    assert (found["inference_count"], found["execution_count"]) == (3, 1)
    assert found["last_inference"] > 1_600_000_000_000
    assert found["inference_stats"] == {
        "success": {"count": 2, "ns": (11 + 9) * MS},
        "fail": {"count": 0, "ns": 0},
        "queue": {"count": 2, "ns": (3 + 1) * MS},
        "compute_input": {"count": 2, "ns": 2 * MS},
        "compute_infer": {"count": 2, "ns": 10 * MS},
        "compute_output": {"count": 2, "ns": 4 * MS},
        "cache_hit": {"count": 0, "ns": 0},
        "cache_miss": {"count": 0, "ns": 0},
    }
    assert found["batch_stats"] == [
        {
            "batch_size": 4,
            "compute_input": {"count": 1, "ns": 1 * MS},
            "compute_infer": {"count": 1, "ns": 5 * MS},
            "compute_output": {"count": 1, "ns": 2 * MS},
        }
    ]
    assert statistics.padded_items == 1


def test_batches_by_size_and_failures_by_reason():
    statistics = ModelStatistics()
    for bucket in (8, 1, 8):
        statistics.add_batch([0], bucket, bucket, 1, 2, 3, 4)
    statistics.add_failure("backend", 5)
    statistics.add_failure("backend", 6)
    statistics.add_failure("invalid")
    found = statistics.to_json("m", "1")
    assert [entry["batch_size"] for entry in found["batch_stats"]] == [1, 8]
    assert [entry["compute_infer"]["count"] for entry in found["batch_stats"]] == [1, 2]
    assert found["inference_stats"]["fail"] == {"count": 3, "ns": 11}
    assert statistics.failures == {"backend": 2, "invalid": 1}


def test_a_histogram_counts_up_to_its_bounds_and_beyond():
    histogram = Histogram([1.0, 2.0])
    for value in (0.5, 1.0, 1.5, 2.0, 2.5, 100.0):
        histogram.add(value)
    assert histogram.counts == [2, 2, 2]
    assert histogram.total == 107.5


def test_bounds_ascend():
    assert list(LATENCY_BOUNDS_S) == sorted(set(LATENCY_BOUNDS_S))


def test_threads_lose_no_count():
    statistics = ModelStatistics()

    def add():
        for _ in range(2000):
            statistics.add_batch([0, 1], 2, 2, 1, 2, 3, 4)
            statistics.add_failure("deadline", 1)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (statistics.success, statistics.executions, statistics.items) == (16000, 8000, 16000)
    assert sum(statistics.request_s.counts) == sum(statistics.queue_s.counts) == 16000
    assert sum(statistics.compute_s.counts) == 8000
    assert statistics.failures == {"deadline": 8000}
