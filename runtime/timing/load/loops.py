"""Send requests over many connections: one after the other on each, or when they are due."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import deque

from stnkit.runtime.errors import InputError, one_line
from stnkit.runtime.timing.load.answers import answer_problem
from stnkit.runtime.timing.load.connection import Connection
from stnkit.runtime.timing.load.plan import LoadPlan
from stnkit.runtime.timing.load.result import OK, REFUSED, TIMED_OUT, WRONG_ANSWER
from stnkit.runtime.timing.load.timer import Timer

__all__ = ["ClosedLoop", "Loop", "OpenLoop"]

_AGAIN_S = 0.01  # between two tries to open a connection that brought no answer
_WATCH_S = 0.25
_SLACK_S = 2.0


class Loop:
    """What both loops share: connections that are opened again, time limits, and the records.

    Args:
        plan: what to send.

    Attributes:
        scheduled_ns: of each request that has ended, when it was due, by the monotonic clock.
        sent_ns: when it was sent.
        done_ns: when it ended.
        status: HTTP status, or what failed.
        begin_ns: when the loop began.
        received_bytes: in all.
        problem: what was wrong with the first answer that was not right, or None.
    """

    def __init__(self, plan: LoadPlan) -> None:
        self.plan = plan
        self.scheduled_ns, self.sent_ns, self.done_ns = array("q"), array("q"), array("q")
        self.status = array("h")
        self.begin_ns = self.stop_ns = self.received_bytes = 0
        self.problem: str | None = None
        self._request = plan.request
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun = False
        self._watch: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Send everything, and return when all of it has ended.

        Raises:
            InputError: nothing listens there.
        """
        plan = self.plan
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        try:
            tried = [self._open() for _ in range(plan.connections)]
            if not any(await asyncio.gather(*tried)):
                raise InputError(
                    f"nothing listens at {plan.host}:{plan.port}: expected a server; start it first"
                )
            self.begin_ns = time.monotonic_ns()
            self.stop_ns = self.begin_ns + int(plan.whole_s * 1e9)
            self._begun = True
            self._start()
            for _ in range(plan.connections - len(self._connections)):
                self._reopen(wait_s=_AGAIN_S)
            self._look()
            try:
                async with asyncio.timeout(plan.whole_s + plan.timeout_s + _SLACK_S):
                    await self._done
            except TimeoutError:
                self._give_up()
        finally:
            self._stop()

    def opened(self, connection: Connection) -> None:
        """Use a new connection."""
        self._connections.add(connection)
        if self._begun:
            self._free(connection, time.monotonic_ns())

    def answered(self, connection: Connection, status: int, head_bytes: int, data: bytes) -> None:
        """Note an answer and use the connection for the next request."""
        now_ns = time.monotonic_ns()
        if connection.answers == 1 and status == OK and self.plan.expected:
            head, body = data[: head_bytes + 2], data[head_bytes + 4 :]
            problem = answer_problem(head, body, self.plan.expected, self.plan.atol)
            if problem is not None:
                self.problem = self.problem or problem
                status = WRONG_ANSWER
        elif status != OK and self.problem is None:
            said = data[head_bytes + 4 : head_bytes + 404].decode("utf-8", "replace")
            self.problem = f"http {status}: {one_line(said or 'nothing more')}"
        self._note(connection.scheduled_ns, connection.sent_ns, now_ns, status)
        connection.sent_ns = 0
        if connection.closing:
            connection.end(0)
        else:
            self._free(connection, now_ns)

    def lost(self, connection: Connection, code: int) -> None:
        """Note what was lost, and open another connection."""
        now_ns = time.monotonic_ns()
        self.received_bytes += connection.received_bytes
        self._connections.discard(connection)
        if code:
            sent_ns = connection.sent_ns or now_ns
            scheduled_ns = connection.scheduled_ns if connection.sent_ns else now_ns
            self._note(scheduled_ns, sent_ns, now_ns, code)
        if self._begun:
            self._reopen(wait_s=0.0 if connection.answers and code >= 0 else _AGAIN_S)

    def _note(self, scheduled_ns: int, sent_ns: int, done_ns: int, status: int) -> None:
        self.scheduled_ns.append(scheduled_ns)
        self.sent_ns.append(sent_ns)
        self.done_ns.append(done_ns)
        self.status.append(status)

    async def _open(self) -> bool:
        plan = self.plan
        try:
            async with asyncio.timeout(plan.timeout_s):
                await self._loop.create_connection(lambda: Connection(self), plan.host, plan.port)
        except (OSError, TimeoutError):
            return False
        return True

    def _reopen(self, *, wait_s: float) -> None:
        async def again() -> None:
            await asyncio.sleep(wait_s)
            while self._wanted():
                tried_ns = time.monotonic_ns()
                if await self._open():
                    return
                self._note(tried_ns, tried_ns, time.monotonic_ns(), REFUSED)
                await asyncio.sleep(_AGAIN_S)

        task = self._loop.create_task(again())
        self._tasks.add(task)
        task.add_done_callback(self._reopened)

    def _reopened(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._settle()

    def _look(self) -> None:
        """End what has been on its way for too long, now and in a moment again."""
        timeout_ns = int(self.plan.timeout_s * 1e9)
        oldest_ns = time.monotonic_ns() - timeout_ns
        for connection in list(self._connections):
            if connection.sent_ns and connection.sent_ns < oldest_ns:
                connection.end(TIMED_OUT)
        self._expire(oldest_ns)
        wait_s = min(_WATCH_S, self.plan.timeout_s / 4)
        self._watch = self._loop.call_later(wait_s, self._look)

    def _give_up(self) -> None:
        self._expire(time.monotonic_ns() + 1)
        for connection in list(self._connections):
            if connection.sent_ns:
                connection.end(TIMED_OUT)

    def _stop(self) -> None:
        self._begun = False
        if self._watch is not None:
            self._watch.cancel()
        for task in self._tasks:
            task.cancel()
        for connection in self._connections:
            self.received_bytes += connection.received_bytes
            connection.drop()

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    def _start(self) -> None:
        raise NotImplementedError

    def _free(self, connection: Connection, now_ns: int) -> None:
        raise NotImplementedError

    def _wanted(self) -> bool:
        """Return whether a further connection would be used."""
        raise NotImplementedError

    def _settle(self) -> None:
        """Finish where nothing is left to wait for."""
        raise NotImplementedError

    def _expire(self, before_ns: int) -> None:
        """Give up what was due before this and is not yet sent."""


class ClosedLoop(Loop):
    """Every connection sends its next request when the answer to the last has come."""

    def __init__(self, plan: LoadPlan) -> None:
        super().__init__(plan)
        self._left = plan.requests_most

    def _start(self) -> None:
        for connection in list(self._connections):
            self._free(connection, time.monotonic_ns())

    def _free(self, connection: Connection, now_ns: int) -> None:
        if now_ns < self.stop_ns and self._left > 0:
            self._left -= 1
            connection.send(self._request, now_ns, now_ns)
        else:
            self._settle()

    def _wanted(self) -> bool:
        return self._left > 0 and time.monotonic_ns() < self.stop_ns

    def _settle(self) -> None:
        if not self._wanted() and not any(it.sent_ns for it in self._connections):
            self._finish()


class OpenLoop(Loop):
    """Requests are sent when they are due; where no connection is free, as soon as one is."""

    def __init__(self, plan: LoadPlan) -> None:
        super().__init__(plan)
        self._due: list[int] = plan.arrival_times_ns().tolist()
        self._next = 0
        self._late: deque[int] = deque()
        self._idle: deque[Connection] = (
            deque()
        )  # first in, first out: none idles until it is closed

    def _start(self) -> None:
        self._due = [at_ns + self.begin_ns for at_ns in self._due]
        self._idle.extend(self._connections)
        self._timer = Timer(self._loop, self._send_due)
        self._timer.set(self._due[0])

    def _send_due(self) -> None:
        due, at, count = self._due, self._next, len(self._due)
        now_ns = time.monotonic_ns()
        while at < count and due[at] <= now_ns:
            if self._idle and not self._late:
                self._idle.popleft().send(self._request, due[at], now_ns)
                now_ns = time.monotonic_ns()
            else:
                self._late.append(due[at])
            at += 1
        self._next = at
        if at < count:
            self._timer.set(due[at])
        else:
            self._settle()

    def _free(self, connection: Connection, now_ns: int) -> None:
        if self._late:
            connection.send(self._request, self._late.popleft(), now_ns)
        else:
            self._idle.append(connection)
            self._settle()

    def lost(self, connection: Connection, code: int) -> None:
        """Note what was lost, and open another connection."""
        if connection in self._idle:
            self._idle.remove(connection)
        super().lost(connection, code)

    def _wanted(self) -> bool:
        return self._next < len(self._due) or bool(self._late)

    def _settle(self) -> None:
        if not self._wanted() and not any(it.sent_ns for it in self._connections):
            self._finish()

    def _expire(self, before_ns: int) -> None:
        now_ns = time.monotonic_ns()
        while self._late and self._late[0] < before_ns:
            self._note(self._late.popleft(), now_ns, now_ns, TIMED_OUT)
        self._settle()

    def _stop(self) -> None:
        super()._stop()
        if hasattr(self, "_timer"):
            self._timer.close()
