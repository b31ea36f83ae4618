"""Large bodies, written straight into the memory that their tensors are read from."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest

from stnkit.runtime.serving.http.body_sink import BodySink


class Flow:
    def __init__(self):
        self.resumed = 0

    def resume_reading(self):
        self.resumed += 1


def make(early=b"", *, more=True):
    cycle = SimpleNamespace(body=bytearray(early), more_body=more, disconnected=False)
    flow = Flow()
    return BodySink(cycle, flow), cycle, flow


@pytest.mark.parametrize("early", [b"", b"abc"])
def test_what_came_before_and_what_comes(early):
    async def test():
        sink, cycle, flow = make(early)
        assert not sink.open
        waiting = asyncio.create_task(sink.read(len(early) + 5, lead=3))
        await asyncio.sleep(0)
        assert sink.open
        assert flow.resumed == 1
        assert cycle.body == b""
        sink.feed(b"de")
        sink.feed(b"fgh")
        sink.finish(True)
        assert bytes(await waiting) == early + b"defgh"
        assert not sink.open

    asyncio.run(test())


def test_a_body_that_was_there_already():
    sink, _, _ = make(b"whole", more=False)
    assert bytes(asyncio.run(sink.read(5))) == b"whole"


def test_the_lead_aligns_what_lies_behind_it():
    async def test():
        for head in range(1, 9):
            sink, _, _ = make(bytes(head + 16), more=False)
            body = await sink.read(head + 16, lead=-head % 8)
            assert np.frombuffer(body[head:], np.float64).flags.aligned

    asyncio.run(test())


def test_a_client_that_goes_away():
    async def test():
        sink, _, _ = make()
        waiting = asyncio.create_task(sink.read(5))
        await asyncio.sleep(0)
        sink.feed(b"ab")
        sink.finish(False)
        assert await waiting is None
        sink, cycle, _ = make()
        sink.finish(False)
        assert await sink.read(5) is None
        sink, cycle, _ = make()
        cycle.disconnected = True
        assert await sink.read(5) is None

    asyncio.run(test())


def test_who_does_not_wait_any_more_gets_nothing():
    async def test():
        sink, _, _ = make()
        waiting = asyncio.create_task(sink.read(5))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not sink.open
        sink.finish(True)

    asyncio.run(test())
