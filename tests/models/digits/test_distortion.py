"""The distortion of digits: each part worked out by hand, its ranges, and its randomness."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from stnkit.models.digits.distortion import Distortion, warp

SIDE = 28
CENTRE = (SIDE - 1) / 2


class Fixed:
    """Stands in for a random generator: gives each of the drawn numbers, in order of asking."""

    def __init__(self, degrees=0.0, scale=1.0, shift_px=(0.0, 0.0)):
        self._values = [degrees, scale, shift_px]

    def uniform(self, low, high, size):
        value = np.asarray(self._values.pop(0), float)
        assert np.all((low <= value) & (value <= high))
        return np.broadcast_to(value, size)


def spot(column, row):
    image = np.zeros((1, SIDE, SIDE), np.uint8)
    image[0, row, column] = 255
    return image


def brightest(image):
    """Return the (column, row) of the centre of mass of the light."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    light = image[0, ..., 0]
    assert light.sum() > 0.2
    return (columns * light).sum() / light.sum(), (rows * light).sum() / light.sum()


def distort(image, **drawn):
    theta = Distortion().draw(Fixed(**drawn), len(image), SIDE)
    return warp(image, theta).numpy()


def test_nothing_drawn_is_the_identity():
    image = np.random.default_rng(1).integers(0, 256, (3, SIDE, SIDE), dtype=np.uint8)
    assert np.abs(distort(image)[..., 0] - image / 255).max() < 2e-5


@pytest.mark.parametrize("shift", [(3, 0), (0, -2), (-3, 1)], ids=str)
def test_whole_pixel_shift_moves_the_digit_right_and_down(shift):
    received = distort(spot(10, 15), shift_px=shift)
    assert received[0, 15 + shift[1], 10 + shift[0], 0] == pytest.approx(1, abs=1e-4)
    assert received.sum() == pytest.approx(1, abs=1e-3)


def test_scale_moves_pixels_away_from_the_centre():
    # 5 px and 10 px from the centre of the image, times 1.2: 6 px and 12 px.
    received = distort(spot(int(CENTRE + 5.5), int(CENTRE - 9.5)), scale=1.2)
    expected = (CENTRE + 1.2 * 5.5, CENTRE - 1.2 * 9.5)
    assert brightest(received) == pytest.approx(expected, abs=0.35)
    assert received.sum() == pytest.approx(1.2**2, rel=0.3)  # the spot grows with the digit


@pytest.mark.parametrize("degrees", [45, -30])
def test_rotation_turns_clockwise_for_positive_angles(degrees):
    # A spot on the right of the centre; y is down, so that a positive angle turns it downwards.
    column, row = 22, 13  # 8.5 px right of the centre and 0.5 px above it
    received = distort(spot(column, row), degrees=degrees)
    angle = math.radians(degrees)
    x, y = column - CENTRE, row - CENTRE
    expected = (
        CENTRE + math.cos(angle) * x - math.sin(angle) * y,
        CENTRE + math.sin(angle) * x + math.cos(angle) * y,
    )
    assert brightest(received) == pytest.approx(expected, abs=0.35)


def test_theta_by_hand():
    theta = Distortion().draw(Fixed(30, 0.75, (2.1, -1.4)), 1, SIDE)
    cos, sin = math.sqrt(3) / 2 / 0.75, 0.5 / 0.75
    tx, ty = 2.1 * 2 / 28, -1.4 * 2 / 28
    expected = [[cos, sin, -cos * tx - sin * ty], [-sin, cos, sin * tx - cos * ty]]
    assert theta.dtype == np.float32
    assert theta[0] == pytest.approx(np.array(expected), abs=1e-6)


def test_ranges_are_kept_and_filled():
    theta = Distortion().draw(np.random.default_rng(3), 10_000, SIDE).astype(np.float64)
    assert theta.shape == (10_000, 2, 3)
    matrix = theta[:, :, :2]
    scale = np.linalg.det(matrix) ** -0.5
    degrees = np.degrees(np.arctan2(matrix[:, 0, 1], matrix[:, 0, 0]))
    shift_px = -np.einsum("nij,nj->ni", np.linalg.inv(matrix), theta[:, :, 2]) * SIDE / 2
    assert (
        np.abs(matrix @ matrix.transpose(0, 2, 1) * scale[:, None, None] ** 2 - np.eye(2)).max()
        < 1e-5
    )
    for values, low, high in [(degrees, -45, 45), (scale, 0.7, 1.2), (shift_px, -3, 3)]:
        span = high - low
        assert low - 1e-4 <= values.min() < low + 0.01 * span
        assert high - 0.01 * span < values.max() <= high + 1e-4
        assert np.mean(values) == pytest.approx((low + high) / 2, abs=0.02 * span)
        assert np.std(values) == pytest.approx(span / math.sqrt(12), rel=0.03)
    drawn = np.stack([degrees, scale, *shift_px.T])
    assert np.abs(np.corrcoef(drawn) - np.eye(4)).max() < 0.05


def test_the_same_seed_draws_the_same_and_another_one_others():
    first, again, other = (
        Distortion().draw(np.random.default_rng(seed), 50, SIDE) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.isclose(first, other).all(axis=(1, 2)).any()


def test_narrower_ranges():
    small = Distortion(rotation_degrees=0, scale=(1.0, 1.0), shift_px=1.0)
    theta = small.draw(np.random.default_rng(4), 100, SIDE)
    assert np.array_equal(theta[:, :, :2], np.tile(np.eye(2, dtype=np.float32), (100, 1, 1)))
    assert 0.9 < np.abs(theta[:, :, 2]).max() * SIDE / 2 <= 1


def test_warp_gives_one_channel_between_0_and_1():
    image = np.full((2, SIDE, SIDE), 255, np.uint8)
    theta = Distortion().draw(np.random.default_rng(5), 2, SIDE)
    received = warp(image, theta).numpy()
    assert received.shape == (2, SIDE, SIDE, 1)
    assert received.dtype == np.float32
    assert received.min() >= 0
    assert 1 - 1e-6 <= received.max() <= 1 + 1e-6


def test_ranges_as_json():
    record = json.loads(json.dumps(Distortion().to_json()))
    assert record == {"rotation_degrees": 45.0, "scale": [0.7, 1.2], "shift_px": 3.0}
