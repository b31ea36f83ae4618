"""Verification: a right artifact passes, a wrong one fails where it is wrong."""

from __future__ import annotations

import dataclasses
import importlib.util
import json

import numpy as np
import pytest

from stnkit.runtime import raise_on_mismatch, verify
from stnkit.runtime.compare import Tolerance, compare
from stnkit.runtime.errors import BackendMissingError, InputError, MismatchError
from stnkit.runtime.signature import Contract
from stnkit.runtime.verification import ArtifactReport, VerificationReport, check_artifact


@pytest.fixture
def contract(maker, onnx_model) -> Contract:
    from stnkit.runtime.manifest import FileRecord

    manifest = maker.manifest((maker.artifact(onnx_model),), FileRecord("g", "0" * 64, 1))
    return Contract(manifest.signature, manifest.taps, manifest.tolerances)


def hide(monkeypatch, *packages):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in packages else real(name, *a)
    )


def test_a_right_bundle_passes(both_path):
    seen = []
    report = verify(both_path, on_artifact=seen.append)
    assert report.passed
    assert seen == ["model.fp32.tflite", "model.fp32.onnx"]
    raise_on_mismatch(report)
    for item, backend in zip(report.artifacts, ("litert", "onnxruntime"), strict=True):
        # 2 outputs and 2 taps, in 2 cases.
        assert len(item.comparisons) == 8
        assert item.backend == backend
        assert item.backend_version
        assert item.seconds > 0
        assert {it.kind for it in item.comparisons} == {"output", "theta", "warped"}
        errors = item.measured_errors()
        assert 0 <= errors.outputs <= 2e-6
        assert errors.theta <= 2e-6
        assert errors.warped <= 2e-6
        assert item.worst("warped").tolerance == Tolerance(1e-4, 1e-5)
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["passed"] is True
    assert document["artifacts"][0]["comparisons"][0]["case"] == "noise_b1"


def test_one_artifact_alone(both_path):
    report = verify(both_path, artifact="onnx")
    assert [item.file for item in report.artifacts] == ["model.fp32.onnx"]


def test_agreeing_outputs_do_not_hide_a_broken_warp(maker, toy, contract):
    model = toy.onnx(warp_error=0.01)
    report = check_artifact(model, maker.artifact(model), contract, [toy.case(1), toy.case(3)])
    assert not report.passed
    assert {(it.tensor, it.case) for it in report.failures} == {
        ("st/warped", "noise_b1"),
        ("st/warped", "noise_b3"),
    }
    assert report.worst("output").passed
    assert report.worst("theta").passed
    with pytest.raises(MismatchError) as caught:
        raise_on_mismatch(report)
    text = str(caught.value)
    for part in ("model.fp32.onnx", 'warped tap "st/warped"', "3, 3, 0]", "0.0001", "and 1 more"):
        assert part in text
    assert caught.value.comparisons[0] is report.worst()
    assert caught.value.exit_code == 1


def test_a_wrong_reference_at_each_place_is_found(maker, toy, contract, onnx_model):
    for group, name in (
        ("outputs", "probabilities"),
        ("outputs", "features"),
        ("taps", "st/theta"),
        ("taps", "st/warped"),
    ):
        case = toy.case(2)
        getattr(case, group)[name].flat[-1] += 0.01
        report = check_artifact(onnx_model, maker.artifact(onnx_model), contract, [case])
        assert [it.tensor for it in report.failures] == [name]


def test_outputs_and_taps_swapped_in_the_maps_are_found(maker, toy, contract, onnx_model):
    artifact = maker.artifact(onnx_model, outputs={"probabilities": "out_f", "features": "out_p"})
    report = check_artifact(onnx_model, artifact, contract, [toy.case(2)])
    assert {it.tensor for it in report.failures} == {"probabilities", "features"}


