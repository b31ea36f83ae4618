"""End the waits of requests whose time is over, with one timer for all of an event loop."""

from __future__ import annotations

import asyncio
import time

from stnkit.runtime.serving.work import Work

__all__ = ["Deadlines"]

# The clock of an event loop counts milliseconds.
_TICK_NS = 1_000_000


class Deadlines:
    """The deadlines of the requests that wait on one event loop.

    A timer of its own would cost each request more than all else that is done about its time, and
    nearly all are answered long before: the one timer is set for the first deadline that there was
    when it was set, and again when it went off.
    """

    def __init__(self) -> None:
        self._waiting: dict[Work, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due_ns = 0

    def add(self, work: Work) -> None:
        """Have a request's wait ended when its time is over; to be called on its loop.

        Args:
            work: the request.
        """
        self._waiting[work] = None
        if self._timer is None or work.deadline_ns < self._due_ns:
            self._set(work.loop, work.deadline_ns)

    def discard(self, work: Work) -> None:
        """Forget a request that waits no more.

        Args:
            work: the request; one that is not known is no error.
        """
        self._waiting.pop(work, None)

    def _set(self, loop: asyncio.AbstractEventLoop, due_ns: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due_ns = due_ns
        left_ns = max(0, due_ns - time.monotonic_ns())
        self._timer = loop.call_later((left_ns + _TICK_NS) / 1e9, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now_ns = time.monotonic_ns()
        for work in [it for it in self._waiting if it.deadline_ns <= now_ns]:
            del self._waiting[work]
            work.expire()
        if self._waiting:
            self._set(loop, min(it.deadline_ns for it in self._waiting))
