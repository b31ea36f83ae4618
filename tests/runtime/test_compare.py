"""Comparison: what differs fails, what cannot be compared fails with a reason."""

from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pytest

from stnkit.runtime.compare import Comparison, Tolerance, all_passed, compare, worst_of
from stnkit.runtime.errors import BackendMissingError, MismatchError, one_line


def check(reference, candidate, atol=0.0, rtol=0.0, dtype=np.float32) -> Comparison:
    return compare(
        "y",
        "output",
        "c",
        np.asarray(reference, dtype),
        np.asarray(candidate, dtype),
        Tolerance(atol, rtol),
    )


def test_measures_by_hand():
    # Differences 0, 0.5, 0.25, 1; allowed 0.25 + 0.5 * |r| = 0.25, 0.75, 1.25, 2.25.
    found = check([[0, 1], [2, 4]], [[0, 1.5], [1.75, 5]], atol=0.25, rtol=0.5)
    assert found.passed
    assert found.max_abs == 1.0
    assert found.mean_abs == 0.4375
    assert found.required == 0.0  # 0.5 - 0.5 * 1 = 0 and less elsewhere
    assert found.worst_index in ((0, 0), (0, 1))
    assert found.shape == (2, 2)
    assert found.reason is None
    assert found.statistics.differing == 3
    assert found.histogram == ((-1, 2), (0, 1))
    assert found.pixels is None  # who knows the family of theta puts it in
    json.dumps(found.to_json(), allow_nan=False)


def test_worst_is_the_largest_excess_not_the_largest_difference():
    found = check([100.0, 0.0], [101.0, 0.5], rtol=0.1)
    assert found.max_abs == 1.0
    assert not found.passed
    assert found.worst_index == (1,)
    assert (found.reference_value, found.candidate_value) == (0.0, 0.5)
    assert found.required == 0.5


@pytest.mark.parametrize(("atol", "passed"), [(0.5, True), (math.nextafter(0.5, 0), False)])
def test_the_bound_itself_passes(atol, passed):
    found = check([1.0], [1.5], atol=atol)
    assert found.passed is passed
    assert found.required == 0.5


def test_required_is_the_atol_with_which_it_passes():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(7, 5))
    candidate = reference + rng.normal(size=(7, 5)) * 1e-3
    needed = check(reference, candidate, rtol=1e-4).required
    assert check(reference, candidate, atol=needed * (1 + 1e-12), rtol=1e-4).passed
    assert not check(reference, candidate, atol=needed * (1 - 1e-12), rtol=1e-4).passed


@pytest.mark.parametrize(
    ("reference", "candidate", "reason"),
    [
        (np.zeros((2, 3), "f4"), np.zeros((3, 2), "f4"), "shape [3, 2]: expected [2, 3]"),
        (np.zeros((2, 1), "f4"), np.zeros((2,), "f4"), "shape [2]: expected [2, 1]"),
        (np.zeros(2, "f4"), np.zeros(2, "f8"), "float64: expected float32"),
        (np.zeros(2, "i4"), np.zeros(2, "f4"), "float32: expected int32"),
        (np.zeros((0, 3), "f4"), np.zeros((0, 3), "f4"), "holds nothing"),
        (np.zeros(2, "f4"), np.array([0, np.nan], "f4"), "the artifact gave 1 values that are not"),
        (np.array([np.inf, 0], "f4"), np.array([np.inf, 0], "f4"), "the source gave 1 values"),
        (np.array(["a"]), np.array(["a"]), "cannot be compared"),
    ],
)
def test_what_cannot_be_measured_fails_whatever_the_tolerance(reference, candidate, reason):
    found = compare("y", "theta", "c", reference, candidate, Tolerance(1e300, 1e300))
    assert not found.passed
    assert reason in found.reason
    assert found.max_abs is None
    assert (found.statistics, found.histogram) == (None, ())
    json.dumps(found.to_json(), allow_nan=False)


def test_the_place_of_a_value_that_is_not_finite_is_told():
    candidate = np.zeros((2, 3), np.float32)
    candidate[1, 2] = -np.inf
    found = compare("y", "theta", "c", np.ones((2, 3), np.float32), candidate, Tolerance(9.0))
    assert found.worst_index == (1, 2)
    assert found.reference_value == 1.0
    assert found.candidate_value is None
    assert "[1, 2]" in found.describe()


@pytest.mark.parametrize(
    ("reference", "candidate", "dtype"),
    [
        ([2**60, 1], [2**60 + 1, 1], np.int64),
        ([5, 6], [5, 7], np.uint8),
        ([True, False], [True, True], np.bool_),
    ],
)
def test_integers_and_booleans_are_exact(reference, candidate, dtype):
    found = check(reference, candidate, atol=100.0, dtype=dtype)
    assert not found.passed
    assert found.max_abs >= 1
    assert found.tolerance == Tolerance(0.0, 0.0)
    assert check(reference, reference, dtype=dtype).passed


def test_differences_beyond_float64_do_not_vanish():
    big = np.finfo(np.float64).max
    found = check([big], [-big], atol=1.0, dtype=np.float64)
    assert not found.passed
    json.dumps(found.to_json(), allow_nan=False)


def test_scalars():
    found = check(1.0, 3.0, atol=1.0)
    assert (found.shape, found.worst_index, found.max_abs, found.passed) == ((), (), 2.0, False)


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_tolerance_is_finite_and_not_negative(bad):
    with pytest.raises(ValueError, match=r"atol is .*expected a finite number"):
        Tolerance(bad)
    with pytest.raises(ValueError, match="rtol is"):
        Tolerance(0.0, bad)


def test_worst_prefers_unmeasured_then_failed_then_largest():
    passed = check([0.0], [0.9], atol=1.0)
    larger = check([0.0], [0.95], atol=1.0)
    failed = check([0.0], [0.1], atol=0.01)
    unmeasured = check([0.0], [np.nan], atol=1.0)
    assert worst_of((passed, larger)) is larger
    assert worst_of((larger, failed, passed)) is failed
    assert worst_of((failed, unmeasured)) is unmeasured
    assert worst_of((failed,), "theta") is None


def test_comparing_nothing_is_an_error():
    with pytest.raises(ValueError, match="nothing was compared"):
        all_passed(())


def test_mismatch_error_names_everything():
    found = compare(
        "st/warped",
        "warped",
        "noise_b3",
        np.zeros((1, 2), np.float32),
        np.array([[0, 0.25]], np.float32),
        Tolerance(1e-4, 1e-5),
    )
    error = MismatchError("model.onnx", [found, found])
    text = str(error)
    for part in (
        "model.onnx",
        "warped tap",
        '"st/warped"',
        '"noise_b3"',
        "[0, 1]",
        "expected 0,",
        "got 0.25",
        "0.0001 + 1e-05",
        "and 1 more",
    ):
        assert part in text
    assert "\n" not in text
    assert error.exit_code == 1
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == text
    assert again.comparisons == (found, found)
    with pytest.raises(ValueError, match="at least one"):
        MismatchError("x", [])


def test_errors_survive_a_process_boundary():
    error = pickle.loads(pickle.dumps(BackendMissingError("onnxruntime", "onnxruntime", "cpu")))
    assert error.extra == "cpu"
    assert '"stnkit[cpu]"' in str(error)


def test_one_line():
    assert one_line("a\n  b\x1b[31m\tc") == "a b?[31m c"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line("x" * 1000)) == 400