def test_a_nan_is_a_failure(maker, toy, contract):
    model = toy.onnx(warp_error=float("nan"))
    report = check_artifact(model, maker.artifact(model), contract, [toy.case(1)])
    # 0 * NaN reaches the outputs, too.
    assert {it.tensor for it in report.failures} == {"st/warped", "probabilities", "features"}
    assert "not finite" in report.worst().reason
    json.dumps(report.to_json(), allow_nan=False)


def test_an_artifact_for_one_batch_skips_the_others(maker, toy, contract):
    model = toy.onnx(batch=2)
    artifact = maker.artifact(model, batch=2)
    cases = [toy.case(1), toy.case(2), toy.case(5)]
    report = check_artifact(model, artifact, contract, cases)
    assert report.passed
    assert report.skipped_cases == ("noise_b1", "noise_b5")
    with pytest.raises(InputError, match="cannot run any of the 2 golden cases"):
        check_artifact(model, artifact, contract, [cases[0], cases[2]])


def test_comparing_nothing_is_an_error(maker, contract, onnx_model):
    with pytest.raises(InputError, match="any of the 0 golden cases"):
        check_artifact(onnx_model, maker.artifact(onnx_model), contract, [])
    with pytest.raises(ValueError, match="0 comparisons"):
        ArtifactReport("x", "onnxruntime", "1", (), 0.0)
    with pytest.raises(ValueError, match="no artifact ran"):
        VerificationReport("b", ())
    not_run = ArtifactReport("x", "onnxruntime", None, (), 0.0, not_run="because")
    assert not not_run.passed
    with pytest.raises(ValueError, match="no artifact ran"):
        VerificationReport("b", (not_run,))


def test_a_case_that_does_not_fit_the_signature_is_an_error(maker, toy, contract, onnx_model):
    case = dataclasses.replace(toy.case(1), inputs={"image": np.zeros((1, 5, 4, 1), np.float32)})
    with pytest.raises(InputError, match=r"\[1, 5, 4, 1\]: expected \[batch, 4, 4, 1\]"):
        check_artifact(onnx_model, maker.artifact(onnx_model), contract, [case])


def test_a_case_without_a_reference_is_an_error(maker, toy, contract, onnx_model):
    case = dataclasses.replace(toy.case(1), taps={})
    with pytest.raises(InputError, match='"noise_b1" has no reference for theta "st/theta"'):
        check_artifact(onnx_model, maker.artifact(onnx_model), contract, [case])


def test_a_tap_that_is_not_in_the_file_is_an_error(maker, toy, contract, onnx_model):
    artifact = maker.artifact(onnx_model, taps={"st/theta": "gone", "st/warped": "sampler/warped"})
    with pytest.raises(InputError, match='no tensor "gone"'):
        check_artifact(onnx_model, artifact, contract, [toy.case(1)])


def test_one_backend_missing_is_reported(both_path, monkeypatch):
    hide(monkeypatch, "onnxruntime")
    report = verify(both_path)
    assert report.passed
    assert report.artifacts[0].passed
    skipped = report.artifacts[1]
    assert not skipped.passed
    assert "onnxruntime is not installed" in skipped.not_run
    assert skipped.to_json()["passed"] is False
    with pytest.raises(BackendMissingError, match=r"stnkit\[cpu\]"):
        verify(both_path, artifact="onnx")
    raise_on_mismatch(report)


def test_no_backend_at_all(both_path, monkeypatch):
    hide(monkeypatch, "onnxruntime", "ai_edge_litert")
    with pytest.raises(BackendMissingError):
        verify(both_path)


def test_failures_put_the_worst_first():
    def made(value):
        return compare(
            "y", "output", "c", np.zeros(1, "f4"), np.array([value], "f4"), Tolerance(0.1)
        )

    small, large = made(0.2), made(0.9)
    report = ArtifactReport("x", "onnxruntime", "1", (made(0.0), small, large), 0.0)
    assert report.failures == (large, small)
