"""Pairs of digits of the same class, one of them distorted: what registration brings together."""

from __future__ import annotations

from typing import Any

import numpy as np


class PartnerTable:
    """Draws for a digit another of its class.

    Args:
        labels: `[count]` classes of the digits.
    """

    def __init__(self, labels: Any) -> None:
        self._labels = np.asarray(labels)
        self._by_class = np.argsort(self._labels, kind="stable")
        classes, self._first, self._size = np.unique(
            self._labels[self._by_class], return_index=True, return_counts=True
        )
        self._row = np.searchsorted(classes, self._labels)
        self._place = np.empty(len(self._labels), np.int64)
        self._place[self._by_class] = np.arange(len(self._labels))

    def draw(self, rng: np.random.Generator, chosen: Any) -> Any:
        """Return for each digit the number of another of its class.

        Args:
            rng: Where everything random comes from.
            chosen: `[n]` numbers of digits.

        Returns:
            `[n]` numbers of digits; a digit that is alone in its class is its own partner.
        """
        row = self._row[chosen]
        first, size = self._first[row], self._size[row]
        # An offset of 1 at least: never the digit itself, if there is another.
        offset = rng.integers(np.minimum(1, size - 1), size)
        return self._by_class[first + (self._place[chosen] - first + offset) % size]
