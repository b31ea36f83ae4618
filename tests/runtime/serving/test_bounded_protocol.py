"""The clocks of a connection, with a transport and a time of the tests' own."""

from __future__ import annotations

import asyncio
import time

import pytest
from kept_transport import KeptTransport
from uvicorn import Config
from uvicorn.server import ServerState

from stnkit.runtime.serving.http.bounded_protocol import BoundedProtocol, bounded, close_slow
from stnkit.runtime.serving.limits import Limits

LIMITS = Limits(receive_timeout_s=30, connections_max=3)
GET = b"GET /v2 HTTP/1.1\r\nHost: t\r\n\r\n"
POST = b"POST /v2 HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\n"


class App:
    """Answers each request when it is told to, after its body or before."""

    def __init__(self):
        self.go = asyncio.Event()
        self.read_body = True
        self.disconnects = 0

    async def __call__(self, scope, receive, send):
        while self.read_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnects += 1
                return
            if not message["more_body"]:
                break
        await self.go.wait()
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
        )
        await send({"type": "http.response.body", "body": b"ok"})


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


def run(test):
    """Run a test, given an application and a connection to it."""

    async def go():
        app = App()
        state = ServerState()
        config = Config(app, http=bounded(LIMITS), lifespan="off", log_config=None)
        config.load()
        protocol = config.http_protocol_class(config=config, server_state=state, app_state={})
        transport = KeptTransport()
        protocol.connection_made(transport)
        await test(app, protocol, transport)
        assert transport.high == 0
        if not transport.closing:
            transport.close()
        protocol.connection_lost(None)
        app.go.set()
        await asyncio.gather(*state.tasks)

    asyncio.run(go())


def after(seconds):
    return time.monotonic() + seconds


def test_whoever_keeps_its_time_stays():
    async def test(app, protocol, transport):
        app.go.set()
        protocol.close_if_slow(after(29))
        protocol.data_received(GET)
        await settle()
        assert transport.written.startswith(b"HTTP/1.1 200")
        protocol.close_if_slow(after(59))
        assert not transport.closing
        protocol.close_if_slow(after(61))  # idle for too long
        assert transport.closing
        assert transport.written.count(b"HTTP/1.1") == 1

    run(test)


def test_an_idle_connection_that_is_used_again():
    async def test(app, protocol, transport):
        app.go.set()
        protocol.data_received(GET)
        await settle()
        assert protocol.idle_since is not None
        protocol.data_received(GET[:5])
        assert protocol.idle_since is None
        protocol.data_received(GET[5:])
        await settle()
        assert transport.written.count(b"HTTP/1.1 200") == 2
        assert protocol.idle_since is not None
        protocol.close_if_slow(after(59))
        assert not transport.closing

    run(test)


@pytest.mark.parametrize("sent", [b"", b"G", GET[:-2], POST, POST + b"1234"])
def test_whoever_does_not_is_told(sent):
    async def test(app, protocol, transport):
        protocol.data_received(sent)
        await settle()
        protocol.close_if_slow(after(29))
        assert not transport.closing
        protocol.close_if_slow(after(31))
        assert transport.closing
        assert transport.written.startswith(b"HTTP/1.1 408")

    run(test)


def test_the_time_of_the_server_is_not_the_clients():
    async def test(app, protocol, transport):
        protocol.data_received(POST + b"12345")
        await settle()
        protocol.close_if_slow(after(1000))
        assert not transport.closing

    run(test)


@pytest.mark.parametrize("ahead", [b"G", GET[:-2], POST + b"12"])
def test_a_request_sent_ahead_has_its_time_from_its_turn(ahead):
    """No 408 stands in the place of the answer that is due."""

    async def test(app, protocol, transport):
        protocol.data_received(GET + ahead)
        await settle()
        protocol.close_if_slow(after(1000))
        assert transport.written == b""
        app.go.set()
        await settle()
        assert transport.written.startswith(b"HTTP/1.1 200")
        assert not transport.closing
        protocol.close_if_slow(after(1029))
        assert not transport.closing
        protocol.close_if_slow(after(1031))
        assert b"HTTP/1.1 408" in transport.written

    run(test)


def test_a_body_that_was_answered_and_does_not_come():
    async def test(app, protocol, transport):
        app.read_body = False
        app.go.set()
        protocol.data_received(POST + b"12")
        await settle()
        assert transport.written.startswith(b"HTTP/1.1 200")
        said = transport.written
        protocol.close_if_slow(after(31))
        assert transport.closing
        assert transport.written == said

    run(test)


def test_a_client_that_reads_nothing():
    async def test(app, protocol, transport):
        app.go.set()
        protocol.pause_writing()
        # What it sends is no sign that it reads.
        protocol.data_received(GET)
        protocol.data_received(GET)
        await settle()
        protocol.close_if_slow(after(29))
        assert not transport.aborted
        protocol.close_if_slow(after(31))
        assert transport.aborted

    run(test)


def test_a_client_that_reads_again():
    async def test(app, protocol, transport):
        protocol.data_received(GET)
        protocol.pause_writing()
        protocol.resume_writing()
        protocol.close_if_slow(after(1000))
        assert not transport.closing

    run(test)


def test_an_end_that_does_not_come():
    """A closed transport waits for its last bytes to be taken: for ever, if nobody cuts it."""

    async def test(app, protocol, transport):
        transport.close()
        protocol.close_if_slow(after(0))
        protocol.close_if_slow(after(29))
        assert not transport.aborted
        protocol.close_if_slow(after(31))
        assert transport.aborted

    run(test)


def test_a_half_closed_connection_waits_a_moment():
    async def test(app, protocol, transport):
        protocol.data_received(GET)
        assert protocol.eof_received() is True
        await settle()
        protocol.close_if_slow(after(0.5))
        assert not transport.closing
        protocol.close_if_slow(after(1.5))
        assert transport.closing

    run(test)


def test_who_answers_learns_that_the_client_has_gone():
    """Though it is not the request that came last."""

    async def test(app, protocol, transport):
        protocol.data_received(POST + b"12")
        await settle()
        protocol.data_received(b"345" + GET + GET)
        transport.close()
        protocol.connection_lost(None)
        assert protocol.answering.disconnected
        app.go.set()
        await settle()
        assert transport.written == b""

    run(test)


def test_reading_stops_while_requests_wait():
    async def test(app, protocol, transport):
        protocol.data_received(GET * 10)
        await settle()
        assert len(protocol.pipeline) == 9
        protocol.data_received(GET * 1000)
        assert len(protocol.pipeline) == 64
        app.go.set()
        for _ in range(100):
            await settle()
        assert transport.written.count(b"HTTP/1.1 200") == 65
        assert transport.closing

    run(test)


def test_every_connection_of_a_server_is_looked_at():
    looked = []

    class Slow(BoundedProtocol):
        def __init__(self):
            pass

        def close_if_slow(self, now):
            looked.append(self)
            connections.discard(self)

    connections = {Slow(), Slow(), object()}
    close_slow(connections)
    assert len(looked) == 2
