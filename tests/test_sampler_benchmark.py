"""The sampler benchmark, tried small: answers, refusals and records, no times."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
SHAPE = "2x12x10x3"
TARGETS = ("tflite", "onnx", "tensorflow", "tensorflow-training", "tensorflow-xla")


@pytest.fixture(scope="module")
def samplers():
    """Return the script, loaded by its path as the others are."""
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location("samplers", ROOT / "benchmarks" / "samplers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = path


@pytest.fixture(autouse=True)
def quick(samplers, monkeypatch):
    import benchmarks.timing as timing

    defaults = timing.time_side_by_side.__kwdefaults__
    monkeypatch.setattr(timing.time_side_by_side, "__kwdefaults__", {**defaults, **SHORT})
    # TensorFlow has its threads from the tests before.
    monkeypatch.setattr(samplers, "prepare_process", lambda threads, spinning: None)


SHORT = {"turn_s": 1e-4, "settle_s": 0.0}


def job_for(samplers, transform, shape=SHAPE):
    case = samplers.Case(samplers.parse_shape(shape), transform)
    return samplers.Job(case, samplers.make_inputs(case), threads=2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("transform", ["affine", "thin_plate_spline"])
@pytest.mark.parametrize("target", TARGETS)
def test_every_contender_gives_the_references_answer(samplers, target, transform):
    failures = samplers.Failures()
    rows = samplers.measure(job_for(samplers, transform), target, samplers.CONTENDERS, 2, failures)
    assert failures == []
    assert [row.contender for row in rows[:2]] == ["stnkit", samplers.BASELINE]
    for row in rows:
        if row.reason is not None:
            assert row.contender in ("PyTorch grid_sample", "OpenCV warpAffine"), row
            assert "not installed" in row.reason
            continue
        assert 0 <= row.max_error <= row.tolerance
        assert row.time_ms.q1 <= row.time_ms.median <= row.time_ms.q3
        assert row.ratio.median > 0
        assert (row.file_bytes is not None) == (target in ("tflite", "onnx"))
    baseline = rows[1]
    assert baseline.ratio.q1 == baseline.ratio.q3 == 1


def test_who_cannot_be_made_here_says_why(samplers, monkeypatch):
    for package in ("torch", "cv2"):
        monkeypatch.setitem(sys.modules, package, None)
    failures = samplers.Failures()
    chosen = [c for c in samplers.CONTENDERS if c.name.startswith(("PyTorch", "OpenCV"))]
    rows = samplers.measure(job_for(samplers, "affine"), "tensorflow", chosen, 1, failures)
    assert [row.reason for row in rows] == [
        "torch is not installed",
        "opencv-python-headless is not installed",
    ]
    assert failures == []


def test_a_wrong_contender_is_refused(samplers):
    from benchmarks.peers.contender import Contender, Prepared

    job = job_for(samplers, "affine")
    runs = []

    def build(change):
        warped = change(samplers.reference(job.case, job.inputs)["warped"])
        run = lambda: runs.append(1) or warped  # noqa: E731
        return lambda job: Prepared(run, lambda result: {"warped": result})

    def fail(job):
        raise ValueError("of its own")

    changes = {
        "right": lambda warped: warped.astype(np.float32),
        "off": lambda warped: warped + 1e-4,
        "shifted": lambda warped: np.roll(warped, 1, axis=2),
        "not finite": lambda warped: np.where(warped == warped.max(), np.nan, warped),
        "one image": lambda warped: warped[:1],
    }
    contenders = [Contender(n, {"tensorflow": build(c)}) for n, c in changes.items()]
    contenders.append(Contender("broken", {"tensorflow": fail}))
    contenders.append(Contender("known to break", {"tensorflow": fail}, may_fail=True))
    failures = samplers.Failures()
    rows = {
        row.contender: row for row in samplers.measure(job, "tensorflow", contenders, 1, failures)
    }
    assert rows["right"].reason is None
    assert rows["right"].time_ms.median > 0
    for name in ("off", "shifted", "not finite", "one image"):
        assert rows[name].reason.startswith("refused: warped"), name
        assert rows[name].time_ms is None
    assert rows["broken"].reason == "cannot be made: ValueError: of its own"
    assert rows["known to break"].reason == "cannot be made: ValueError: of its own"
    assert len(failures) == 5


def test_missing_gradients_are_refused(samplers):
    job = job_for(samplers, "affine")
    expected = samplers.reference(job.case, job.inputs, gradients=True)
    assert samplers.check_answer(expected, expected, 0) == 0
    with pytest.raises(samplers.WrongAnswerError, match="no theta_gradient"):
        samplers.check_answer(
            {name: value for name, value in expected.items() if name != "theta_gradient"},
            expected,
            0,
        )
    half = {**expected, "image_gradient": expected["image_gradient"] / 2}
    with pytest.raises(samplers.WrongAnswerError, match="image_gradient is off"):
        samplers.check_answer(half, expected, 0)


def test_the_reference_by_hand(samplers):
    """The identity, and half a pixel to the right with its fade at the border."""
    case = samplers.Case((1, 4, 4, 1), "affine")
    inputs = samplers.make_inputs(case)
    identity = np.array([[[1, 0, 0], [0, 1, 0]]], np.float32)
    same = samplers.reference(case, replace(inputs, theta=identity))["warped"]
    np.testing.assert_allclose(same, inputs.image, atol=1e-12)
    half = identity + np.array([[[0, 0, 0.25], [0, 0, 0]]], np.float32)
    shifted = samplers.reference(case, replace(inputs, theta=half))["warped"]
    padded = np.pad(inputs.image.astype(np.float64), [(0, 0), (0, 0), (0, 1), (0, 0)])
    np.testing.assert_allclose(shifted, (padded[:, :, :-1] + padded[:, :, 1:]) / 2, atol=1e-12)


def test_a_spline_on_its_own_grid_is_the_identity(samplers):
    from benchmarks.cases import CONTROL_POINTS

    case = samplers.Case((1, 6, 5, 1), "thin_plate_spline")
    inputs = samplers.make_inputs(case)
    axis = np.linspace(-1, 1, CONTROL_POINTS)
    control = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(1, -1, 2).astype(np.float32)
    same = samplers.reference(case, replace(inputs, theta=control))["warped"]
    np.testing.assert_allclose(same, inputs.image, atol=1e-6)


def test_part_of_the_output_reads_outside(samplers):
    for transform in samplers.TRANSFORMS:
        job = job_for(samplers, transform, "1x28x28x1")
        outside = (samplers.reference(job.case, job.inputs)["warped"] == 0).mean()
        assert 0.02 < outside < 0.5


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_command_prints_a_table_and_writes_json(samplers, tmp_path, capsys):
    file = tmp_path / "new" / "samplers.json"
    options = ["--shape", "1x8x8x1", "--transform", "affine", "--target", "onnx", "--rounds", "2"]
    code = samplers.main([*options, "--contender", "ONNX GridSample op", "--json", str(file)])
    assert code == 0
    printed = capsys.readouterr().out
    assert "1x8x8x1 affine, ONNX files" in printed
    assert "ONNX GridSample op" in printed
    record = json.loads(file.read_text("utf-8"))
    assert {"cpu", "cores", "architecture"} <= set(record["machine"])
    assert record["versions"]["stnkit"]
    assert record["date"].endswith("+00:00")
    assert (record["rounds"], record["threads"], record["spinning"]) == (2, 2, False)
    assert record["baseline"] == samplers.BASELINE
    assert {row["contender"] for row in record["results"]} == {
        "ONNX GridSample op",
        samplers.BASELINE,
    }
    for row in record["results"]:
        assert row["shape"] == "1x8x8x1"
        assert row["target"] == "onnx"
        assert row["transform"] == "affine"
        assert row["file_bytes"] > 0
        assert set(row["time_ms"]) == set(row["ratio"]) == {"median", "q1", "q3"}


def test_the_command_refuses_what_makes_no_sense(samplers, capsys):
    for options in (["--shape", "28x28"], ["--shape", "1x1x8x1"], ["--rounds", "0"]):
        with pytest.raises(SystemExit) as error:
            samplers.main(options)
        assert error.value.code == 2
    assert "batch x height x width x channels" in capsys.readouterr().err


def test_ratios_are_taken_within_a_round(samplers):
    from benchmarks.timing import Timing
    from stnkit.runtime.timing import Quartiles

    # A machine that becomes slower by half changes no ratio.
    own, other = Timing((1.0, 2.0, 3.0), 1), Timing((2.0, 4.0, 6.0), 1)
    assert own.ratio_to(other) == Quartiles(0.5, 0.5, 0.5)
    assert own.time_ms == Quartiles(2.0, 1.5, 2.5)
    with pytest.raises(ValueError, match="no values"):
        Quartiles.of([])
    with pytest.raises(ValueError, match="expected one of each"):
        samplers.time_side_by_side({}, 1)


def test_a_call_can_be_several_runs(samplers):
    calls = []
    timings = samplers.time_side_by_side(
        {"one": lambda: calls.append("one"), "eight": lambda: calls.append("eight")},
        3,
        turn_s=0.0,
        runs_per_call={"eight": 8},
    )
    assert (timings["one"].runs_per_turn, timings["eight"].runs_per_turn) == (1, 8)
    assert calls.count("one") == calls.count("eight")


@pytest.mark.parametrize("target", TARGETS[2:])
def test_small_images_are_warped_several_times_in_one_graph(samplers, target, monkeypatch):
    import benchmarks.peers.runtimes as runtimes
    from benchmarks.peers.gather_nd import gather_nd_warp

    builds = {
        "tensorflow": runtimes.run_tensorflow,
        "tensorflow-training": runtimes.run_tensorflow_training,
        "tensorflow-xla": partial(runtimes.run_tensorflow_training, compiled=True),
    }
    job = job_for(samplers, "affine")
    training = target != "tensorflow"
    expected = samplers.reference(job.case, job.inputs, gradients=training)
    for small, runs in ((job.inputs.image.size, 8), (0, 1)):
        monkeypatch.setattr(runtimes, "_SMALL_IMAGE", small)
        prepared = builds[target](gather_nd_warp(job.case), job)
        assert prepared.runs == runs
        samplers.check_answer(prepared.answer(prepared.run()), expected, 2e-5)
