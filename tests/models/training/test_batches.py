"""Which examples a step sees."""

from __future__ import annotations

import numpy as np
import pytest

from stnkit.models.training.batches import Batches
from stnkit.models.training.recipe import Recipe

RECIPE = Recipe(epochs=2, seed=3, batch_size=4)


def order(batches, epoch):
    return np.concatenate([batches.at(epoch, step)[0] for step in range(len(batches))]).tolist()


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (4, [4]), (10, [4, 4, 2]), (12, [4] * 3)])
def test_an_epoch_sees_every_example_once(count, sizes):
    batches = Batches(count, RECIPE)
    assert [len(batches.at(0, step)[0]) for step in range(len(batches))] == sizes
    assert sorted(order(batches, 0)) == list(range(count))


def test_epochs_and_seeds_have_orders_of_their_own():
    batches = Batches(50, RECIPE)
    other = Batches(50, Recipe(epochs=2, seed=4, batch_size=4))
    orders = [order(batches, 0), order(batches, 1), order(other, 0)]
    assert len({tuple(found) for found in orders}) == 3


def test_a_step_is_the_same_whatever_was_asked_before():
    forward, straight = Batches(50, RECIPE), Batches(50, RECIPE)
    seen = {(epoch, step): forward.at(epoch, step) for epoch in range(3) for step in range(13)}
    for place in [(2, 12), (0, 0), (1, 5), (2, 0)]:
        (chosen, rng), (expected, other) = straight.at(*place), seen[place]
        assert np.array_equal(chosen, expected)
        assert rng.uniform() == other.uniform()


def test_steps_draw_differently():
    batches = Batches(50, RECIPE)
    places = [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert len({batches.at(*place)[1].uniform() for place in places}) == 4
