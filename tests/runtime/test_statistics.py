"""Statistics: worked out by hand, and at the ends of what floats can hold."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from stnkit.runtime.statistics import QUANTILES, Ranking, histogram, measure, ranking

TINY = np.finfo(np.float32).smallest_subnormal


def f4(*values):
    return np.array(values, np.float32)


def test_measures_by_hand():
    # Differences 0, 0.5, 0.25, 1; relative to 1, 2 and 4: 0.5, 0.125, 0.25.
    found = measure(f4(0, 1, 2, 4), f4(0, 1.5, 1.75, 5))
    assert (found.count, found.differing) == (4, 3)
    assert (found.max_abs, found.mean_abs) == (1.0, 0.4375)
    assert found.max_rel == 0.5
    assert found.mean_rel == pytest.approx(0.875 / 3)
    assert found.abs_quantiles == {0.5: 0.5, 0.9: 1.0, 0.99: 1.0, 0.999: 1.0}
    assert found.rel_quantiles == {0.5: 0.25, 0.9: 0.5, 0.99: 0.5, 0.999: 0.5}
    # a.b = 1.5 + 3.5 + 20 = 25; |a|^2 = 21, |b|^2 = 2.25 + 3.0625 + 25 = 30.3125.
    assert found.cosine == pytest.approx(25 / math.sqrt(21 * 30.3125))
    # Power of the difference: 0.25 + 0.0625 + 1 = 1.3125.
    assert found.snr_db == pytest.approx(10 * math.log10(21 / 1.3125))


def test_quantiles_are_values_that_occurred():
    reference = np.zeros(1000, np.float32)
    candidate = np.arange(1000, dtype=np.float32)
    # Ranks 499.5, 899.1, 989.01 and 998.001 of 0..999, rounded up.
    assert measure(reference, candidate).abs_quantiles == {
        0.5: 500.0,
        0.9: 900.0,
        0.99: 990.0,
        0.999: 999.0,
    }


def test_equal_tensors_have_no_noise():
    found = measure(f4(1, -2), f4(1, -2))
    assert (found.differing, found.max_abs, found.max_ulp) == (0, 0.0, 0)
    assert found.snr_db is None
    assert found.cosine == pytest.approx(1.0)


def test_nothing_is_relative_to_zero():
    found = measure(f4(0, 0), f4(0, 1))
    assert (found.max_rel, found.mean_rel, found.rel_quantiles) == (None, None, {})
    assert (found.cosine, found.snr_db) == (None, None)
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("reference", "candidate", "ulp"),
    [
        (f4(1), np.nextafter(f4(1), f4(2)), 1),
        (f4(0.0), f4(-0.0), 0),
        # The two smallest floats on both sides of 0: one step to 0 and one beyond.
        (f4(TINY), f4(-TINY), 2),
        (f4(1), f4(2), 2**23),
        (np.array([1.0]), np.nextafter(np.array([1.0]), 0), 1),
        (np.array([-1.0]), np.array([1.0]), 2 * 1023 * 2**52),
        (np.array([1], np.float16), np.array([2], np.float16), 2**10),
        (np.array([1], np.int32), np.array([2], np.int32), None),
    ],
)
def test_ulps(reference, candidate, ulp):
    assert measure(reference, candidate).max_ulp == ulp


def test_a_mean_hides_what_the_largest_shows():
    candidate = np.zeros((1000,), np.float32)
    candidate[17] = 1.0
    found = measure(np.zeros_like(candidate), candidate)
    assert (found.max_abs, found.mean_abs, found.differing) == (1.0, 0.001, 1)


def test_the_ends_of_float64_stay_finite():
    big = np.finfo(np.float64).max
    found = measure(np.array([big, 1e-300]), np.array([-big, -1e-300]))
    assert found.max_abs == big
    assert found.cosine == pytest.approx(-1.0)
    json.dumps(found.to_json(), allow_nan=False)


def test_ranking_by_hand():
    reference = f4(*range(6)).reshape(1, 6)
    assert ranking(reference, reference) == Ranking(1, 1, 1, 5)
    # The first class of the reference, 5, comes last of six: it is not among five.
    assert ranking(reference, -reference) == Ranking(1, 0, 0, 5)
    two = np.stack([f4(0.1, 0.9), f4(0.6, 0.4)])
    swapped = np.stack([f4(0.1, 0.9), f4(0.4, 0.6)])
    assert ranking(two, swapped) == Ranking(2, 1, 2, 2)


@pytest.mark.parametrize(
    "array", [np.zeros((2, 1), "f4"), np.zeros(3, "f4"), np.zeros((2, 3), "i4")]
)
def test_what_holds_no_scores_is_not_ranked(array):
    assert ranking(array, array) is None


def test_histogram_counts_decades_and_leaves_zeros_out():
    found = histogram(np.array([[0, 1e-3, 9.9e-3], [0.02, 0.5, 1.0]]))
    assert found == ((-3, 2), (-2, 1), (-1, 1), (0, 1))
    assert histogram(np.zeros(3)) == ()


def test_histogram_keeps_what_lies_outside_at_its_ends():
    assert histogram(np.array([1e-30, 1e-12, 1e3, 1e30])) == ((-12, 2), (3, 2))


def test_quantiles_in_json_have_plain_keys():
    found = measure(f4(1), f4(2)).to_json()
    assert list(found["abs_quantiles"]) == [f"{q:g}" for q in QUANTILES]
