"""Which requests go around ASGI, and that nothing of them is left behind: no socket here."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import weakref

import numpy as np
import pytest
from kept_transport import KeptTransport
from uvicorn import Config
from uvicorn.server import ServerState

from stnkit.runtime.serving.errors import InferenceError, OverloadedError
from stnkit.runtime.serving.http.app import ServingApp
from stnkit.runtime.serving.http.bounded_protocol import bounded, cut_off
from stnkit.runtime.serving.http.express import Express
from stnkit.runtime.serving.limits import Limits

INFER = "/v2/models/toy/infer"
LIMITS = Limits(body_bytes_max=10_000, bodies_bytes_max=10_000, json_bytes_max=5_000)
PATIENCE_S = 20
# Longer than any test waits, less than the server gives a request.
HELD_MS = 5_000


class Connection:
    """One connection to an application, and what came of it."""

    def __init__(self, app):
        self.app = app
        self.asgi = 0
        self.state = ServerState()
        config = Config(
            self._call,
            http=bounded(app.core.limits, Express(app)),
            interface="asgi3",
            lifespan="off",
            log_config=None,
        )
        config.load()
        self.protocol = config.http_protocol_class(
            config=config, server_state=self.state, app_state={}
        )
        self.transport = KeptTransport()
        self.protocol.connection_made(self.transport)

    async def _call(self, scope, receive, send):
        self.asgi += 1
        await self.app(scope, receive, send)

    def send(self, data):
        self.protocol.data_received(data)

    def end(self):
        self.transport.closing = True
        self.protocol.connection_lost(None)

    async def answers(self, count):
        """Return so many answers' statuses and bodies; more there may not be."""
        async with asyncio.timeout(PATIENCE_S):
            while self.transport.written.count(b"HTTP/1.1 ") < count or self.protocol._busy:
                await asyncio.sleep(0.001)
        found = []
        rest = self.transport.written
        while rest:
            top, _, rest = rest.partition(b"\r\n\r\n")
            length = next(
                int(line.split(b" ")[1])
                for line in top.split(b"\r\n")
                if line.startswith(b"content-length")
            )
            found.append((int(top[9:12]), rest[:length]))
            rest = rest[length:]
        assert len(found) == count
        return found


