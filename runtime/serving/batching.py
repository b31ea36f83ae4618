"""Collect requests of one model into batches, and run them in a small pool of threads.

A batch is what waits when a thread is free: while one runs, the next one gathers by itself, and a
lone request never waits for company unless `max_delay_ms` says so.

Event loops hand work in and get futures; the threads never touch a loop but by
`call_soon_threadsafe`, once a batch. A lone request for a model that is quicker than the way to a
thread and back runs on the loop itself.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from stnkit.runtime.errors import one_line
from stnkit.runtime.serving.assembling import Buffers, together
from stnkit.runtime.serving.buckets import BatchPlan
from stnkit.runtime.serving.errors import InferenceError, OverloadedError, ServingError
from stnkit.runtime.serving.statistics import ModelStatistics
from stnkit.runtime.serving.work import RetiredError, Work, deliver, deliver_here

if TYPE_CHECKING:
    from stnkit.runtime.serving.work import Arrays

    Run = Callable[[Arrays], Arrays]
    _Give = Callable[[Sequence[tuple[Work, Arrays | ServingError]]], None]

__all__ = ["Batcher"]

_LOG = logging.getLogger("stnkit.serving")

# A request is taken where its answer is expected within this part of its time: one that waits and
# is not answered costs others theirs.
_HOPE = 0.75
# Where several clients ask, runs on the event loop keep it from reading what would share a batch:
# so many requests have to have come one by one before.
_LONE_LEAST = 8
# Of the newest batch in the running mean of what an item takes.
_WEIGHT = 0.1


class Batcher:
    """A bounded queue and the threads that empty it.

    Args:
        runs: what runs a batch, one a thread; each is called by its own thread alone.
        plan: which batch sizes to run.
        max_delay_ms: how long a batch that is not full waits for more.
        queue: requests that may wait.
        batchable: whether the first dimension of every input and output counts items; if not,
            every request runs alone, as it is.
        statistics: where to count.
        name: what to call the threads.
        at_once: what runs a lone request on the event loop itself, where a run takes less time than
            it takes to wake a thread and the loop again; None leaves every run to the threads.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        plan: BatchPlan,
        *,
        max_delay_ms: float,
        queue: int,
        batchable: bool,
        statistics: ModelStatistics,
        name: str,
        at_once: Run | None = None,
    ) -> None:
        self._plan = plan
        # A delay is there to wait for company.
        self._at_once = None if max_delay_ms else at_once
        self._own_buffers: Buffers = {}
        self._looking: asyncio.AbstractEventLoop | None = None
        self._lone = 0
        self._max_delay_s = max_delay_ms / 1e3
        self._limit = queue
        self._batchable = batchable
        self._statistics = statistics
        self._name = name
        self._queue: deque[Work] = deque()
        self._lock = threading.Lock()
        self._ready = threading.Condition(self._lock)
        self._idle = 0
        self._running = 0
        self._waiting_items = 0
        self._running_items = 0
        self._retired = False
        # What an item took lately. While the model was loaded nothing else ran; under load the
        # threads share the cores with each other, with the event loop and with other programs.
        self._item_ns = plan.item_ns
        self._threads = [
            threading.Thread(target=self._serve, args=(run,), name=f"stnkit-{name}-{i}")
            for i, run in enumerate(runs)
        ]
        # A daemon: a run that hangs must not keep the process from ending after its grace time.
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    @property
    def depth(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    @property
    def busy(self) -> bool:
        """Whether any request waits or runs."""
        return bool(self._queue) or self._running > 0

    @property
    def full(self) -> bool:
        """Whether a request would be refused now."""
        return len(self._queue) >= self._limit

    def submit(self, work: Work) -> None:
        """Put a request into the queue.

        Args:
            work: the request.

        Raises:
            OverloadedError: the queue is full, or what waits already takes longer than the
                request's time.
            RetiredError: see there.
        """
        with self._lock:
            if self._retired:
                raise RetiredError("the model was replaced")
            waiting = len(self._queue)
            if waiting >= self._limit:
                raise OverloadedError(
                    f"{waiting} requests wait, which is all that may: try again later",
                    self._retry_after_s(),
                )
            left_ns = work.deadline_ns - time.monotonic_ns()
            if waiting and self._wait_ns(work.items) > _HOPE * left_ns:
                raise self._too_late(waiting)
            self._queue.append(work)
            self._waiting_items += work.items
            self._lone = 0 if waiting or self._running else self._lone + 1
            if not self._idle or self._looking is work.loop:
                return
            if self._at_once is None or self._lone < _LONE_LEAST:
                self._ready.notify()
            else:
                # What else has arrived by now comes first: then it is known whether this is alone.
                self._looking = work.loop
                work.loop.call_soon(self._look, work.loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run a request that is alone here and now, and wake threads for several."""
        with self._lock:
            if self._looking is loop:
                self._looking = None
            waiting = len(self._queue)
            idle = self._idle == len(self._threads) and not self._running
            if waiting != 1 or not idle or self._queue[0].loop is not loop or self._retired:
                self._ready.notify(min(waiting, self._idle))
                return
            group, items = self._pick()
            self._running += 1
            self._running_items += items
        assert self._at_once is not None
        self._run_safely(self._at_once, group, items, self._own_buffers, deliver_here)

    def refuse_when_full(self, timeout_ms: float) -> None:
        """Refuse a request before its body is read for nothing.

        Args:
            timeout_ms: the most time that it can have.

        Raises:
            OverloadedError: as `submit` would.
        """
        waiting = len(self._queue)
        if waiting >= self._limit:
            raise OverloadedError(
                f"{waiting} requests wait, which is all that may: try again later",
                self._retry_after_s(),
            )
        if waiting and self._wait_ns(0) > _HOPE * timeout_ms * 1e6:
            raise self._too_late(waiting)

    def withdraw(self, work: Work) -> None:
        """Give a request's place and memory back where nobody waits for its answer any more.

        Args:
            work: the request; one that runs already is left alone.
        """
        with self._lock:
            try:
                self._queue.remove(work)
            except ValueError:  # it was taken
                return
            self._waiting_items -= work.items

    def retire(self, timeout_s: float | None = None) -> bool:
        """Take no more work, answer all that was taken, and end the threads.

        Args:
            timeout_s: how long to wait for them; None waits for as long as it takes.

        Returns:
            Whether all of them have ended.
        """
        with self._lock:
            self._retired = True
            self._ready.notify_all()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        with self._lock:  # a run on an event loop
            while self._running and (deadline is None or time.monotonic() < deadline):
                self._ready.wait(None if deadline is None else deadline - time.monotonic())
            return not self._running and not any(thread.is_alive() for thread in self._threads)

    def _too_late(self, waiting: int) -> OverloadedError:
        return OverloadedError(
            f"the {waiting} requests that wait take longer than this one may: try again later",
            self._retry_after_s(),
        )

    def _wait_ns(self, items: int) -> float:
        """Return how long so many further items would be on their way, by what batches took."""
        items += self._waiting_items + self._running_items
        return items * self._item_ns / len(self._threads)

    def _retry_after_s(self) -> int:
        return max(1, min(60, round(self._wait_ns(0) / 1e9)))

    def _serve(self, run: Run) -> None:
        buffers: Buffers = {}
        while True:
            taken = self._take()
            if taken is None:
                return
            self._run_safely(run, *taken, buffers, deliver)
            # Not kept while the thread waits: they hold what clients sent.
            del taken

    def _run_safely(
        self, run: Run, group: list[Work], items: int, buffers: Buffers, give: _Give
    ) -> None:
        if group:
            try:
                self._run(run, group, items, buffers, give)
            except BaseException:
                _LOG.exception("%s: a batch was lost to a bug", self._name)
                error = InferenceError("the server failed on this request")
                self._fail(group, "bug", error, give)
        with self._lock:
            self._running -= 1
            self._running_items -= items
            if self._retired or (self._queue and self._idle):
                self._ready.notify_all()

    def _take(self) -> tuple[list[Work], int] | None:
        """Wait for work; None once there is none and will be none."""
        with self._lock:
            while not self._queue:
                if self._retired:
                    return None
                self._idle += 1
                self._ready.wait()
                self._idle -= 1
            if self._max_delay_s and self._batchable:
                self._gather()
            group, items = self._pick()
            self._running += 1
            self._running_items += items
            if self._queue and self._idle:
                # What woke this thread up may have been meant for another one.
                self._ready.notify()
            return group, items

    def _gather(self) -> None:
        """Give more requests the time to come, counted from the arrival of the first."""
        until = self._queue[0].arrived_ns / 1e9 + self._max_delay_s if self._queue else 0.0
        while self._queue and self._waiting_items < self._plan.largest and not self._retired:
            left = until - time.monotonic()
            if left <= 0:
                return
            self._idle += 1
            self._ready.wait(left)
            self._idle -= 1

    def _pick(self) -> tuple[list[Work], int]:
        """Take the next batch off the queue, in the order of arrival; the lock is held."""
        queue = self._queue
        now_ns = time.monotonic_ns()
        # Threads that idle get their share: two halves on two cores are done sooner than the whole
        # on one, and the event loop answers the one while the other runs.
        share = -(-self._waiting_items // (self._idle + 1))
        target = self._plan.first[min(share, self._plan.largest)]
        group: list[Work] = []
        items = 0
        while queue:
            work = queue[0]
            if work.future.done() or work.deadline_ns <= now_ns:
                # Nobody waits for it any more: it went away, or its time is over.
                queue.popleft()
                self._waiting_items -= work.items
                if not work.future.done():
                    work.expire_soon()
                continue
            if group and (
                not self._batchable or work.key != group[0].key or items + work.items > target
            ):
                break
            queue.popleft()
            self._waiting_items -= work.items
            group.append(work)
            items += work.items
        return group, items

    def _run(
        self,
        run: Run,
        group: list[Work],
        items: int,
        buffers: Buffers,
        give: _Give,
    ) -> None:
        started_ns = time.monotonic_ns()
        bucket = self._plan.bucket_for(items) if self._batchable else items
        inputs = group[0].inputs
        whole = len(group) == 1 and bucket == items
        # Views of a request's bytes begin anywhere, and kernels load whole vectors from there.
        aligned = all(value.flags.aligned for value in inputs.values())
        if self._batchable and not (whole and aligned):
            inputs = together(group, items, bucket, buffers)
        elif not aligned:
            inputs = {name: np.require(value, requirements="A") for name, value in inputs.items()}
        ready_ns = time.monotonic_ns()
        try:
            outputs = run(inputs)
        except Exception as exc:  # whatever a backend raises: this batch fails, and it alone
            _LOG.error("%s: a batch of %d failed: %s", self._name, items, one_line(exc))
            error = InferenceError("the model failed on this request")
            self._fail(group, "backend", error, give)
            return
        done_ns = time.monotonic_ns()
        results: list[tuple[Work, Arrays | ServingError]] = []
        if whole:
            results.append((group[0], outputs))
        else:
            at = 0
            for work in group:
                end = at + work.items
                results.append((work, {name: value[at:end] for name, value in outputs.items()}))
                at = end
        ended_ns = time.monotonic_ns()
        self._item_ns += _WEIGHT * ((ended_ns - started_ns) / items - self._item_ns)
        # Who went away, or ran out of time, is counted as such.
        answered = [work.arrived_ns for work in group if not work.future.done()]
        counts = (answered, items, bucket, started_ns, ready_ns, done_ns, ended_ns)
        if give is deliver_here:
            give(results)
            self._statistics.add_batch(*counts)
        else:  # who has its answer and asks at once finds it counted: the loop goes on meanwhile
            self._statistics.add_batch(*counts)
            give(results)

    def _fail(self, group: Sequence[Work], reason: str, error: ServingError, give: _Give) -> None:
        now_ns = time.monotonic_ns()
        for work in group:
            if not work.future.done():
                self._statistics.add_failure(reason, now_ns - work.arrived_ns)
        give([(work, error) for work in group])
