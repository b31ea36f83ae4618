"""Overlap and folding, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from stnkit.models.recipes.figures import dice, folded, iou


def mask(*rows):
    return np.array([[character == "#" for character in row] for row in rows])[np.newaxis]


@pytest.mark.parametrize(
    ("a", "b", "expected_dice", "expected_iou"),
    [
        (mask("##", ".."), mask("##", ".."), 1, 1),
        (mask("##", ".."), mask("..", "##"), 0, 0),
        (mask("##", ".."), mask(".#", ".#"), 1 / 2, 1 / 3),
        (mask("##", "##"), mask("..", ".#"), 2 / 5, 1 / 4),
        (mask("..", ".."), mask("..", ".#"), 0, 0),
        (mask("..", ".."), mask("..", ".."), 1, 1),
    ],
)
def test_overlap(a, b, expected_dice, expected_iou):
    assert dice(a, b) == pytest.approx([expected_dice])
    assert dice(b, a) == pytest.approx([expected_dice])
    assert iou(a, b) == pytest.approx([expected_iou])


def test_every_item_has_its_own_overlap():
    a = np.concatenate([mask("##"), mask("##")])
    b = np.concatenate([mask("##"), mask(".#")])
    assert dice(a, b) == pytest.approx([1, 2 / 3])
    assert iou(a, b) == pytest.approx([1, 1 / 2])


def linear_flow(matrix, height=3, width=5):
    """Return the displacement of p -> matrix p at pixel centres."""
    x = (2 * np.arange(width) + 1) / width - 1
    y = (2 * np.arange(height) + 1) / height - 1
    points = np.stack(np.meshgrid(x, y), axis=-1)
    return (points @ np.transpose(matrix) - points)[np.newaxis]


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ([[1, 0], [0, 1]], False),
        ([[0.1, 0], [0, 0.1]], False),
        ([[0, -1], [1, 0]], False),  # a rotation by 90 degrees
        ([[1, 3], [0, 1]], False),  # a shear keeps every area
        ([[-1, 0], [0, 1]], True),  # a mirror
        ([[-1, 0], [0, -1]], False),  # a rotation by 180 degrees
        ([[1, 2], [2, 1]], True),  # a mirror at the diagonal, stretched
    ],
)
def test_linear_maps_fold_everywhere_or_nowhere(matrix, expected):
    found = folded(linear_flow(matrix))
    assert found.shape == (1, 2, 4)
    assert (found == expected).all()


def test_one_pixel_that_passes_its_neighbour_folds():
    flow = np.zeros((1, 4, 4, 2))
    flow[0, 2, 1, 0] = 1.1 * 2 / 4  # 1.1 pixels to the right, past the pixel beside it
    assert np.argwhere(folded(flow)[0]).tolist() == [[2, 1]]
    flow[0, 2, 1, 0] = 0.9 * 2 / 4
    assert not folded(flow).any()
