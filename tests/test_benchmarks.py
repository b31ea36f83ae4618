"""The benchmarks' scripts, tried small; their results are files."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
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


def test_every_way_to_run_a_file_is_taken(false_alarms, tmp_path, monkeypatch):
    from stnkit.convert import convert, source_from_keras
    from stnkit.models.zoo import make
    from stnkit.runtime.backends import litert

    convert(source_from_keras(make("tutorial")), tmp_path / "bundle")
    made = []
    interpreter = litert.Interpreter

    def seen(**options):
        made.append((options["num_threads"], "experimental_op_resolver_type" in options))
        return interpreter(**options)

    monkeypatch.setattr(litert, "Interpreter", seen)
    files = [f for f in false_alarms.opened(tmp_path / "bundle") if f.format == "tflite"]
    made.clear()
    for file in files:
        file.rest()
        file.run({spec.name: np.zeros((1, *spec.shape[1:]), np.float32) for spec in file.inputs})
    assert made == [(1, False), (2, False), (1, True), (2, True)]


def test_the_stored_result_is_clean(false_alarms):
    record = json.loads((BENCHMARKS / "results" / "false_alarms.json").read_text("utf-8"))
    assert set(record["networks"]) <= set(false_alarms.NETWORKS)
    assert record["seeds"] == 20
    for name, found in record["networks"].items():
        assert found["comparisons"] == 2 * 2 * 2 * 20, name
        assert found["false_alarms"] == [], name