def request(body, *headers, path=INFER, method="POST"):
    head = [f"{method} {path} HTTP/1.1", "Host: t", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def body(image, **fields):
    tensor = {"name": "image", "datatype": "FP32", "shape": list(image.shape)}
    return json.dumps({"inputs": [{**tensor, "data": image.ravel().tolist()}], **fields}).encode()


@pytest.fixture
def make_app(core_served, bundle_path):
    def make(log_requests=False, **options):
        core = core_served(bundle_path, limits=LIMITS, **options)
        return ServingApp(core, log_requests=log_requests)

    return make


def run(app, test):
    """Run a test on a connection whose server knows the path; at its end nothing is held."""

    async def go():
        connection = Connection(app)
        connection.send(request(b"{"))
        assert (await connection.answers(1))[0][0] == 400
        assert connection.asgi == 1
        connection.asgi = 0
        connection.transport.written = b""
        await test(connection)
        if not connection.transport.closing:
            connection.end()
        async with asyncio.timeout(PATIENCE_S):
            while connection.state.tasks:
                await asyncio.sleep(0.001)
        assert app.bodies.held_bytes == 0
        assert not connection.protocol.express.deadlines._waiting
        assert all(model.batcher.depth == 0 for model in app.core.repository.models())

    asyncio.run(go())


def test_plain_requests_go_around(make_app, toy):
    app = make_app()

    async def test(connection):
        for number in range(20):
            connection.send(request(body(toy.images(1, seed=number), id=str(number))))
            await connection.answers(number + 1)
        found = await connection.answers(20)
        assert {status for status, _ in found} == {200}
        assert [json.loads(text)["id"] for _, text in found] == [str(n) for n in range(20)]
        assert connection.asgi == 0
        assert app.responses == {400: 1, 200: 20}
        assert connection.state.total_requests == 21

    run(app, test)


@pytest.mark.parametrize(
    "headers",
    [
        ("Content-Encoding: identity",),
        ("Expect: 100-continue",),
        ("Connection: Upgrade", "Upgrade: h2c"),
    ],
    ids=" ".join,
)
def test_what_asks_for_more_does_not(make_app, toy, headers):
    async def test(connection):
        connection.send(request(body(toy.images(1)), *headers))
        async with asyncio.timeout(PATIENCE_S):
            while not re.search(rb"HTTP/1.1 [24]", connection.transport.written):
                await asyncio.sleep(0.001)
        assert connection.asgi == 1

    run(make_app(), test)


@pytest.mark.parametrize("path", ["/v2", f"{INFER}?x=y", "/v2/models/nobody/infer"])
def test_other_paths_do_not(make_app, path):
    async def test(connection):
        for number in range(3):
            connection.send(request(b"{}", path=path))
            await connection.answers(number + 1)
        assert connection.asgi == 3

    run(make_app(), test)


def test_other_methods_do_not(make_app):
    async def test(connection):
        connection.send(request(b"", method="GET"))
        assert (await connection.answers(1))[0][0] == 405
        assert connection.asgi == 1

    run(make_app(), test)


@pytest.mark.parametrize("why", ["draining", "traced", "logged", "nobody reads"])
def test_a_server_that_does_more_does_not(make_app, toy, why, monkeypatch):
    app = make_app(log_requests=why == "logged")

    async def test(connection):
        if why == "draining":
            app.core.drain()
        elif why == "traced":
            monkeypatch.setattr(type(app.core), "traced", property(lambda core: True))
        elif why == "nobody reads":
            connection.protocol.pause_writing()
            connection.send(request(body(toy.images(1))))
            await asyncio.sleep(0.05)
            assert connection.transport.written == b""
            connection.protocol.resume_writing()
            await connection.answers(1)
            assert connection.asgi == 1
            return
        connection.send(request(body(toy.images(1))))
        assert (await connection.answers(1))[0][0] == 200
        assert connection.asgi == 1

    run(app, test)


def test_only_the_first_of_several_sent_at_once(make_app, toy):
    async def test(connection):
        one = request(body(toy.images(1)))
        connection.send(one * 3)
        assert [status for status, _ in await connection.answers(3)] == [200] * 3
        assert connection.asgi == 2
        connection.send(one)
        await connection.answers(4)
        assert connection.asgi == 2

    run(make_app(), test)


def test_what_is_refused_is_not_collected(make_app, monkeypatch):
    app = make_app()
    model = app.core.repository.get("toy")

    def full():
        raise OverloadedError("256 requests wait", 7)

    async def test(connection):
        with monkeypatch.context() as patch:
            patch.setattr(model, "refuse_when_full", full)
            whole = request(b"x" * 9_000)
            connection.send(whole[:1000])
            ((status, text),) = await connection.answers(1)
            assert (status, json.loads(text)) == (503, {"error": "256 requests wait"})
            assert b"\r\nretry-after: 7\r\n" in connection.transport.written
            assert app.bodies.held_bytes == 0
            connection.send(whole[1000:])
            connection.send(whole * 2)
            assert [status for status, _ in await connection.answers(3)] == [503] * 3
        assert connection.asgi == 0
        # One that is longer than may be, and one for which there is no room now.
        connection.send(request(b"x" * 10_001))
        app.bodies.take(9_000)
        connection.send(request(b"x" * 2_000))
        app.bodies.release(9_000)
        statuses = [status for status, _ in await connection.answers(5)]
        assert statuses[3:] == [413, 503]
        assert connection.asgi == 0
        assert model.statistics.failures == {}

    run(app, test)


def held(model):
    """Return what keeps a model's requests waiting until it is told."""
    model.batcher._max_delay_s = HELD_MS / 1e3
    model.batcher._at_once = None


async def until(condition):
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("whole", [True, False])
def test_a_client_that_goes_away(make_app, toy, whole):
    app = make_app()
    model = app.core.repository.get("toy")
    held(model)

    async def test(connection):
        data = request(body(toy.images(1)))
        connection.send(data if whole else data[:-3])
        assert app.bodies.held_bytes > 0
        if whole:
            await until(lambda: model.batcher.depth == 1)
        connection.end()
        assert app.bodies.held_bytes == 0
        assert model.statistics.failures == ({"cancelled": 1} if whole else {})
        assert app.responses == {400: 1}
        assert connection.transport.written == b""

    run(app, test)


def test_a_server_that_ends_while_requests_wait(make_app, toy):
    """Its grace time is over: what uvicorn says of a task that it cancels."""
    app = make_app()
    model = app.core.repository.get("toy")
    held(model)

    async def test(connection):
        cut_off({connection.protocol})
        assert not connection.transport.closing
        connection.send(request(body(toy.images(1))))
        connection.protocol.shutdown()
        cut_off({connection.protocol, object()})
        assert connection.transport.written.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
        assert connection.transport.written.endswith(b"\r\n\r\nInternal Server Error")
        assert b"connection: close" in connection.transport.written
        assert connection.transport.closing
        cut_off({connection.protocol})
        assert model.statistics.failures == {"cancelled": 1}
        assert app.responses == {400: 1}

    run(app, test)


def test_what_fails_on_the_server_is_logged(make_app, toy, caplog, monkeypatch):
    app = make_app()
    model = app.core.repository.get("toy")
    monkeypatch.setattr(model, "answer", lambda request, outputs: 1 / 0)

    async def test(connection):
        connection.send(request(body(toy.images(1)), "X-Request-Id: from afar"))
        ((status, text),) = await connection.answers(1)
        assert status == 500
        assert json.loads(text) == {"error": "the server failed on this request"}
        assert connection.asgi == 0

    with caplog.at_level(logging.INFO, "stnkit.serving"):
        run(app, test)
    assert "ZeroDivisionError" in caplog.text
    (record,) = [it for it in caplog.records if it.name == "stnkit.serving.requests"]
    assert record.getMessage() == f"POST {INFER} 500"
    assert record.fields["request_id"] == "from afar"
    assert record.fields["client"] == "127.0.0.1"


def test_a_model_that_fails(make_app, toy, monkeypatch):
    app = make_app()
    model = app.core.repository.get("toy")

    def run_safely(run, group, items, buffers, give):
        model.batcher._running -= 1
        model.batcher._running_items -= items
        give([(work, InferenceError("the model failed on this request")) for work in group])

    monkeypatch.setattr(model.batcher, "_run_safely", run_safely)

    async def test(connection):
        connection.send(request(body(toy.images(1))))
        ((status, text),) = await connection.answers(1)
        assert status == 500
        assert json.loads(text) == {"error": "the model failed on this request"}

    run(app, test)


def test_a_connection_keeps_nothing_of_its_last_request(make_app, toy, monkeypatch):
    app = make_app()
    model = app.core.repository.get("toy")
    kept = []
    original = model.work

    def work(request, waiter=None):
        made = original(request, waiter)
        kept.extend(weakref.ref(value) for value in made.inputs.values())
        return made

    monkeypatch.setattr(model, "work", work)

    async def test(connection):
        connection.send(request(body(toy.images(1))))
        await connection.answers(1)
        await asyncio.sleep(0.05)
        gc.collect()
        assert [it() for it in kept] == [None]

    run(app, test)


def test_tensors_behind_the_json_begin_at_a_multiple_of_eight(make_app, toy, monkeypatch):
    app = make_app()
    model = app.core.repository.get("toy")
    aligned = []
    original = model.work

    def work(request, waiter=None):
        (value,) = request.inputs.values()
        aligned.append(value.__array_interface__["data"][0] % 8 == 0)
        return original(request, waiter)

    monkeypatch.setattr(model, "work", work)

    async def test(connection):
        image = toy.images(1).astype("<f4")
        for number in range(8):
            tensor = {"name": "image", "datatype": "FP32", "shape": list(image.shape),
                      "parameters": {"binary_data_size": image.nbytes}}  # fmt: skip
            head = json.dumps({"inputs": [tensor], "id": "x" * number}).encode()
            data = request(head + image.tobytes(), f"Inference-Header-Content-Length: {len(head)}")
            connection.send(data[: 50 * number])
            connection.send(data[50 * number :])
            await connection.answers(number + 1)
        expected = toy.run(image)["probabilities"].ravel()
        for status, text in await connection.answers(8):
            assert status == 200
            np.testing.assert_allclose(json.loads(text)["outputs"][0]["data"], expected, atol=1e-5)

    run(app, test)
    assert aligned == [True] * 8
