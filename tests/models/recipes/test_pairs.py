"""Partners of the same class."""

from __future__ import annotations

import numpy as np
import pytest

from stnkit.models.recipes.pairs import PartnerTable

LABELS = np.array([7, 3, 3, 7, 9, 3, 7, 3], np.uint8)


def partners_seen(seed=0):
    table, rng = PartnerTable(LABELS), np.random.default_rng(seed)
    seen = [table.draw(rng, np.arange(len(LABELS))) for _ in range(60)]
    return [sorted({int(found[index]) for found in seen}) for index in range(len(LABELS))]


def test_every_other_of_the_class_and_never_itself():
    threes, sevens = [1, 2, 5, 7], [0, 3, 6]
    for index, seen in enumerate(partners_seen()):
        family = {3: threes, 7: sevens, 9: []}[int(LABELS[index])]
        assert seen == ([one for one in family if one != index] or [index])


def test_any_of_the_digits_may_be_asked_for_in_any_order():
    chosen = np.array([5, 5, 0])
    found = PartnerTable(LABELS).draw(np.random.default_rng(1), chosen)
    assert LABELS[found].tolist() == [3, 3, 7]


def test_partners_are_drawn_evenly():
    table, rng = PartnerTable(np.zeros(5, np.uint8)), np.random.default_rng(0)
    found = table.draw(rng, np.full(4000, 2))
    counts = np.bincount(found, minlength=5)
    assert counts[2] == 0
    assert counts[[0, 1, 3, 4]] == pytest.approx(1000, abs=100)


def test_the_generator_alone_decides():
    assert partners_seen(3) == partners_seen(3)
    draws = [
        PartnerTable(np.zeros(99)).draw(np.random.default_rng(seed), np.arange(99)).tolist()
        for seed in (1, 1, 2)
    ]
    assert draws[0] == draws[1] != draws[2]
