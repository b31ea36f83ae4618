"""The error budget, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from stnkit.runtime.equivalence.budget import (
    UNIT,
    Measured,
    budget_for,
    changed,
    coordinate_rounding,
    sensitivity,
)


def test_the_formula():
    budget = budget_for(Measured("output", 2.0, 3.0), length=400)
    assert budget.tolerance.atol == pytest.approx(4 * UNIT * (4 + 10) * 5)
    assert budget.tolerance.rtol == 1e-5
    for part in ("400 products", "2 largest value", "3 sensitivity"):
        assert part in budget.reason


def test_coordinates_are_added_and_said():
    budget = budget_for(Measured("warped", 1.0, 0.0), 0, coordinates=1e-3)
    assert budget.tolerance.atol == pytest.approx(1e-3 + 16 * UNIT)
    assert "coordinates" in budget.reason


def test_what_the_user_gives_replaces_it():
    budget = budget_for(Measured("theta", 100.0, 100.0), 1e6, 1.0, given=1e-7)
    assert budget.tolerance.atol == 1e-7
    assert "as given" in budget.reason


def test_nothing_is_allowed_less_than_a_rounding():
    assert budget_for(Measured("output", 0.0, 0.0), 0).tolerance.atol == 4 * UNIT


def test_sensitivity_of_a_factor_is_the_factor():
    inputs = {"x": np.linspace(0.5, 1, 64, dtype=np.float32), "n": np.arange(4)}
    other = changed(inputs, 3)
    assert other is not None
    np.testing.assert_array_equal(other["n"], inputs["n"])
    assert other["x"].dtype == np.float32
    assert set(np.sign(other["x"] - inputs["x"])) == {-1, 1}
    # y = 7 x, x up to 1: a relative change of 1 at the input changes y by 7 at most.
    assert sensitivity(7 * inputs["x"], 7 * other["x"]) == pytest.approx(7, rel=1e-3)


def test_integers_cannot_be_changed_a_little():
    assert changed({"n": np.arange(4)}, 0) is None


def test_coordinates_round_with_their_reach():
    small = coordinate_rounding([np.array([[0.5, 0.25, 0.25]])], (10, 20), 1.0)
    assert small == pytest.approx(4 * UNIT * 1 * 10)
    large = coordinate_rounding([np.array([[100.0, 50, 50], [1, 0, 0]])], (10, 20), 0.5)
    assert large == pytest.approx(4 * UNIT * 200 * 10 * 0.5)


def test_thetas_that_are_not_finite_count_for_nothing():
    found = coordinate_rounding([np.full((1, 6), np.nan), np.full((1, 6), np.inf)], (2, 2), 1.0)
    assert found == coordinate_rounding([], (2, 2), 1.0)


def test_a_flow_counts_its_largest_displacement_and_not_their_sum():
    flow = np.full((1, 8, 8, 2), 0.1)
    assert coordinate_rounding([flow], (2, 2), 1.0) == pytest.approx(4 * UNIT * 1.3)


def test_a_spline_rounds_what_it_adds_up_and_not_what_is_left():
    axis = np.linspace(-1, 1, 4, dtype=np.float32)
    control = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(1, 16, 2)
    wild = np.random.default_rng(0).uniform(-1, 1, control.shape).astype(np.float32)
    calm, bent = (coordinate_rounding([theta], (2, 2), 1.0) for theta in (control, wild))
    assert calm == coordinate_rounding([], (2, 2), 1.0)  # as a theta that adds up nothing
    assert bent > 5 * calm
    assert coordinate_rounding([np.full((1, 16, 2), np.nan)], (2, 2), 1.0) == calm
