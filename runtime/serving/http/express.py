"""Answer plain inference requests from the connection itself: no ASGI, no task, no timer.

ASGI's scope, messages and task, and uvicorn's cycle around them, take more time than the parsing of
a request, its way through the queue and the writing of its answer together. What is out of the
ordinary in any way goes that way; both give the same answers, to the byte.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from stnkit.runtime.serving.deadlines import Deadlines
from stnkit.runtime.serving.errors import DeadlineError, ServingError
from stnkit.runtime.serving.http.answers import Answer, error_answer, infer_answer
from stnkit.runtime.serving.http.bodies import lead_bytes
from stnkit.runtime.serving.http.codec import BINARY_HEADER

if TYPE_CHECKING:
    import numpy.typing as npt

    from stnkit.runtime.serving.http.app import ServingApp
    from stnkit.runtime.serving.http.bounded_protocol import BoundedProtocol
    from stnkit.runtime.serving.http.routes import Route
    from stnkit.runtime.serving.inference import InferRequest
    from stnkit.runtime.serving.served_model import ServedModel
    from stnkit.runtime.serving.work import Work

__all__ = ["Exchange", "Express"]

# Whoever sends one of these asks for what ASGI's side does.
_ELSEWHERE = frozenset((b"content-encoding", b"expect", b"transfer-encoding", b"upgrade"))

# What uvicorn says where a task did not end within the grace time.
_CUT_OFF: Answer = (
    500,
    [(b"content-type", b"text/plain; charset=utf-8")],
    b"Internal Server Error",
)


class Express:
    """Takes requests from connections; for one event loop.

    Args:
        app: what answers all other requests: limits, counts and logs are the same.
    """

    def __init__(self, app: ServingApp) -> None:
        self.app = app
        self.deadlines = Deadlines()

    def exchange(self, connection: BoundedProtocol) -> Exchange | None:
        """Return what answers a request whose headers are there; None where it is not plain.

        Args:
            connection: one that has nothing else to answer.
        """
        app = self.app
        route = app.infer_routes.get(connection.url)
        if route is None or connection.parser.get_method() != b"POST":
            return None
        length = json_length = None
        for name, value in connection.headers:
            if name == b"content-length":
                length = value
            elif name == BINARY_HEADER:
                json_length = value
            elif name in _ELSEWHERE:
                return None
        if length is None or not length.isdigit() or len(length) > 19:
            return None
        if app.log.on or app.core.draining or app.core.traced:
            return None
        return Exchange(self, connection, route, int(length), json_length)


class Exchange(RequestResponseCycle):
    """One request and its answer: to the connection uvicorn's cycle, to the batcher who waits.

    Args:
        express: what took it.
        connection: where it came.
        route: what it asks for.
        size: bytes of its body.
        json_length: value of the header `Inference-Header-Content-Length`, None without one.
    """

    # Nobody waits for what uvicorn tells a cycle.
    message_event = asyncio.Event()

    def __init__(
        self,
        express: Express,
        connection: BoundedProtocol,
        route: Route,
        size: int,
        json_length: bytes | None,
    ) -> None:
        parser = connection.parser
        self.keep_alive = parser.get_http_version() != "1.0" and parser.should_keep_alive()
        self.response_started = self.response_complete = self.disconnected = False
        self._express = express
        self._connection = connection
        self._url, self._headers = connection.url, connection.headers
        self._route = route
        self._size = size
        self._json_length = json_length
        self._started_ns = time.monotonic_ns()
        self._held = self._at = 0
        self._body: memoryview | None = None
        self._request: InferRequest | None = None
        self._model: ServedModel | None = None
        self._work: Work | None = None

    def start(self) -> None:
        """Refuse what would wait for too long before its body is read; make room for the others."""
        app = self._express.app
        route = self._route
        try:
            app.core.repository.get(route.model, route.version).refuse_when_full()
            app.bodies.take(self._size)
        except Exception as exc:
            self._answer(error_answer(exc))
        else:
            self._held = self._size

    def feed(self, part: bytes) -> None:
        """Take the next part of the body; what was refused is not kept."""
        if self.done():
            return
        at = self._at
        self._at = at + len(part)
        self._place()[at : self._at] = part

    def missing(self) -> memoryview:
        """Return where the rest of the body belongs; nothing where it is not wanted."""
        return memoryview(b"") if self.done() else self._place()[self._at :]

    def _place(self) -> memoryview:
        if self._body is None:
            # In one piece from the start, and in front of it what aligns the tensors.
            lead = lead_bytes(self._json_length)
            self._body = np.empty(lead + self._size, np.uint8).data[lead:]
        return self._body

    def end(self) -> None:
        """Put the request into the queue, once its body is there."""
        if self.done():
            return
        body = b"" if self._body is None else self._body
        app, route = self._express.app, self._route
        try:
            self._request = app.read(route.model, route.version, body, self._json_length)
            self._model, self._work = app.core.enqueue(self._request, self)
        except Exception as exc:
            self._answer(error_answer(exc))
        else:
            self._express.deadlines.add(self._work)

    def done(self) -> bool:
        """Return whether nobody waits: it is answered, or the client has gone."""
        return self.response_complete or self.disconnected

    def set_result(self, outputs: Mapping[str, npt.NDArray[Any]], /) -> None:
        """Send the answer."""
        model, request = self._model, self._request
        assert model is not None
        assert request is not None
        try:
            answer = infer_answer(model.answer(request, outputs))
        except Exception as exc:  # there are others in this batch
            answer = error_answer(exc)
        self._answer(answer)

    def set_exception(self, error: ServingError, /) -> None:
        """Send what is said in place of an answer."""
        if isinstance(error, DeadlineError):
            self._give_up("deadline")
        self._answer(error_answer(error))

    def lose(self) -> None:
        """Take the request back: the client has gone."""
        if not self.done():
            self.disconnected = True
            self._give_up("cancelled")
            self._release()

    def cut_off(self) -> None:
        """End a request that was not answered when the server's grace time was over."""
        if not self.done():
            self._give_up("cancelled")
            self.keep_alive = False
            self._send(*_CUT_OFF)

    def _give_up(self, reason: str) -> None:
        if self._model is not None and self._work is not None:
            self._model.give_up(self._work, reason)

    def _answer(self, answer: Answer) -> None:
        status, headers, body = answer
        app = self._express.app
        app.responses[status] += 1
        if status == 500:
            scope = {
                "method": "POST",
                "path": self._url.decode("ascii"),
                "headers": self._headers,
                "client": self._connection.client,
            }
            app.log.write(scope, status, len(body), time.monotonic_ns() - self._started_ns)
        if app.core.draining:
            self.keep_alive = False
        self._send(status, headers, body)

    def _send(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self._release()
        connection = self._connection
        head = [STATUS_LINE[status]]
        for name, value in headers:
            head += (name, b": ", value, b"\r\n")
        head.append(b"content-length: %d\r\n" % len(body))
        head.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        self.response_started = True
        transport = connection.transport
        if not transport.is_closing():
            transport.write_whole(b"".join(head), body)
        self.response_complete = True
        if not self.keep_alive:
            transport.close()
        connection.on_response_complete()

    def _release(self) -> None:
        """Give back what the request held: the connection keeps its last one."""
        express = self._express
        if self._work is not None:
            express.deadlines.discard(self._work)
        express.app.bodies.release(self._held)
        self._held = 0
        self._body = self._request = self._model = self._work = None
