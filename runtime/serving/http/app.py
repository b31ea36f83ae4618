"""Serve the Open Inference Protocol as a plain ASGI application.

Source: Open Inference Protocol (KServe V2), HTTP/REST; its extensions for statistics, model
configuration and model repository; ASGI 3.0.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from stnkit.runtime.errors import StnkitError, one_line
from stnkit.runtime.serving.core import ServingCore
from stnkit.runtime.serving.errors import InvalidRequestError, ServingError, UnsupportedError
from stnkit.runtime.serving.http.answers import Answer, error_answer, infer_answer, json_answer
from stnkit.runtime.serving.http.bodies import Bodies, ClientGoneError, Receive, header, lead_bytes
from stnkit.runtime.serving.http.body_sink import SINK
from stnkit.runtime.serving.http.codec import BINARY_HEADER, parse_object
from stnkit.runtime.serving.http.description import openapi
from stnkit.runtime.serving.http.image_route import ImageRoute
from stnkit.runtime.serving.http.reader import RequestReader
from stnkit.runtime.serving.http.routes import Route, find_route
from stnkit.runtime.serving.metrics import Metrics
from stnkit.runtime.serving.request_log import RequestLog
from stnkit.runtime.serving.tracing import CARRIED

__all__ = ["ServingApp"]

Send = Callable[[dict[str, Any]], Awaitable[None]]

_LOG = logging.getLogger("stnkit.serving")

# Watching the connection takes a task: only a request that waits longer than this gets one.
_PATIENCE_S = 0.02


class ServingApp:
    """The ASGI application; an instance serves one event loop.

    Hosted by another server, its lifespan loads the models and gives them back.

    Args:
        core: the models.
        log_requests: whether every request leaves a line in the log.

    Attributes:
        responses: HTTP status -> answers so far.
        bodies: what all requests hold.
        read: reads what an inference request asks.
        log: where requests are noted.
        infer_routes: path, as it is sent, -> what it asks for: those of models that are served.
    """

    def __init__(self, core: ServingCore, *, log_requests: bool = False) -> None:
        self.core = core
        self.responses: Counter[int] = Counter()
        self.metrics = Metrics(core, self.responses)
        self.bodies = Bodies(core.limits)
        self.read = RequestReader(core.limits)
        self.log = RequestLog(log_requests)
        self._images = ImageRoute(core)
        self._routes: dict[tuple[str, str], Route] = {}
        self.infer_routes: dict[bytes, Route] = {}

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request, or follow the server's life; see ASGI."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._lifespan(receive, send)
            return
        if kind != "http":  # a websocket: nothing here speaks it
            await send({"type": "websocket.close", "code": 1003})
            return
        started_ns = time.monotonic_ns()
        try:
            status, headers, body = await self._answer(scope, receive)
        except ClientGoneError:
            return
        except Exception as exc:
            status, headers, body = error_answer(exc)
        self.responses[status] += 1
        if self.log.on or status == 500:  # refusals come in thousands, and metrics count them
            self.log.write(scope, status, len(body), time.monotonic_ns() - started_ns)
        headers.append((b"content-length", str(len(body)).encode()))
        if self.core.draining:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: dict[str, Any], receive: Receive) -> Answer:
        key = (scope["method"], _path(scope))
        route = self._routes.get(key)
        if route is None:
            route = find_route(*key, limits=self.core.limits)
            if route.action == "infer":
                self._remember(key, route, scope)
        if route.action == "infer":
            return await self._infer(route, scope, receive)
        if route.action == "classify":
            return await self._classify(route, scope, receive)
        if route.action in ("index", "load", "unload"):
            return await self._manage(route, scope, receive)
        return self._tell(route)

    def _remember(self, key: tuple[str, str], route: Route, scope: dict[str, Any]) -> None:
        """Keep the route of what is served: a client chooses paths, and would fill the memory."""
        try:
            self.core.repository.get(route.model, route.version)
        except ServingError:
            return
        sent = scope["path"].encode()
        if scope.get("raw_path", sent) == sent:  # there are any number of ways to quote it
            self._routes[key] = route
            self.infer_routes[key[1].encode()] = route

    def _tell(self, route: Route) -> Answer:
        """Answer what needs no body."""
        core = self.core
        action = route.action
        if action == "live":
            return json_answer(200 if core.live() else 503, {"live": core.live()})
        if action == "ready":
            return json_answer(200 if core.ready() else 503, {"ready": core.ready()})
        if action == "model_ready":
            ready = core.model_ready(route.model, route.version)
            return json_answer(200 if ready else 503, {"name": route.model, "ready": ready})
        if action == "server":
            return json_answer(200, core.server_metadata())
        if action == "metadata":
            return json_answer(200, core.model_metadata(route.model, route.version))
        if action == "config":
            return json_answer(200, core.model_config(route.model, route.version))
        if action == "stats":
            return json_answer(200, core.statistics(route.model, route.version))
        if action == "openapi":
            return 200, [(b"content-type", b"application/json")], openapi()
        assert action == "metrics"
        content_type, text = self.metrics.text()
        return 200, [(b"content-type", content_type)], text

    async def _infer(self, route: Route, scope: dict[str, Any], receive: Receive) -> Answer:
        # Refused before the body is read: under overload most requests end here.
        self.core.repository.get(route.model, route.version).refuse_when_full()
        length = json_length = encoding = None
        for name, value in scope["headers"]:
            if name == b"content-length":
                length = value
            elif name == BINARY_HEADER:
                json_length = value
            elif name == b"content-encoding":
                encoding = value
        body: bytes | memoryview
        sink = scope.get(SINK)
        if sink is None or length is None or encoding is not None:
            body, held = await self.bodies.read(receive, length, encoding)
        else:
            body, held = await self.bodies.read_into(sink, length, lead_bytes(json_length))
        try:
            request = self.read(route.model, route.version, body, json_length)
            if self.log.on:
                scope["stnkit.id"] = request.id
            request.carrier = self._carrier(scope)
            response = await self._watched(self.core.infer(request), receive)
        finally:
            self.bodies.release(held)
        return infer_answer(response)

    async def _classify(self, route: Route, scope: dict[str, Any], receive: Receive) -> Answer:
        model = self.core.repository.get(route.model, route.version)
        model.refuse_when_full()
        headers = scope["headers"]
        body, held = await self.bodies.read(
            receive, header(headers, b"content-length"), header(headers, b"content-encoding")
        )
        try:
            work = self._images.classify(
                model,
                body,
                header(headers, b"content-type"),
                scope["query_string"],
                self._carrier(scope),
            )
            return json_answer(200, await self._watched(work, receive))
        finally:
            self.bodies.release(held)

    async def _manage(self, route: Route, scope: dict[str, Any], receive: Receive) -> Answer:
        authorization = header(scope["headers"], b"authorization")
        self.core.check_management(
            None if authorization is None else authorization.decode("latin-1")
        )
        body, held = await self.bodies.read(
            receive,
            header(scope["headers"], b"content-length"),
            header(scope["headers"], b"content-encoding"),
        )
        try:
            fields = parse_object(body, self.core.limits) if body.strip() else {}
        finally:
            self.bodies.release(held)
        if route.action == "index":
            ready = fields.get("ready", False)
            if not isinstance(ready, bool):
                raise InvalidRequestError('"ready" of the request is not true or false')
            return json_answer(200, self.core.repository_index(ready))
        parameters = fields.get("parameters", {})
        if not isinstance(parameters, dict):
            raise InvalidRequestError('"parameters" of the request is not an object')
        if route.action == "load":
            if parameters:
                # A configuration or files of the client's own: what is served is the operator's.
                raise UnsupportedError("a load with parameters is not served: send none")
            await self.core.load(route.model)
        else:
            await self.core.unload(route.model)
        return json_answer(200, {})

    def _carrier(self, scope: dict[str, Any]) -> dict[str, str] | None:
        if not self.core.traced:
            return None
        return {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name.decode("latin-1") in CARRIED
        }

    async def _watched(self, work: Any, receive: Receive) -> Any:
        """Await work that is taken back when the client goes away."""
        loop = asyncio.get_running_loop()
        watch = _Watch(asyncio.current_task(), receive)
        timer = loop.call_later(_PATIENCE_S, watch.start)
        try:
            return await work
        except asyncio.CancelledError:
            if watch.gone:
                raise ClientGoneError from None
            raise
        finally:
            timer.cancel()
            watch.stop()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await asyncio.to_thread(self.core.open)
                except Exception as exc:  # any other answer, and a host serves without models
                    if not isinstance(exc, StnkitError):
                        _LOG.exception("the models were not loaded")
                    await send({"type": "lifespan.startup.failed", "message": one_line(exc)})
                    return
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                self.core.drain()
                await asyncio.to_thread(self.core.close)
                await asyncio.to_thread(self._images.close)
                await send({"type": "lifespan.shutdown.complete"})
                return


def _path(scope: dict[str, Any]) -> str:
    """Return the path below what the application is mounted at, which ASGI's path begins with."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    # Some hosts leave it out of the path.
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


class _Watch:
    """Cancels a task once its client has gone."""

    __slots__ = ("_receive", "_task", "_watcher", "gone")

    def __init__(self, task: asyncio.Task[Any] | None, receive: Receive) -> None:
        self._task = task
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None
        self.gone = False

    def start(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self._task is not None:
            self._task.cancel()

    def stop(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
