"""What a precision allows, on tensors made for it."""

import numpy as np
import pytest

from stnkit.runtime.compare import Tolerance
from stnkit.runtime.equivalence.answers import Answer
from stnkit.runtime.equivalence.judging import STATED, StatedBudgets
from stnkit.runtime.equivalence.probes import Probe
from stnkit.runtime.equivalence.subject import Tap
from stnkit.runtime.file_precision import Grid

THETA, WARPED = "st/theta", "st/warped"
SIZE = 16


class Reference:
    taps = (Tap.of_name(THETA), Tap.of_name(WARPED))


class Allowance:
    def __init__(self, given=None):
        self.given = given or {}

    def of(self, name, probe):
        return Tolerance(self.given[name])

    def is_given(self, name):
        return name in self.given


def ramp():
    return np.tile(np.linspace(0, 1, SIZE, dtype=np.float32), (1, SIZE, 1))[..., None]


def item(outputs=None, drives=None):
    theta = np.array([[1, 0, 0, 0, 1, 0]], np.float32)
    taps = {WARPED: ramp()} if drives else {THETA: theta, WARPED: ramp()}
    outputs = outputs if outputs is not None else np.array([[0.7, 0.2, 0.1]], np.float32)
    return Answer(Probe("case", {}, drives=drives or {}), {"scores": outputs}, taps)


def judged(name, got, precision="int8", of=None, given=None):
    of = of or item()
    judge = StatedBudgets(Reference(), Allowance(given), STATED[precision], [of])
    return judge.compare(name, of, {**of.outputs, **of.taps}[name], got.astype(np.float32))


@pytest.mark.parametrize("precision", STATED)
def test_theta_is_judged_in_pixels(precision):
    theta = item().taps[THETA]
    allowed = STATED[precision].theta_px
    for part, passes in ((0.9, True), (1.1, False)):
        moved = theta.copy()
        moved[0, 2] += part * allowed * 2 / SIZE
        found = judged(THETA, moved, precision)
        assert found.passed == passes
        assert found.pixels == pytest.approx(part * allowed, rel=1e-3)


def test_a_shift_of_under_a_pixel_explains_a_warped_image_and_one_of_three_does_not():
    image = np.random.default_rng(0).random((1, SIZE, SIZE, 1)).astype(np.float32)
    wide = np.kron(image[:, :4, :4], np.ones((1, 4, 4, 1), np.float32))  # blocks of four pixels
    of = Answer(item().probe, item().outputs, {THETA: item().taps[THETA], WARPED: wide})
    half = (wide + np.roll(wide, 1, axis=2)) / 2
    half[:, :, 0] = wide[:, :, 0]
    assert judged(WARPED, half, of=of).passed
    assert not judged(WARPED, np.roll(wide, 3, axis=2), of=of).passed


def test_where_theta_is_given_no_shift_is_left_to_explain_anything():
    of = item(drives={THETA: np.array([[1, 0, 0, 0, 1, 0]], np.float32)})
    shifted = np.roll(ramp(), 1, axis=2)
    shifted[:, :, 0] = ramp()[:, :, 0]
    assert judged(WARPED, shifted, "int8_weights").passed
    assert not judged(WARPED, shifted, "int8_weights", of=of).passed


def test_the_first_class_counts_where_the_source_decides():
    scores = np.array([[0.6, 0.3, 0.1], [0.41, 0.40, 0.19]])
    of = item(outputs=scores.astype(np.float32))
    close = scores[:, [0, 1, 2]].copy()
    close[1] = [0.40, 0.41, 0.19]  # decided by a hair: either will do
    assert judged("scores", close, of=of).passed
    far = scores.copy()
    far[0] = [0.44, 0.45, 0.1]
    found = judged("scores", far, of=of)
    assert not found.passed
    assert "another first class in 1 of 1 clearly decided items" in found.describe()


def test_what_the_user_gives_replaces_the_stated():
    scores = item().outputs["scores"] + 0.01
    assert judged("scores", scores).passed
    assert not judged("scores", scores, given={"scores": 1e-3}).passed


def test_values_that_are_not_finite_never_pass():
    theta = item().taps[THETA].copy()
    theta[0, 0] = np.nan
    assert not judged(THETA, theta).passed


def test_a_grid_turns_floats_into_integers_and_back():
    grid = Grid(0.5, 3, "int8")
    values = np.array([-1.0, 0.0, 0.24, 0.26, 1e9, -1e9, np.nan])
    integers = grid.integers(values)
    assert integers.dtype == np.int8
    assert integers.tolist() == [1, 3, 3, 4, 127, -128, 3]
    assert grid.floats(integers[:4]).tolist() == [-1.0, 0.0, 0.0, 0.5]
