"""Timing a bundle: what is timed, on what, and that the figures agree with each other."""

from __future__ import annotations

import gc
import importlib.util
import itertools
import json
import math
import time

import numpy as np
import pytest

import stnkit.runtime.timing.bundle_timing as bundle_timing
from stnkit.runtime import BackendMissingError, BundleError, InputError, open_bundle, time_bundle
from stnkit.runtime.signature import Signature, TensorSpec
from stnkit.runtime.timing import ArtifactTiming, Machine, Quartiles, TimingReport
from stnkit.runtime.timing.inputs import inputs_for
from stnkit.runtime.timing.machine import this_machine
from stnkit.runtime.timing.turns import ROUNDS, ROUNDS_LEAST, take_turns

ROUNDS_HERE = 3


def hide(monkeypatch, *packages):
    """Make packages look as if they were not installed."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in packages else real(name, *a)
    )


def ordered(values):
    return 0 < values.q1 <= values.median <= values.q3 < math.inf


def test_every_artifact_at_both_batch_sizes(both_path):
    seen = []
    report = time_bundle(
        both_path, rounds=ROUNDS_HERE, on_batch=lambda *it: seen.append(it), threads=1
    )
    files = ("model.fp32.tflite", "model.fp32.onnx")
    assert seen == [(1, files), (8, files)]
    assert (report.bundle, report.device, report.threads) == ("toy", "cpu", 1)
    assert tuple(item.file for item in report.artifacts) == files
    for item, backend in zip(report.artifacts, ("litert", "onnxruntime"), strict=True):
        assert item.not_run is None
        assert item.backend == backend
        assert item.backend_version
        assert (item.precision, item.sampler) == ("fp32", "gather")
        assert item.bytes == (both_path / item.file).stat().st_size
        assert ordered(item.load_ms)
        assert [timing.batch for timing in item.batches] == [1, 8]
        assert [timing.inputs for timing in item.batches] == ["noise_b1", "random"]
        for timing in item.batches:
            assert ordered(timing.run_ms)
            assert ordered(timing.first_run_ms)
            assert ordered(timing.ratio)
            assert len(timing.rounds_ms) == ROUNDS_HERE
            assert timing.runs_per_round > 1
            assert timing.cores_busy > 0
            assert timing.sizes == {"batch": timing.batch}
            assert timing.item_ms == pytest.approx(timing.run_ms.median / timing.batch)
            assert timing.items_per_s == pytest.approx(1000 / timing.item_ms)
    for index in (0, 1):
        pair = [item.batches[index] for item in report.artifacts]
        fastest = min(pair, key=lambda timing: timing.run_ms.median)
        assert fastest.ratio == Quartiles(1.0, 1.0, 1.0)
        for timing in pair:
            ratios = np.divide(timing.rounds_ms, fastest.rounds_ms)
            assert timing.ratio.median == pytest.approx(np.median(ratios))


def test_json(bundle_path):
    report = time_bundle(bundle_path, rounds=1, batches=[2])
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    (item,) = document["artifacts"]
    (timing,) = item["batches"]
    assert timing["batch"] == 2
    assert timing["ratio"] is None
    assert timing["run_ms"]["median"] == timing["rounds_ms"][0]


def test_chosen_artifact_and_batches_once_each(both_path):
    report = time_bundle(
        open_bundle(both_path), artifact="onnx", batches=[3, 2, 3], rounds=1, threads=2
    )
    (item,) = report.artifacts
    assert item.format == "onnx"
    assert [(it.batch, it.inputs, it.ratio) for it in item.batches] == [
        (2, "random", None),
        (3, "noise_b3", None),
    ]


def test_an_artifact_of_one_batch_size_is_timed_at_its_own(maker, toy, tmp_path):
    fixed = Signature(
        (TensorSpec("image", "float32", (2, 4, 4, 1), "NHWC", (0.0, 1.0)),),
        (TensorSpec("probabilities", "float32", (2, 3)), TensorSpec("features", "float32", (2, 3))),
    )
    path = maker.write(
        tmp_path / "fixed",
        [toy.onnx(batch=2)],
        cases=(toy.case(2),),
        artifact_changes={"batch": 2},
        signature=fixed,
    )
    (item,) = time_bundle(path, rounds=1).artifacts
    assert [(it.batch, it.inputs) for it in item.batches] == [(2, "noise_b2")]
    assert time_bundle(path, rounds=1, batches=[2]).artifacts[0].batches[0].batch == 2
    with pytest.raises(InputError, match=r"model\.fp32\.onnx cannot take batches of 5: expected 2"):
        time_bundle(path, batches=[2, 5])


def test_the_sessions_of_users_are_what_runs(both_path, monkeypatch):
    opened = []
    real = bundle_timing.load

    def load(bundle, **options):
        opened.append((options["artifact"], options["threads"], session := real(bundle, **options)))
        return session

    monkeypatch.setattr(bundle_timing, "load", load)
    time_bundle(both_path, threads=2, batches=[1], rounds=1)
    assert {it[:2] for it in opened} == {("model.fp32.tflite", 2), ("model.fp32.onnx", 2)}
    assert all(session._closed for *_, session in opened)


def test_what_cannot_run_is_listed_with_the_reason(both_path, monkeypatch):
    hide(monkeypatch, "onnxruntime")
    report = time_bundle(both_path, batches=[1], rounds=1)
    ran, lost = report.artifacts
    assert ran.not_run is None
    assert ran.batches[0].ratio is None
    assert lost.not_run.startswith("onnxruntime is not installed: pip install")
    assert (lost.batches, lost.load_ms, lost.backend_version) == ((), None, None)
    with pytest.raises(BackendMissingError):
        time_bundle(both_path, artifact="onnx")
    hide(monkeypatch, "onnxruntime", "ai_edge_litert")
    with pytest.raises(BackendMissingError):
        time_bundle(both_path)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"artifact": "nothing"}, 'no artifact "nothing": expected one of'),
        ({"threads": 0}, "threads is 0: expected at least 1"),
        ({"rounds": 0}, "rounds is 0: expected at least 1"),
        ({"batches": [1, 0]}, "batch is 0: expected at least 1"),
        ({"device": "auto"}, 'no device "auto": expected cpu, cuda or cuda:N'),
        ({"device": "tpu"}, 'no device "tpu": expected cpu'),
        ({"batches": [10**9]}, "choose a smaller batch"),
    ],
)
def test_wrong_use(options, says, bundle_path):
    with pytest.raises(InputError, match=says):
        time_bundle(bundle_path, **options)


def test_a_damaged_bundle(bundle_path):
    (bundle_path / "golden.npz").write_bytes(b"nothing")
    with pytest.raises(BundleError, match=r"golden\.npz"):
        time_bundle(bundle_path)


def test_a_result_of_nothing_is_an_error():
    whole = ("a.onnx", "onnx", "fp32", "gather", 1, "onnxruntime")
    with pytest.raises(ValueError, match="expected some"):
        ArtifactTiming(*whole)
    lost = ArtifactTiming(*whole, not_run="not installed")
    with pytest.raises(ValueError, match="no artifact ran"):
        TimingReport("toy", "cpu", None, this_machine(), (lost,))
    with pytest.raises(ValueError, match="no values"):
        Quartiles.of([])


def test_quartiles():
    assert Quartiles.of([4.0, 1.0, 3.0, 2.0, 5.0]) == Quartiles(3.0, 2.0, 4.0)
    assert Quartiles.of([7.0]) == Quartiles(7.0, 7.0, 7.0)


def test_a_machine_is_busy_when_more_wants_to_run_than_there_are_cores():
    machine = this_machine()
    assert machine.cpu
    assert 1 <= machine.usable_cores <= machine.cores
    for load, busy in ((4.1, True), (4.0, False), (None, False)):
        assert Machine("a", "b", 4, 4, load).busy is busy


class TestTurns:
    def test_every_function_has_one_turn_a_round_in_an_order_of_its_own(self):
        said = []

        def function(name):
            return lambda: (said.append(name), time.sleep(0.01))

        found = take_turns({name: function(name) for name in "abc"}, 4)
        # Warming up comes first, in the order given; then each name stands together in its turn.
        turns = [name for name, _ in itertools.groupby(said)][3:]
        assert sum(len(it.rounds_ms) for it in found.values()) == 12
        # Where a round ends with the function that the next begins with, the two run together.
        assert 9 <= len(turns) <= 12
        assert len({tuple(turns[k : k + 3]) for k in range(len(turns) - 2)}) > 1
        for name, turn in found.items():
            assert said.count(name) > 4 * turn.runs_per_round
            assert all(value > 0 for value in turn.rounds_ms)

    def test_long_runs_have_fewer_rounds_but_five(self, monkeypatch):
        clock = itertools.count(step=4_000_000_000)  # each look at it is 4 s later
        monkeypatch.setattr("time.perf_counter_ns", lambda: next(clock))
        found = take_turns({"slow": lambda: None})["slow"]
        assert found.rounds_ms == (4000.0,) * ROUNDS_LEAST
        assert found.runs_per_round == 1

    def test_runs_of_a_second_have_rounds_for_fifteen(self, monkeypatch):
        clock = itertools.count(step=1_000_000_000)
        monkeypatch.setattr("time.perf_counter_ns", lambda: next(clock))
        assert len(take_turns({"slow": lambda: None})["slow"].rounds_ms) == 15

    def test_short_runs_fill_a_second(self):
        found = take_turns({"short": lambda: None})["short"]
        assert len(found.rounds_ms) == ROUNDS
        assert found.runs_per_round > 1000

    def test_the_collector_is_as_it_was_after_a_failure(self):
        calls = itertools.count()

        def failing():
            if not gc.isenabled() and next(calls):
                raise RuntimeError("in a turn")

        with pytest.raises(RuntimeError, match="in a turn"):
            take_turns({"failing": failing}, 5)
        assert gc.isenabled()

    @pytest.mark.parametrize(("functions", "rounds"), [({}, 1), ({"a": int}, 0)])
    def test_nothing_to_time_is_an_error(self, functions, rounds):
        with pytest.raises(ValueError, match="expected one of each"):
            take_turns(functions, rounds)


class TestInputs:
    def signature(self, *specs):
        return Signature(tuple(specs), (TensorSpec("out", "float32", ("batch", 1)),))

    def test_a_probe_of_the_batch_size_is_taken(self, toy):
        signature = self.signature(TensorSpec("image", "float32", ("batch", 4, 4, 1)))
        found = inputs_for(signature, (toy.case(1), toy.case(3)), 3)
        assert found.name == "noise_b3"
        np.testing.assert_array_equal(found.arrays["image"], toy.case(3).inputs["image"])

    def test_open_sizes_are_those_of_the_first_probe(self, toy):
        signature = self.signature(TensorSpec("image", "float32", ("batch", "h", "w", 1)))
        found = inputs_for(signature, (toy.case(1),), 6)
        assert found.sizes == {"batch": 6, "h": 4, "w": 4}
        assert found.arrays["image"].shape == (6, 4, 4, 1)

    @pytest.mark.parametrize(
        ("dtype", "span", "lowest", "highest"),
        [
            ("float32", (2.0, 3.0), 2, 3),
            ("float16", None, -1, 1),
            ("uint8", (-5.0, 255.0), 0, 255),
            ("int32", None, 0, 1),
            ("int8", (-3.0, 3.0), -3, 3),
            ("bool", None, 0, 1),
        ],
    )
    def test_noise_lies_in_the_range_and_is_the_same_every_time(self, dtype, span, lowest, highest):
        signature = self.signature(TensorSpec("x", dtype, ("batch", 500), None, span))
        first, again = (inputs_for(signature, (), 4) for _ in range(2))
        values = first.arrays["x"]
        assert (values.shape, values.dtype) == ((4, 500), dtype)
        assert lowest <= values.min() < values.max() <= highest
        np.testing.assert_array_equal(values, again.arrays["x"])
