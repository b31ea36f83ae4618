"""Several runners of one model: how many, whose turn, and what is closed when."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from stnkit.runtime import BackendError, load
from stnkit.runtime.backends.parallel import ParallelRunner
from stnkit.runtime.backends.registry import RunnerFacts


class Slow:
    """Runs until it is let go, and knows whether two threads were in it."""

    version = "7"
    facts = RunnerFacts(notes=("a note",))

    def __init__(self, go: threading.Event | None = None):
        self.go, self.inside, self.closed = go, threading.Lock(), False

    def run(self, inputs, out=None):
        assert self.inside.acquire(blocking=False), "two threads in one runner"
        try:
            assert not self.closed
            if self.go is not None:
                assert self.go.wait(10)
            return {"y": inputs["x"]}
        finally:
            self.inside.release()

    def close(self):
        self.closed = True


def start(function, count):
    threads = [threading.Thread(target=function) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_one_at_a_time_needs_one_alone():
    runner = ParallelRunner(Slow(), lambda: pytest.fail("another was opened"), 4)
    for _ in range(5):
        assert runner.run({"x": np.ones(1)})["y"] == 1
    assert (runner.version, runner.facts.notes) == ("7", ("a note",))


def test_no_more_than_allowed_and_no_two_threads_in_one():
    go, opened = threading.Event(), []

    def another():
        opened.append(Slow(go))
        return opened[-1]

    runner = ParallelRunner(Slow(go), another, 3)
    done = []
    threads = start(lambda: done.append(runner.run({"x": np.ones(1)})), 9)
    while len(opened) < 2:
        assert threads[0].is_alive()
    go.set()
    for thread in threads:
        thread.join(10)
    assert (len(done), len(opened)) == (9, 2)


def test_a_failure_to_open_another_takes_no_place():
    go, failed = threading.Event(), []

    def another():
        failed.append(True)
        raise BackendError("no memory")

    runner = ParallelRunner(Slow(go), another, 2)
    threads = start(lambda: runner.run({"x": np.ones(1)}), 1)
    while not runner._first.inside.locked():
        assert threads[0].is_alive()
    for _ in range(3):
        with pytest.raises(BackendError, match="no memory"):
            runner.run({"x": np.ones(1)})
    go.set()
    threads[0].join(10)
    assert len(failed) == 3
    runner.run({"x": np.ones(1)})


def test_closing_waits_for_nobody_and_ends_those_who_wait():
    go = threading.Event()
    first = Slow(go)
    runner = ParallelRunner(first, lambda: pytest.fail("another was opened"), 1)
    found = []

    def call():
        try:
            found.append(runner.run({"x": np.ones(1)}))
        except BackendError as exc:
            found.append(str(exc))

    threads = start(call, 3)
    while not first.inside.locked():
        assert threads[0].is_alive()
    runner.close()
    assert not first.closed  # it runs
    go.set()
    for thread in threads:
        thread.join(10)
    assert first.closed
    assert sum(item == {"y": 1} for item in found) == 1
    assert sum("closed: open the model again" in str(item) for item in found) == 2
    with pytest.raises(BackendError, match="closed"):
        runner.run({"x": np.ones(1)})


def test_sessions_for_throughput_have_several_interpreters(both_path, toy, monkeypatch):
    monkeypatch.setattr("stnkit.runtime.purposes.usable_cores", lambda: 3)
    with load(both_path, artifact="tflite", purpose="throughput") as session:
        assert isinstance(session._runner, ParallelRunner)
        assert session.explain().parallel_runs == 3
        image = toy.images(2)
        result = session.run({"image": image}, taps=True)
        np.testing.assert_allclose(result["features"], toy.run(image)["features"], atol=2e-6)
    with load(both_path, artifact="onnx", purpose="throughput") as session:
        assert session.explain().parallel_runs is None
