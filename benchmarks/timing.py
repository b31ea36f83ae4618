"""Timing several functions side by side, so that a machine that changes its speed favours none.

All run in one process, round by round, in an order drawn anew for every round. What is quoted is
the median over the rounds, and the median of the ratios to a baseline within each round: a ratio
compares moments close to each other, and holds where single times drift.

Before each of its turns a function waits for a moment and then runs once untimed: threads that
still spin after the run before would take a core from it, and its own are warm then. What is done
about threads that spin stands in `benchmarks/waiting.py`.
"""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stnkit.runtime.timing import Quartiles

TURN_S = 0.03
"""Shortest turn: over a hundred thousand times the resolution of the clock."""
SETTLE_S = 0.01
WARM_UP_RUNS = 3


@dataclass(frozen=True)
class Timing:
    """How long the runs of one function took.

    Attributes:
        per_run_ms: Of each round, the mean of one run in ms.
        runs_per_turn: How many runs that is the mean of.
    """

    per_run_ms: tuple[float, ...]
    runs_per_turn: int

    @property
    def time_ms(self) -> Quartiles:
        """Quartiles over the rounds."""
        return Quartiles.of(self.per_run_ms)

    def ratio_to(self, baseline: Timing) -> Quartiles:
        """Return quartiles of the ratio to the baseline's time in the same round."""
        pairs = zip(self.per_run_ms, baseline.per_run_ms, strict=True)
        return Quartiles.of([own / other for own, other in pairs])


def time_side_by_side(
    functions: Mapping[str, Callable[[], Any]],
    rounds: int,
    *,
    seed: int = 0,
    turn_s: float = TURN_S,
    settle_s: float = SETTLE_S,
    runs_per_call: Mapping[str, int] | None = None,
) -> dict[str, Timing]:
    """Return the times of all functions.

    Args:
        functions: What to time, by name; each returns when its work is done.
        rounds: How many turns each has, at least 1.
        seed: Of the order of the turns.
        turn_s: Shortest time of one turn, s.
        settle_s: Wait before each turn, s.
        runs_per_call: How many runs one call of a function is, where it is more than one.

    Raises:
        ValueError: If there are no functions or no rounds.
    """
    if not functions or rounds < 1:
        raise ValueError(f"{len(functions)} functions, {rounds} rounds: expected one of each")
    calls = {name: _calls_for(function, turn_s) for name, function in functions.items()}
    runs = {name: count * (runs_per_call or {}).get(name, 1) for name, count in calls.items()}
    taken: dict[str, list[float]] = {name: [] for name in functions}
    order = list(functions)
    shuffle = random.Random(seed).shuffle
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                time.sleep(settle_s)
                functions[name]()
                taken[name].append(_time(functions[name], calls[name]) / runs[name] * 1000)
    finally:
        if collecting:
            gc.enable()
    return {name: Timing(tuple(taken[name]), runs[name]) for name in functions}


def _calls_for(function: Callable[[], Any], turn_s: float) -> int:
    for _ in range(WARM_UP_RUNS):
        function()
    once = min(_time(function, 1) for _ in range(3))
    return max(1, math.ceil(turn_s / max(once, 1e-7)))


def _time(function: Callable[[], Any], calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        function()
    return time.perf_counter() - started
