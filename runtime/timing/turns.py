"""Time functions side by side, so that a machine that changes its speed favours none.

They have turns, round by round, in an order drawn anew for every round; what is compared lies close
together in time then. A turn is as many runs as the clock needs to be of no account. Before it the
process waits for a moment and runs the function once untimed: threads of another backend that still
spin after the turn before would take a core from it, and its own are awake then.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ROUNDS", "ROUNDS_LEAST", "Turns", "milliseconds", "take_turns"]

ROUNDS = 20
"""Rounds where nobody asks for another number."""

ROUNDS_LEAST = 5
"""Rounds of functions of which twenty runs would take minutes."""

_TURN_S = 0.05  # shortest turn: 20 of them are a second, and each a million ticks of the clock
_SPAN_S = 15.0  # bounds the turns of one function, down to ROUNDS_LEAST
_SETTLE_S = 0.01
_WARM_UP_S = 0.2  # shortest: a core needs about this long to reach its clock rate
_WARM_UP_MOST_S = 2.0
_WARM_UP_RUNS = 3
_SEED = 0


@dataclass(frozen=True)
class Turns:
    """What the turns of one function took.

    Attributes:
        rounds_ms: of each round, the mean time of one run, ms.
        runs_per_round: how many runs that is the mean of.
        cores_busy: CPU time of the process over wall time, median over the rounds.
    """

    rounds_ms: tuple[float, ...]
    runs_per_round: int
    cores_busy: float


def milliseconds(function: Callable[[], Any], runs: int = 1) -> float:
    """Return how long some runs of a function take together, ms.

    Args:
        function: returns when its work is done.
        runs: >= 1.
    """
    started = time.perf_counter_ns()
    for _ in range(runs):
        function()
    # The clock may stand still for the shortest of functions; a time of 0 could not be divided by.
    return max(1, time.perf_counter_ns() - started) / 1e6


def take_turns(
    functions: Mapping[str, Callable[[], Any]], rounds: int | None = None
) -> dict[str, Turns]:
    """Return the times of all functions.

    Args:
        functions: what to time, by name, at least one; each returns when its work is done.
        rounds: how many turns each has, >= 1; None takes 20, and down to 5 where those of the
            slowest would take longer than 15 s.

    Raises:
        ValueError: there are no functions or no rounds.
    """
    if not functions or (rounds is not None and rounds < 1):
        raise ValueError(f"{len(functions)} functions, {rounds} rounds: expected one of each")
    once_ms = {name: _warm_up(function) for name, function in functions.items()}
    runs = {name: math.ceil(_TURN_S * 1000 / spent) for name, spent in once_ms.items()}
    if rounds is None:
        slowest_s = max(once_ms[name] * runs[name] for name in functions) / 1000
        rounds = max(ROUNDS_LEAST, min(ROUNDS, int(_SPAN_S / slowest_s)))
    taken: dict[str, list[float]] = {name: [] for name in functions}
    busy: dict[str, list[float]] = {name: [] for name in functions}
    order = list(functions)
    shuffle = random.Random(_SEED).shuffle
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                time.sleep(_SETTLE_S)
                if runs[name] > 1:  # else a run is so long that its start does not matter
                    functions[name]()
                cpu_ns = time.process_time_ns()
                turn_ms = milliseconds(functions[name], runs[name])
                busy[name].append((time.process_time_ns() - cpu_ns) / 1e6 / turn_ms)
                taken[name].append(turn_ms / runs[name])
    finally:
        if collecting:
            gc.enable()
    return {
        name: Turns(tuple(taken[name]), runs[name], statistics.median(busy[name]))
        for name in functions
    }


def _warm_up(function: Callable[[], Any]) -> float:
    """Run a function until it is warm; return its shortest time, ms."""
    shortest_ms, total_ms, runs = math.inf, 0.0, 0
    while True:
        once_ms = milliseconds(function)
        shortest_ms, total_ms, runs = min(shortest_ms, once_ms), total_ms + once_ms, runs + 1
        warm = runs >= _WARM_UP_RUNS and total_ms >= _WARM_UP_S * 1000
        if warm or total_ms >= _WARM_UP_MOST_S * 1000:
            return shortest_ms
