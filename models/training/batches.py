"""Which examples a step sees: a function of the seed, the epoch and the step alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from stnkit.models.training.recipe import Recipe


class Batches:
    """The training examples, in another order each epoch, cut into steps.

    The last step of an epoch takes what is left.

    Args:
        count: How many training examples there are.
        recipe: Seed and batch size.
    """

    def __init__(self, count: int, recipe: Recipe) -> None:
        self._count, self._seed, self._size = count, recipe.seed, recipe.batch_size
        self._epoch = -1
        self._order: Any = None

    def __len__(self) -> int:
        return -(-self._count // self._size)

    def at(self, epoch: int, step: int) -> tuple[Any, np.random.Generator]:
        """Return what belongs to a step, both numbers counted from 0.

        Returns:
            The numbers of its examples, `[n]` int64 in [0, count), and the generator from which
            everything else of this step is to be drawn.
        """
        key = [self._seed, epoch + 1]
        if epoch != self._epoch:  # shuffling anew for every step would take as long as some steps
            self._order = np.random.default_rng(key).permutation(self._count)
            self._epoch = epoch
        chosen = self._order[step * self._size : (step + 1) * self._size]
        return chosen, np.random.default_rng([*key, step])
