"""Large bodies that no parser sees: what the connection's protocol does around them. No socket."""

from __future__ import annotations

import asyncio
import json
import re

import numpy as np
import pytest
from kept_transport import KeptTransport
from uvicorn import Config
from uvicorn.server import ServerState

from stnkit.runtime.serving.http.app import ServingApp
from stnkit.runtime.serving.http.bounded_protocol import bounded
from stnkit.runtime.serving.http.direct_body import DIRECT_BYTES_LEAST, DirectBody, ShortReads
from stnkit.runtime.serving.http.express import Express
from stnkit.runtime.serving.limits import Limits

INFER = "/v2/models/toy/infer"
LIMITS = Limits(body_bytes_max=2**20, json_bytes_max=2**20, receive_timeout_s=7.0)
PATIENCE_S = 20
LARGE = 300_000


@pytest.fixture
def app(core_served, bundle_path):
    return ServingApp(core_served(bundle_path, limits=LIMITS), log_requests=False)


def run(app, test):
    async def go():
        config = Config(
            app,
            http=bounded(app.core.limits, Express(app)),
            interface="asgi3",
            lifespan="off",
            log_config=None,
        )
        config.load()
        connection = config.http_protocol_class(
            config=config, server_state=ServerState(), app_state={}
        )
        transport = KeptTransport()
        transport.protocol = connection
        connection.connection_made(transport)
        transport.resume_reading()
        transport.receive(request(b"{"))  # the server learns the path
        await statuses(connection, 1)
        transport.written = b""
        await test(connection, transport)
        assert app.bodies.held_bytes == 0

    asyncio.run(go())


async def statuses(connection, count):
    """Return so many answers' statuses, and whether outputs are alike, once they are there."""
    transport = connection.transport
    async with asyncio.timeout(PATIENCE_S):
        while transport.written.count(b"HTTP/1.1 ") < count or connection._busy:
            await asyncio.sleep(0.001)
    return [int(code) for code in re.findall(rb"HTTP/1.1 (\d+)", transport.written)]


def request(body, *, say=None):
    length = len(body) if say is None else say
    return f"POST {INFER} HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n".encode() + body


def body(seed=0, size=LARGE):
    """Return a request of JSON that spaces make as large as it is to be."""
    image = np.random.default_rng(seed).random((1, 4, 4, 1), np.float32)
    tensor = {"name": "image", "datatype": "FP32", "shape": list(image.shape)}
    text = json.dumps({"inputs": [{**tensor, "data": image.ravel().tolist()}]}).encode()
    return text.ljust(size)


@pytest.mark.parametrize("most", [65_536, 4_096, 999])
def test_one_after_the_other(app, most):
    async def go(connection, transport):
        for number, size in enumerate((LARGE, 500, LARGE, DIRECT_BYTES_LEAST, 700, LARGE)):
            transport.receive(request(body(number, size)), most)
            assert await statuses(connection, number + 1) == [200] * (number + 1)
            assert isinstance(transport.protocol, ShortReads)
        answers = transport.written.split(b"HTTP/1.1 ")[1:]
        transport.written = b""
        transport.set_protocol = None  # small ones go the common way
        for number in range(6):
            transport.receive(request(body(number, 600)))
            await statuses(connection, number + 1)
        assert transport.written.split(b"HTTP/1.1 ")[1:] == answers

    run(app, go)


def test_requests_sent_ahead_of_an_answer(app):
    async def go(connection, transport):
        sent = request(body(1)) + request(body(2, 500)) + request(body(3)) + request(body(4))
        transport.receive(sent)
        assert await statuses(connection, 4) == [200] * 4

    run(app, go)


def test_the_rest_is_read_into_its_place_and_not_beyond(app):
    async def go(connection, transport):
        whole = request(body())
        transport.receive(whole[:1000])
        assert isinstance(transport.protocol, DirectBody)
        missing = transport.protocol.get_buffer(-1)
        assert len(missing) == len(whole) - 1000
        transport.receive(whole[1000:-1])
        assert len(transport.protocol.get_buffer(-1)) == 1
        assert transport.written == b""
        transport.receive(whole[-1:])
        assert await statuses(connection, 1) == [200]

    run(app, go)


def test_what_is_small_or_encrypted_goes_through_the_parser(app):
    async def go(connection, transport):
        transport.receive(request(body(size=DIRECT_BYTES_LEAST + 999))[:2000])
        assert transport.protocol is connection
        transport.receive(request(body(size=DIRECT_BYTES_LEAST + 999))[2000:])
        assert await statuses(connection, 1) == [200]
        connection.scheme = "https"
        transport.receive(request(body())[:2000])
        assert transport.protocol is connection
        transport.receive(request(body())[2000:])
        assert await statuses(connection, 2) == [200, 200]

    run(app, go)


def test_what_is_refused_is_not_kept(app):
    async def go(connection, transport):
        transport.receive(request(b"x" * 2000, say=2**21))
        assert transport.protocol is connection
        assert await statuses(connection, 1) == [413]

    run(app, go)


def test_a_body_that_is_wrong(app):
    async def go(connection, transport):
        transport.receive(request(b"{" * LARGE) + request(body(1, 500)))
        assert await statuses(connection, 2) == [400, 200]

    run(app, go)


def test_behind_it_the_parser_begins_anew(app):
    async def go(connection, transport):
        transport.receive(request(body()) + b"and more\r\n\r\n")
        assert await statuses(connection, 2) == [200, 400]
        assert transport.closing

    run(app, go)


def test_a_client_that_goes_away(app):
    async def go(connection, transport):
        transport.receive(request(body())[:200_000])
        assert app.bodies.held_bytes == LARGE
        transport.closing = True
        transport.protocol.connection_lost(None)
        assert transport.written == b""

    run(app, go)


def test_a_client_that_closes_its_side(app):
    async def go(connection, transport):
        transport.receive(request(body())[:200_000])
        assert not transport.protocol.eof_received()  # the event loop closes it then
        transport.protocol.connection_lost(None)
        assert transport.written == b""

    run(app, go)


def test_a_client_that_stops(app):
    async def go(connection, transport):
        transport.receive(request(body())[:200_000])
        now = connection.owing_since
        connection.close_if_slow(now + LIMITS.receive_timeout_s - 0.1)
        assert transport.written == b""
        connection.close_if_slow(now + LIMITS.receive_timeout_s + 0.1)
        assert transport.written.startswith(b"HTTP/1.1 408")
        assert transport.closing
        transport.protocol.connection_lost(None)

    run(app, go)


def test_a_client_that_does_not_read(app):
    async def go(connection, transport):
        transport.receive(request(body())[:200_000])
        transport.protocol.pause_writing()
        assert connection.flow.write_paused
        transport.protocol.resume_writing()
        assert not connection.flow.write_paused
        transport.receive(request(body())[200_000:])
        assert await statuses(connection, 1) == [200]

    run(app, go)
