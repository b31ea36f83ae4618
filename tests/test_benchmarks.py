"""The benchmarks' scripts, tried small; their results are files."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def false_alarms():
    return load("false_alarms")


def test_a_network_without_false_alarms(false_alarms, tmp_path):
    found = false_alarms.alarms_of("tutorial", 1, tmp_path)
    # Both formats, on 1 and 2 threads, as they are and without optimisations.
    assert found["comparisons"] == 8
    assert found["false_alarms"] == []
    assert 0 < found["closest_to_the_budget"] < 1


def test_without_optimisations_other_kernels_run(false_alarms, tmp_path):
    import onnxruntime as ort

    from stnkit.runtime.backends import litert

    before = ort.InferenceSession, litert.Interpreter
    with false_alarms.without_optimisations():
        assert ort.InferenceSession is not before[0]
        assert litert.Interpreter is not before[1]
    assert before == (ort.InferenceSession, litert.Interpreter)


def test_the_stored_result_is_clean(false_alarms):
    record = json.loads((BENCHMARKS / "results" / "false_alarms.json").read_text("utf-8"))
    assert set(record["networks"]) <= set(false_alarms.NETWORKS)
    assert record["seeds"] == 20
    for name, found in record["networks"].items():
        assert found["comparisons"] == 2 * 2 * 2 * 20, name
        assert found["false_alarms"] == [], name
