"""Choose the batch sizes that are run, by what each of them costs.

Every batch has the size of a bucket, one that ran while the model was loaded: no request pays for
memory plans or kernels of a new size. Fewer items than a bucket holds are filled up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["BatchPlan", "usual_buckets"]


def usual_buckets(max_batch: int) -> tuple[int, ...]:
    """Return 1, 2, 4, … up to a largest batch, and that one.

    Args:
        max_batch: the largest bucket, >= 1.
    """
    sizes = []
    size = 1
    while size < max_batch:
        sizes.append(size)
        size *= 2
    return (*sizes, max_batch)


@dataclass(frozen=True)
class BatchPlan:
    """What to run for a number of waiting items.

    Attributes:
        costs_ns: bucket -> nanoseconds of a run, ascending buckets.
        first: `first[n]` is the bucket to run first where n items wait, n up to the largest
            bucket: filling up is weighed against a second run. 5 items on a CPU, where time goes
            with the size, are 4 and 1; on a GPU they are 8.
    """

    costs_ns: Mapping[int, int]
    first: tuple[int, ...]

    @classmethod
    def of(cls, costs_ns: Mapping[int, int]) -> BatchPlan:
        """Return the cheapest plan.

        Args:
            costs_ns: bucket -> nanoseconds of a run; at least one.
        """
        sizes = sorted(costs_ns)
        best = [0]
        first = [sizes[0]]
        for items in range(1, sizes[-1] + 1):
            # Of equal costs the larger bucket: fewer runs.
            cost, negative = min(
                (costs_ns[size] + best[max(0, items - size)], -size) for size in sizes
            )
            best.append(cost)
            first.append(-negative)
        return cls({size: costs_ns[size] for size in sizes}, tuple(first))

    @property
    def largest(self) -> int:
        """The largest bucket."""
        return len(self.first) - 1

    @property
    def item_ns(self) -> float:
        """Nanoseconds of one item in a full batch."""
        return self.costs_ns[self.largest] / self.largest

    def bucket_for(self, items: int) -> int:
        """Return the smallest bucket that holds a number of items.

        Args:
            items: 1 up to the largest bucket.
        """
        sizes = list(self.costs_ns)
        return sizes[bisect_left(sizes, items)]
