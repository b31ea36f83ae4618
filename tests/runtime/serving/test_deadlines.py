"""One timer for the deadlines of many requests."""

from __future__ import annotations

import asyncio
import time

import pytest

from stnkit.runtime.serving.deadlines import Deadlines
from stnkit.runtime.serving.errors import DeadlineError
from stnkit.runtime.serving.work import Work


def work(timeout_ms):
    return Work({}, 1, (), timeout_ms)


def test_each_at_its_own_time():
    async def test():
        deadlines = Deadlines()
        started = time.monotonic()
        ended = {}
        waiting = {ms: work(ms) for ms in (300, 100, 200, 110, 60_000)}
        for ms, it in waiting.items():
            deadlines.add(it)
            it.future.add_done_callback(
                lambda _, ms=ms: ended.setdefault(ms, time.monotonic() - started)
            )
        deadlines.discard(waiting[200])
        deadlines.discard(waiting[200])
        await asyncio.sleep(0.4)
        assert list(ended) == [100, 110, 300]
        for ms, seconds in ended.items():
            assert ms / 1e3 - 0.001 <= seconds < ms / 1e3 + 0.05
            with pytest.raises(DeadlineError, match="time was over after"):
                await waiting[ms].future
        assert not waiting[60_000].future.done()
        assert list(deadlines._waiting) == [waiting[60_000]]

    asyncio.run(test())


def test_a_time_that_is_over_already():
    async def test():
        deadlines = Deadlines()
        late = work(0)
        deadlines.add(late)
        with pytest.raises(DeadlineError):
            await asyncio.wait_for(late.future, 5)

    asyncio.run(test())


def test_who_waits_no_more_is_not_told():
    async def test():
        deadlines = Deadlines()
        answered, left = work(20), work(20)
        for it in (answered, left):
            deadlines.add(it)
        answered.future.set_result({})
        deadlines.discard(left)
        await asyncio.sleep(0.06)
        assert answered.future.result() == {}
        assert not left.future.done()
        assert deadlines._timer is None

    asyncio.run(test())


def test_a_timer_is_set_once_for_many():
    async def test():
        deadlines = Deadlines()
        timers = set()
        for _ in range(100):
            it = work(10_000)
            deadlines.add(it)
            timers.add(deadlines._timer)
            deadlines.discard(it)
        assert len(timers) == 1
        deadlines._timer.cancel()

    asyncio.run(test())
