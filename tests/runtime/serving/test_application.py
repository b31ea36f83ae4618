"""The ASGI application in other hands: other servers, and a lifespan driven by hand."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stnkit.runtime.errors import InputError
from stnkit.runtime.serving import BundleSource, Limits, ModelOptions, app

PATIENCE_S = 60
ONE = ModelOptions(threads=1, instances=1)

HOSTED = """
from stnkit.runtime.serving import ModelOptions, app
application = app([{path!r}, "mine@3=" + {path!r}], ModelOptions(threads=1, instances=1))
"""

SERVERS = {
    "uvicorn": ["--port", "0", "--lifespan", "on"],
    "hypercorn": ["--bind", "127.0.0.1:0"],
}


@pytest.fixture
def hosted(bundle_path, tmp_path):
    """Return `hosted(server)`: process and port of another server with the application."""
    (tmp_path / "hosted.py").write_text(HOSTED.format(path=str(bundle_path)))
    started = []

    def start(server):
        log = tmp_path / "server.log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", server, "hosted:application", *SERVERS[server]],
                cwd=tmp_path,
                stdout=stream,
                stderr=stream,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        started.append(process)
        until = time.monotonic() + PATIENCE_S
        while (
            found := re.search(r"[Rr]unning on http://127\.0\.0\.1:(\d+)", log.read_text())
        ) is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.01)
        return process, int(found[1]), log

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def infer_body(images):
    tensor = {"name": "image", "datatype": "FP32", "shape": list(images.shape)}
    return json.dumps({"inputs": [{**tensor, "data": images.ravel().tolist()}]}).encode()


@pytest.mark.parametrize("server", SERVERS)
def test_other_servers_host_it(server, hosted, toy):
    if find_spec(server) is None:
        pytest.skip(f"{server} is not installed")
    process, port, log = hosted(server)
    images = toy.images(2)
    answers = []

    def ask():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        for model in ("toy", "mine", "mine/versions/3") * 5:
            connection.request("POST", f"/v2/models/{model}/infer", infer_body(images))
            answer = connection.getresponse()
            answers.append((answer.status, json.loads(answer.read())))
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(answers) == 45
    for status, answer in answers:
        assert status == 200, answer
        found = np.array(answer["outputs"][0]["data"]).reshape(2, 3)
        np.testing.assert_allclose(found, toy.run(images)["probabilities"], atol=1e-6)
    assert {answer["model_version"] for _, answer in answers} == {"1", "3"}
    process.send_signal(signal.SIGTERM)
    # uvicorn ends by the signal that it was told to end by.
    assert process.wait(PATIENCE_S) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    assert "Traceback" not in log.read_text()


class Driver:
    """Speaks ASGI with an application, as a server does."""

    def __init__(self, application):
        self.application = application
        self.to_app, self.from_app = asyncio.Queue(), asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
        self.task = asyncio.create_task(application(scope, self.to_app.get, self.from_app.put))

    async def life(self, event):
        await self.to_app.put({"type": f"lifespan.{event}"})
        return await asyncio.wait_for(self.from_app.get(), PATIENCE_S)

    async def ask(self, method, path, body=b""):
        sent = []
        # In two parts, as other servers may hand a body over.
        messages = [
            {"type": "http.request", "body": body[:7], "more_body": True},
            {"type": "http.request", "body": body[7:]},
        ]

        async def receive():
            return messages.pop(0) if messages else await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": [],  # no length: other servers need not have one
        }
        await asyncio.wait_for(self.application(scope, receive, send), PATIENCE_S)
        assert [message["type"] for message in sent] == [
            "http.response.start",
            "http.response.body",
        ]
        return sent[0]["status"], json.loads(sent[1]["body"])


def serving_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("stnkit-")]


def test_its_lifespan_loads_the_models_and_gives_them_back(bundle_path, toy):
    images = toy.images(1)

    async def test():
        driver = Driver(app([bundle_path], ONE))
        assert await driver.life("startup") == {"type": "lifespan.startup.complete"}
        assert await driver.ask("GET", "/v2/health/ready") == (200, {"ready": True})
        status, answer = await driver.ask("POST", "/v2/models/toy/infer", infer_body(images))
        assert status == 200
        np.testing.assert_allclose(
            answer["outputs"][0]["data"], toy.run(images)["probabilities"][0], atol=1e-6
        )
        picture = io.BytesIO()
        Image.new("L", (4, 4)).save(picture, "PNG")
        assert (await driver.ask("POST", "/v2/models/toy/classify", picture.getvalue()))[0] == 200
        names = {thread.name.rpartition("_")[0] for thread in serving_threads()}
        assert "stnkit-image" in names
        assert len(names) > 1
        assert await driver.life("shutdown") == {"type": "lifespan.shutdown.complete"}
        await driver.task
        assert serving_threads() == []
        # Who asks all the same is told so, and the loop goes on.
        assert (await driver.ask("GET", "/v2/health/ready"))[0] == 503
        assert (await driver.ask("POST", "/v2/models/toy/infer", infer_body(images)))[0] == 503

    asyncio.run(test())


def test_it_may_live_twice(bundle_path):
    async def test(application):
        driver = Driver(application)
        assert (await driver.life("startup"))["type"] == "lifespan.startup.complete"
        assert await driver.ask("GET", "/v2/health/ready") == (200, {"ready": True})
        status, answer = await driver.ask("GET", "/v2/models/toy")
        assert (status, answer["versions"]) == (200, ["1"])
        assert (await driver.life("shutdown"))["type"] == "lifespan.shutdown.complete"

    application = app(bundle_path, ONE)
    asyncio.run(test(application))
    asyncio.run(test(application))


def test_a_bundle_that_cannot_be_served_fails_the_start(tmp_path):
    async def test():
        driver = Driver(app([tmp_path / "nothing"], ONE))
        answer = await driver.life("startup")
        assert answer["type"] == "lifespan.startup.failed"
        assert "nothing does not exist" in answer["message"]
        await driver.task
        assert (await driver.ask("GET", "/v2/health/ready"))[0] == 503

    asyncio.run(test())


def test_without_a_lifespan_the_core_is_opened_by_hand(bundle_path):
    async def test():
        application = app(BundleSource(bundle_path, "mine"), ONE)
        application.core.open()
        driver = Driver(application)
        assert await driver.ask("GET", "/v2/health/ready") == (200, {"ready": True})
        assert (await driver.ask("GET", "/v2/models/mine"))[1]["name"] == "mine"
        application.core.close()
        driver.task.cancel()

    asyncio.run(test())


def test_a_websocket_is_turned_away(bundle_path):
    async def test():
        sent = []

        async def send(message):
            sent.append(message)

        await app(bundle_path)({"type": "websocket"}, None, send)
        assert sent == [{"type": "websocket.close", "code": 1003}]

    asyncio.run(test())


@pytest.mark.parametrize(
    "bundles",
    [
        "a.bundle",
        Path("a.bundle"),
        ["a.bundle"],
        [Path("a.bundle")],
        [BundleSource(Path("a.bundle"))],
    ],
    ids=repr,
)
def test_bundles_are_named_as_on_the_command_line(bundles):
    assert app(bundles).core._sources == (BundleSource(Path("a.bundle")),)
    assert app(["x@2=a.bundle"]).core._sources == (BundleSource(Path("a.bundle"), "x", "2"),)


def test_options_reach_the_core():
    application = app("a.bundle", ONE, Limits(rank_max=3), management_token="x" * 16)
    assert application.core.options is ONE
    assert application.core.limits.rank_max == 3
    application.core.check_management("Bearer " + "x" * 16)
    with pytest.raises(InputError, match="version 0"):
        app("a@0=b")
