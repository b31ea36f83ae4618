"""Colours whose lightness grows, and pictures in which the worst pixel stays."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from stnkit.runtime.equivalence.html.colours import NOT_FINITE, colour_map, css_gradient
from stnkit.runtime.equivalence.html.pictures import (
    SIDE_PX_MAX,
    draw_difference,
    draw_image,
    value_range,
)


def pixels(picture) -> np.ndarray:
    data = base64.b64decode(picture.uri.partition(",")[2])
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def lightness(colours: np.ndarray) -> np.ndarray:
    """Return CIE L*, a measure that the map is not made with."""
    c = colours / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    y = linear @ np.array([0.2126, 0.7152, 0.0722])
    return np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)


def test_brighter_is_always_more():
    found = lightness(colour_map(np.linspace(0, 1, 101)))
    steps = np.diff(found)
    assert steps.min() > 0.1
    assert found[0] < 10
    assert found[-1] > 90
    assert steps.max() < 3 * steps.mean()  # no step looks like an edge that is not there


def test_ends_and_what_is_no_number():
    found = colour_map(np.array([-1.0, 0.0, 1.0, 7.0, np.nan, np.inf]))
    assert found[0].tolist() == found[1].tolist()
    assert found[2].tolist() == found[3].tolist()
    assert found[4].tolist() == found[5].tolist() == list(NOT_FINITE)
    assert css_gradient(3).count("rgb(") == 3


def test_gray_and_colours_by_hand():
    gray = np.array([[[0.0], [0.5]], [[1.0], [2.0]]], np.float32)
    assert pixels(draw_image(gray, (0, 1)))[..., 0].tolist() == [[0, 128], [255, 255]]
    rgb = np.array([[[1.0, 0.0, 0.2]]], np.float32)
    assert pixels(draw_image(rgb, (0, 1))).tolist() == [[[255, 0, 51]]]
    assert pixels(draw_image(rgb, (0, 1), channel=2)).tolist() == [[[51, 51, 51]]]


def test_pixels_that_are_not_finite_are_counted_and_cyan():
    image = np.array([[[0.0], [np.nan], [-np.inf]]], np.float32)
    found = draw_image(image, (0, 1))
    assert found.not_finite == 2
    assert pixels(found)[0, 1:].tolist() == [list(NOT_FINITE)] * 2
    assert draw_difference(image[:, :, 0] * -1, 1.0).not_finite == 2


def test_one_wrong_pixel_of_a_large_image_stays():
    difference = np.zeros((1000, 700))
    difference[123, 456] = 1.0
    found = draw_difference(difference, 1.0)
    assert (found.height_px, found.width_px) == (1000, 700)
    small = pixels(found)
    assert max(small.shape) <= SIDE_PX_MAX
    assert small[123 // 4, 456 // 4].tolist() == colour_map(np.array(1.0)).tolist()
    assert (small == colour_map(np.array(1.0))).all(axis=2).sum() == 1


@pytest.mark.parametrize(
    ("image", "limits"),
    [
        (np.array([0.2, 0.4]), (0.0, 1.0)),
        (np.array([-2.0, 3.0]), (-2.0, 3.0)),
        (np.array([5.0, 5.0]), (4.5, 5.5)),
        (np.array([np.nan, 7.0, 9.0]), (7.0, 9.0)),
        (np.array([np.nan]), (0.0, 1.0)),
    ],
)
def test_value_range(image, limits):
    assert value_range(image) == limits


def test_values_at_the_ends_of_float64_do_not_overflow():
    big = np.finfo(np.float64).max
    image = np.array([[[-big], [big]]])
    assert pixels(draw_image(image, (-big, big)))[0, :, 0].tolist() == [0, 255]
