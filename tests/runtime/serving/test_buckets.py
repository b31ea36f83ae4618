"""Which batch sizes are run."""

from __future__ import annotations

import itertools

import pytest

from stnkit.runtime.serving.buckets import BatchPlan, usual_buckets


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (8, (1, 2, 4, 8)), (12, (1, 2, 4, 8, 12))],
)
def test_usual_buckets(largest, sizes):
    assert usual_buckets(largest) == sizes


def test_where_time_goes_with_the_size_nothing_is_filled_up():
    plan = BatchPlan.of({1: 100, 2: 200, 4: 400, 8: 800})
    # Of equal costs the larger bucket.
    assert plan.first == (1, 1, 2, 2, 4, 4, 4, 4, 8)


def test_where_a_run_costs_the_same_at_any_size_it_is_filled_up():
    plan = BatchPlan.of({1: 100, 2: 101, 4: 102, 8: 103})
    assert plan.first == (1, 1, 2, 4, 4, 8, 8, 8, 8)


def test_between_the_two():
    # Two more items cost less than another run, three do not.
    plan = BatchPlan.of({1: 100, 4: 210, 8: 330})
    assert plan.first[1:] == (1, 1, 4, 4, 4, 8, 8, 8)


@pytest.mark.parametrize("costs", [{1: 3, 2: 5, 4: 7, 8: 20}, {1: 9, 3: 10, 8: 31}, {4: 7}])
def test_no_other_way_is_cheaper(costs):
    plan = BatchPlan.of(costs)
    for items in range(1, plan.largest + 1):
        planned, left = 0, items
        while left > 0:
            size = plan.first[left]
            planned, left = planned + costs[size], left - size
        every_way = (
            sum(costs[size] for size in sizes)
            for runs in range(1, items + 1)
            for sizes in itertools.combinations_with_replacement(costs, runs)
            if sum(sizes) >= items
        )
        assert planned == min(every_way)


def test_one_size_alone():
    plan = BatchPlan.of({4: 80})
    assert (plan.largest, plan.item_ns, plan.first) == (4, 20, (4, 4, 4, 4, 4))
    assert [plan.bucket_for(items) for items in (1, 3, 4)] == [4, 4, 4]


def test_the_smallest_bucket_that_holds_them():
    plan = BatchPlan.of({8: 3, 1: 1, 2: 2})  # in any order
    assert list(plan.costs_ns) == [1, 2, 8]
    assert [plan.bucket_for(items) for items in range(1, 9)] == [1, 2, 8, 8, 8, 8, 8, 8]
