"""The ASGI application by itself: a core that does as it is told, and no socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging

import numpy as np
import pytest

from stnkit.runtime.serving import app as make_app
from stnkit.runtime.serving.errors import (
    DeadlineError,
    InferenceError,
    NotFoundError,
    NotReadyError,
    OverloadedError,
)
from stnkit.runtime.serving.http.app import ServingApp

INFER = "/v2/models/toy/infer"
BODY = json.dumps(
    {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 4, 4, 1], "data": [0] * 16}]}
).encode()


class Exchange:
    """One request to an application."""

    def __init__(self, method, path, body=b"", headers=(), query=b""):
        self.scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query,
            "headers": list(headers),
            "client": ("127.0.0.1", 1),
        }
        self.messages = [{"type": "http.request", "body": body, "more_body": False}]
        self.gone = asyncio.Event()
        self.sent = []

    async def receive(self):
        if self.messages:
            return self.messages.pop(0)
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)

    async def run(self, app):
        await app(self.scope, self.receive, self.send)
        return self

    @property
    def status(self):
        return self.sent[0]["status"]

    @property
    def headers(self):
        return dict(self.sent[0]["headers"])

    def json(self):
        return json.loads(self.sent[1]["body"])


def ask(app, *arguments, **options):
    async def run():
        return await Exchange(*arguments, **options).run(app)

    return asyncio.run(run())


@pytest.fixture
def core(core_served, bundle_path):
    return core_served(bundle_path)


@pytest.fixture
def app(core):
    return ServingApp(core)


def raises(error):
    async def infer(request):
        raise error

    return infer


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (NotFoundError("none such"), 404, None),
        (OverloadedError("later", 7), 503, b"7"),
        (NotReadyError("soon"), 503, b"1"),
        (DeadlineError("over"), 503, b"1"),
        (InferenceError("the model failed on this request"), 500, None),
    ],
)
def test_errors_have_their_status(app, core, monkeypatch, error, status, retry):
    monkeypatch.setattr(core, "infer", raises(error))
    done = ask(app, "POST", INFER, BODY)
    assert done.status == status
    assert done.json() == {"error": str(error)}
    assert done.headers.get(b"retry-after") == retry
    assert done.headers[b"content-type"] == b"application/json"
    assert app.responses == {status: 1}


def test_a_bug_is_told_to_the_log_alone(app, core, monkeypatch, caplog):
    monkeypatch.setattr(core, "infer", raises(RuntimeError("/secret/path at 0x7f00")))
    with caplog.at_level(logging.ERROR, "stnkit.serving"):
        done = ask(app, "POST", INFER, BODY)
    assert done.status == 500
    assert done.json() == {"error": "the server failed on this request"}
    assert "/secret/path" in caplog.text
    monkeypatch.undo()
    assert ask(app, "POST", INFER, BODY).status == 200


def test_every_body_is_given_back(app, core, monkeypatch):
    for body, error in ((BODY, None), (b"{", None), (BODY, RuntimeError("x"))):
        if error is not None:
            monkeypatch.setattr(core, "infer", raises(error))
        ask(app, "POST", INFER, body, headers=[(b"content-length", str(len(body)).encode())])
        assert app.bodies.held_bytes == 0


def test_a_server_that_ends_closes_its_connections(app, core):
    assert b"connection" not in ask(app, "GET", "/v2/health/ready").headers
    core.drain()
    done = ask(app, "GET", "/v2/health/ready")
    assert (done.status, done.json()) == (503, {"ready": False})
    assert done.headers[b"connection"] == b"close"
    assert ask(app, "GET", "/v2/health/live").status == 200
    assert ask(app, "GET", "/v2/models/toy/ready").status == 503
    # What comes is still answered: who spreads requests may not have looked yet.
    assert ask(app, "POST", INFER, BODY).status == 200


@pytest.mark.parametrize(
    ("root", "path", "status"),
    [
        ("/vision", "/vision/v2/models/toy/infer", 200),  # as ASGI says
        ("/vision/", "/vision/v2/models/toy/infer", 200),
        ("/vision", "/v2/models/toy/infer", 200),  # as other hosts do
        ("/vision", "/visions/v2/models/toy/infer", 404),
        ("/vision", "/vision", 404),
        ("", "/vision/v2/models/toy/infer", 404),
    ],
)
def test_it_may_be_mounted_below_a_path(app, root, path, status):
    async def run():
        exchange = Exchange("POST", path, BODY)
        exchange.scope["root_path"] = root
        return await exchange.run(app)

    for _ in range(2):  # the second one finds the route kept
        assert asyncio.run(run()).status == status
    # No path of the host's is kept: a client may choose it.
    assert set(app.infer_routes) <= {INFER.encode()}


def test_a_full_queue_refuses_before_the_body(app, core, monkeypatch):
    def full():
        raise OverloadedError("256 requests wait")

    monkeypatch.setattr(core.repository.get("toy"), "refuse_when_full", full)

    async def never():
        raise AssertionError("the body was asked for")

    async def run(path):
        exchange = Exchange("POST", path)
        exchange.receive = never
        return await exchange.run(app)

    for path in (INFER, "/v2/models/toy/classify"):
        assert asyncio.run(run(path)).status == 503


def test_work_is_taken_back_when_the_client_goes(app, core, monkeypatch):
    seen = []

    async def infer(request):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    monkeypatch.setattr(core, "infer", infer)

    async def run():
        exchange = Exchange("POST", INFER, BODY)
        task = asyncio.create_task(exchange.run(app))
        await asyncio.sleep(0.1)
        exchange.gone.set()
        await asyncio.wait_for(task, 5)
        return exchange

    assert asyncio.run(run()).sent == []
    assert seen == ["cancelled"]
    assert app.responses == {}
    assert app.bodies.held_bytes == 0


def test_the_servers_own_cancelling_is_not_swallowed(app, core, monkeypatch):
    async def infer(request):
        await asyncio.sleep(60)

    monkeypatch.setattr(core, "infer", infer)

    async def run():
        task = asyncio.create_task(Exchange("POST", INFER, BODY).run(app))
        await asyncio.sleep(0.1)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return task.cancelled()

    assert asyncio.run(run())


def test_paths_that_clients_make_up_are_not_remembered(app):
    for i in range(50):
        assert ask(app, "POST", f"/v2/models/m{i}/infer", BODY).status == 404
        assert ask(app, "POST", f"/v2/models/toy/versions/{i + 2}/infer", BODY).status == 404
    for _ in range(3):
        assert ask(app, "POST", INFER, BODY).status == 200
    assert len(app._routes) == 1


def test_management_is_off(app):
    for path in ("/v2/repository/index", "/v2/repository/models/toy/unload"):
        for token in (b"", b"Bearer ", b"Bearer None"):
            done = ask(app, "POST", path, b"{}", headers=[(b"authorization", token)])
            assert done.status == 404
            assert "--model-control explicit" in done.json()["error"]


@pytest.mark.parametrize(
    "sent", [None, b"", b"Bearer", b"Bearer ", b"Bearer wrong", b"Basic dG9rZW4=", b"\xff\xfe"]
)
def test_management_takes_its_token(core_served, bundle_path, sent):
    app = ServingApp(core_served(bundle_path, token="a token of the tests"))
    headers = [] if sent is None else [(b"authorization", sent)]
    done = ask(app, "POST", "/v2/repository/models/toy/unload", b"", headers)
    assert done.status == 401
    assert done.headers[b"www-authenticate"] == b"Bearer"
    assert "a token" not in done.json()["error"]
    right = [(b"authorization", b"Bearer a token of the tests")]
    assert ask(app, "POST", "/v2/repository/index", b"", right).status == 200


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v2/repository/index", b'{"ready": true}', 200),
        ("/v2/repository/index", b'{"ready": 1}', 400),
        ("/v2/repository/index", b"[]", 400),
        ("/v2/repository/models/toy/load", b"{", 400),
        ("/v2/repository/models/toy/load", b'{"parameters": []}', 400),
        ("/v2/repository/models/toy/load", b'{"parameters": {"config": "{}"}}', 415),
        ("/v2/repository/models/toy/load", b'{"parameters": {}}', 200),
        ("/v2/repository/models/nobody/load", b"", 404),
        ("/v2/repository/models/nobody/unload", b"", 404),
        ("/v2/repository/models/toy/unload", b'{"parameters": null}', 400),
        ("/v2/repository/models/toy/unload", b'{"parameters": {"unload_dependents": true}}', 200),
    ],
)
def test_bodies_of_management(core_served, bundle_path, path, body, status):
    app = ServingApp(core_served(bundle_path, token="a token of the tests"))
    headers = [(b"authorization", b"Bearer a token of the tests")]
    assert ask(app, "POST", path, body, headers).status == status


def test_websockets_are_closed(app):
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(app({"type": "websocket", "path": "/v2"}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1003}]


def lifespan(app):
    """Start and end an application as its host does; return what it said."""
    said = []

    async def run():
        waiting: asyncio.Queue = asyncio.Queue()

        async def send(message):
            said.append(message)
            if message["type"] == "lifespan.startup.complete":
                done = await Exchange("POST", INFER, BODY).run(app)
                said.append(done.status)

        await waiting.put({"type": "lifespan.startup"})
        await waiting.put({"type": "lifespan.shutdown"})
        await app({"type": "lifespan"}, waiting.get, send)

    asyncio.run(run())
    return said


def test_hosted_by_another_server(bundle_path, tmp_path):
    said = lifespan(make_app([bundle_path]))
    assert said == [
        {"type": "lifespan.startup.complete"},
        200,
        {"type": "lifespan.shutdown.complete"},
    ]
    (failed,) = lifespan(make_app([tmp_path / "nothing.bundle"]))
    assert failed["type"] == "lifespan.startup.failed"
    assert "nothing.bundle" in failed["message"]


def test_a_span_of_each_request(app, core, monkeypatch):
    """With OpenTelemetry installed; here something stands in for it."""
    opened = []

    class Tracer:
        on = True

        @contextlib.contextmanager
        def span(self, model, carrier):
            opened.append((model, carrier))
            yield None

    monkeypatch.setattr(core, "tracer", Tracer())
    headers = [(b"traceparent", b"00-1-2-01"), (b"cookie", b"secret"), (b"baggage", b"a=1")]
    assert ask(app, "POST", INFER, BODY, headers).status == 200
    assert opened == [("toy", {"traceparent": "00-1-2-01", "baggage": "a=1"})]


def test_scores_that_are_not_finite_are_no_labels(app, core, monkeypatch):
    from stnkit.runtime.serving.inference import InferResponse, OutputTensor

    async def infer(request):
        values = np.array([[np.nan, 0, 1]], np.float32)
        return InferResponse("toy", "1", "", [OutputTensor("probabilities", "FP32", values)])

    monkeypatch.setattr(core, "infer", infer)
    png = b"P5 4 4 255\n" + bytes(16)  # a PGM file: the shortest of the formats
    done = ask(app, "POST", "/v2/models/toy/classify", png)
    assert done.status == 500
    assert done.json() == {"error": "the model's scores are not finite numbers"}


def test_an_image_whose_time_is_over(core_served, bundle_path):
    app = ServingApp(core_served(bundle_path, timeout_ms=1e-6))
    done = ask(app, "POST", "/v2/models/toy/classify", b"P5 4 4 255\n" + bytes(16))
    assert done.status == 503
    assert "time was over" in done.json()["error"]
