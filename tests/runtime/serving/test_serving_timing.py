"""Timing a served bundle next to the bare session: a real server, a real load, short turns."""

from __future__ import annotations

import json
import sys

import pytest

from stnkit.runtime.errors import InputError, StnkitError
from stnkit.runtime.serving import ModelOptions
from stnkit.runtime.timing import serving
from stnkit.runtime.timing.serving import time_serving


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(serving, "_TURN_S", 0.2)
    monkeypatch.setattr(serving, "_WARM_UP_S", 0.05)


def test_the_report(digits_served, short):
    said = []
    report = time_serving(
        digits_served,
        ModelOptions(device="cpu", artifact="tflite", instances=1, threads=1),
        batch=10,  # more than a server runs at once where nobody asks for it
        connections=(3,),
        rounds=2,
        on_stage=said.append,
    )
    assert report.bundle == "digits"
    assert (report.artifact, report.batch, report.device) == ("model.fp32.tflite", 10, "cpu")
    assert (report.instances, report.threads) == (1, 1)
    # A lone client is always timed: what the server adds is told of it.
    assert [it.callers for it in report.served] == [1, 3]
    assert [it.callers for it in report.bare] == [1]
    for timing in (*report.bare, *report.served):
        assert 0 < timing.p50_ms.median <= timing.p90_ms.median <= timing.p99_ms.median
        assert timing.requests_per_s.median > 0
    bare, served = report.bare[0], report.served[0]
    assert report.added_ms.q1 <= report.added_ms.median <= report.added_ms.q3
    low, high = (
        [getattr(served.p50_ms, a) - getattr(bare.p50_ms, b) for a, b in pairs]
        for pairs in ([("q1", "q3")], [("q3", "q1")])
    )
    assert min(low) - 1e-9 <= report.added_ms.median <= max(high) + 1e-9
    assert report.share.median > 0
    assert said[-1] == "round 2 of 2"
    assert set(json.loads(json.dumps(report.to_json()))) == {
        *("bundle", "artifact", "backend", "device", "batch", "threads", "instances"),
        *("bare", "served", "added_ms", "share", "machine"),
    }


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"batch": 0}, "batch is 0"),
        ({"rounds": 0}, "rounds is 0"),
        ({"connections": (8, 0)}, "connections is 0"),
    ],
)
def test_numbers_below_one(digits_served, wrong, says):
    with pytest.raises(InputError, match=says):
        time_serving(digits_served, **wrong)


def test_a_server_that_does_not_start_says_why(digits_served, short, monkeypatch, tmp_path):
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho 'error: no room' >&2\nexit 2\n{sys.executable}\n", "utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(serving.sys, "executable", str(program))
    with pytest.raises(StnkitError, match="the server did not start: error: no room"):
        time_serving(digits_served, ModelOptions(artifact="tflite", threads=1), rounds=1)


def test_answers_that_are_wrong_are_not_timed(digits_served, short, monkeypatch):
    """A server that answers quickly and wrongly is no fast server."""
    original = serving.measure_load

    def measure(plan):
        expected = {name: value + 1 for name, value in plan.expected.items()}
        return original(type(plan)(**{**vars(plan), "expected": expected}))

    monkeypatch.setattr(serving, "measure_load", measure)
    with pytest.raises(StnkitError, match=r"did not answer every request: .* wrong answer"):
        time_serving(digits_served, ModelOptions(artifact="tflite", threads=1), rounds=1)
