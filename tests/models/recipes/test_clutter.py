"""Scenes and masks, worked out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from stnkit.models.digits.distortion import Distortion
from stnkit.models.recipes.clutter import Clutter
from stnkit.models.training.errors import DataError

STILL = Distortion(rotation_degrees=0.0, scale=(1.0, 1.0), shift_px=0.0)
PLAIN = Clutter(side_px=12, placement=STILL, pieces=0, piece_px=2, noise=0.0)


def digits(*values, side=4):
    return np.stack([np.full((side, side), value, np.uint8) for value in values])


def draw(clutter, images, chosen, seed=0):
    scene, mask = clutter.draw(np.random.default_rng(seed), images, np.array(chosen))
    assert (scene.dtype, mask.dtype) == (np.float32, np.uint8)
    assert scene.shape == (*mask.shape, 1) == (len(chosen), clutter.side_px, clutter.side_px, 1)
    return scene[..., 0], mask


def test_without_clutter_the_digit_is_all_there_is(assert_close):
    images = np.random.default_rng(1).integers(0, 256, (3, 4, 4)).astype(np.uint8)
    scene, mask = draw(PLAIN, images, [2, 0])
    expected = np.zeros((2, 12, 12))
    expected[:, 4:8, 4:8] = images[[2, 0]] / 255
    assert_close(scene, expected.astype(np.float32), 1e-6)
    assert np.array_equal(mask, expected > 0.5)


def test_the_mask_begins_above_half():
    _, mask = draw(PLAIN, digits(127, 128), [0, 1])
    assert mask.reshape(2, -1).sum(axis=1).tolist() == [0, 16]


def test_a_quarter_turn_and_a_shift():
    image = np.array([[[0, 255, 255], [0, 0, 255], [0, 0, 0]]], np.uint8)
    scene = dataclasses.replace(PLAIN, side_px=9)
    # Reads at (-y, x): what was on the right comes to the top.
    quarter = np.array([[[0, -1, 0], [1, 0, 0]]], np.float32)
    expected = np.zeros((9, 9))
    expected[3:6, 3:6] = np.rot90(image[0]) / 255
    assert np.abs(scene.place(image, quarter)[0] - expected).max() < 1e-5
    shift = np.array([[[1, 0, -2 * 2 / 9], [0, 1, 1 * 2 / 9]]], np.float32)  # right 2, up 1
    expected = np.zeros((9, 9))
    expected[2:5, 5:8] = image[0] / 255
    assert np.abs(scene.place(image, shift)[0] - expected).max() < 1e-5


def test_pieces_are_of_other_digits_and_not_in_the_mask():
    clutter = dataclasses.replace(PLAIN, pieces=40)
    scene, mask = draw(clutter, digits(200, 255, side=6), [0, 1])
    middle = np.zeros((12, 12), bool)
    middle[3:9, 3:9] = True
    assert np.array_equal(mask, [middle, middle])
    for shown, own, other in zip(scene, (200, 255), (255, 200), strict=True):
        around = np.round(np.unique(shown[~middle]) * 255).tolist()
        assert around == [0, other]
        # The brighter of the two is seen where they overlap.
        inside = np.round(np.unique(shown[middle]) * 255).tolist()
        assert inside == ([own, other] if other > own else [own])


def test_a_piece_lies_anywhere_and_has_its_size():
    clutter = dataclasses.replace(PLAIN, pieces=1, piece_px=4)
    scene, _ = draw(clutter, digits(0, 255, side=6), [0] * 300)
    rows, columns = (scene.any(axis=axis).sum(axis=1) for axis in (2, 1))
    assert set(rows.tolist()) == set(columns.tolist()) == {4}
    assert scene.any(axis=0).all()


def test_noise_stays_in_range_and_out_of_the_mask():
    clutter = dataclasses.replace(PLAIN, noise=0.3)
    scene, mask = draw(clutter, digits(0, 255), [0, 1])
    assert (scene.min(), scene.max()) == (0, 1)
    assert 0.05 < scene[0].std() < 0.3
    assert mask.reshape(2, -1).sum(axis=1).tolist() == [0, 16]


def test_the_generator_alone_decides():
    images = np.random.default_rng(1).integers(0, 256, (9, 28, 28)).astype(np.uint8)
    scenes = [draw(Clutter(), images, [3, 4], seed)[0] for seed in (5, 5, 6)]
    assert np.array_equal(scenes[0], scenes[1])
    assert np.abs(scenes[0] - scenes[2]).mean() > 0.05


def test_one_digit_is_too_few():
    with pytest.raises(DataError, match="is 1 digit to train or test on: expected two at least"):
        Clutter().check(digits(3))
    Clutter().check(digits(3, 4))
