"""Several runners of one model, where the backend serves one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt

from stnkit.runtime.backends.registry import Runner, RunnerFacts
from stnkit.runtime.errors import BackendError

__all__ = ["ParallelRunner"]


class ParallelRunner:
    """Up to a number of runners, each of which one thread at a time has; opened when needed.

    The one that was given back last is taken first: its memory is warm, and the batch size, which
    is costly to change, is likelier to be the same.

    Args:
        first: a runner that is open already.
        open_another: opens one more.
        most: how many there are at most, >= 1.
    """

    def __init__(self, first: Runner, open_another: Callable[[], Runner], most: int) -> None:
        self._open_another = open_another
        self._first = first
        self._idle = [first]
        self._left = most - 1
        self._closed = False
        self._changed = threading.Condition()

    @property
    def version(self) -> str:
        """Version of the backend's package."""
        return self._first.version

    @property
    def facts(self) -> RunnerFacts:
        """How it runs."""
        return self._first.facts

    def run(
        self,
        inputs: Mapping[str, npt.NDArray[Any]],
        out: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Run the model; see `stnkit.runtime.backends.Runner`.

        Args:
            inputs: signature name -> array.
            out: name -> array that it is written to.

        Raises:
            BackendError: the backend failed, or the runner is closed.
        """
        runner = self._take()
        try:
            return runner.run(inputs, out)
        finally:
            self._give_back(runner)

    def close(self) -> None:
        """Give the memory back; runners that are running are closed when they have ended."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for runner in idle:
            runner.close()

    def _take(self) -> Runner:
        with self._changed:
            while not self._idle and not self._left and not self._closed:
                self._changed.wait()
            if self._closed:
                raise BackendError("the runner is closed: open the model again")
            if self._idle:
                return self._idle.pop()
            self._left -= 1
        try:
            return self._open_another()
        except BaseException:
            with self._changed:
                self._left += 1
                self._changed.notify()
            raise

    def _give_back(self, runner: Runner) -> None:
        with self._changed:
            if not self._closed:
                self._idle.append(runner)
                self._changed.notify()
                return
        runner.close()
