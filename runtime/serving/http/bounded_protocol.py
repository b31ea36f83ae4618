"""Keep what a client does to a connection within bounds: uvicorn's protocol, with the limits added.

uvicorn waits for a request for ever, reads headers of any length, queues any number of requests
that are sent ahead, takes any number of connections, and answers what is no HTTP before the
requests that came first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from httptools import HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from stnkit.runtime.serving.http.body_sink import SINK, SINK_BYTES_LEAST, BodySink
from stnkit.runtime.serving.http.direct_body import DIRECT_BYTES_LEAST, DirectBody, ShortReads
from stnkit.runtime.serving.http.express import Exchange, Express
from stnkit.runtime.serving.http.one_write import OneWrite
from stnkit.runtime.serving.limits import Limits

__all__ = ["BoundedProtocol", "bounded", "close_slow", "cut_off"]

_LOG = logging.getLogger("stnkit.serving")

# Requests that a client may send ahead of an answer: one read can hold ten thousand of them.
_AHEAD_MAX = 64

# A client that has closed its side may wait for its answer, or be gone: nobody can tell. It gets
# what is ready within this time.
_HALF_CLOSED_S = 1.0

_REASONS = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class BoundedProtocol(HttpToolsProtocol):
    """One connection; `bounded` makes the class for a server.

    `close_slow` looks at all of them once a second, which costs less than a timer a request.
    """

    limits: Limits = Limits()
    express: Express | None = None

    def connection_made(self, transport: Any) -> None:
        """Take the connection, or refuse it where there are too many."""
        super().connection_made(transport)
        self.transport: Any = OneWrite(transport)
        if self.scheme == "http":
            # Where nothing may wait, uvloop writes at once: else at the end of a turn of its loop.
            transport.set_write_buffer_limits(high=0)
        # Since when the client owes us the rest of a request; None while it owes nothing.
        self.owing_since: float | None = time.monotonic()
        # Since when it does not read what it is sent, or does not let the connection end.
        self.stuck_since: float | None = None
        # Since when its side is closed.
        self.half_closed_since: float | None = None
        # Bytes since the last that were of use: of headers and trailers, and around chunks.
        self.overhead_bytes = 0
        self.in_headers = True
        self.in_body = False
        self.keep_alive_with_body = False
        # Whether what the client sends is not looked at any more.
        self.deaf = False
        # What is being answered; `self.cycle` is the request that came last.
        self.answering: RequestResponseCycle | None = None
        self.last_words = b""
        self.sink: BodySink | None = None
        # The request that arrives, where it needs no ASGI.
        self.exchange: Exchange | None = None
        # Since when there has been neither a request nor an answer; None while there is one.
        self.idle_since: float | None = None
        if len(self.connections) > self.limits.connections_max:
            self._refuse(503, "the server has as many connections as it may: try again later")

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is being answered, which need not be the last."""
        if self.sink is not None:
            self.sink.finish(False)
        answering = self.answering
        if isinstance(answering, Exchange):
            answering.lose()
        elif answering is not None and not answering.response_complete:
            answering.disconnected = True
            answering.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; count what is neither a block of headers nor a body."""
        if self.deaf or self.transport.is_closing():
            return
        self.idle_since = None
        self.overhead_bytes += len(data)
        super().data_received(data)
        if self.overhead_bytes > self.limits.header_bytes_max:
            self._refuse(431, "the request's headers are longer than they may be")
        elif self.exchange is not None:
            self._read_directly(self.exchange)
        elif self.owing_since is None and self.idle_since is None and not self._busy:
            # Empty lines, or the end of a body that was refused: no other clock runs.
            self.owing_since = time.monotonic()

    def end_direct(self) -> None:
        """Go on behind a body that the parser has not seen, and never will."""
        self._hand_to(ShortReads(self))
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.on_message_complete()

    def on_message_begin(self) -> None:
        """Begin with a request's headers; uvicorn makes its scope here, which not all need."""
        self.url = b""
        self.headers = []
        self.in_headers = True
        self.owing_since = time.monotonic()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; a trailer, behind the body, is dropped."""
        if self.in_headers:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Hand the request on, unless its headers are too long, or too many wait before it."""
        self.in_headers = False
        self.overhead_bytes = 0
        if self.deaf or self.transport.is_closing():
            return
        size = len(self.url)
        for name, value in self.headers:
            size += len(name) + len(value) + 4
        if size > self.limits.header_bytes_max:
            self._refuse(431, "the request's headers are longer than they may be")
            return
        if len(self.pipeline) >= _AHEAD_MAX:
            # The last answer says that the connection ends, so the client knows what to repeat.
            self.cycle.keep_alive = False
            self.deaf = True
            return
        express = self.express
        # An answer is written at once: not to a client that does not read the last ones.
        if express is not None and not self.flow.write_paused:
            if self.cycle is None or self.cycle.response_complete:
                exchange = express.exchange(self)
                if exchange is not None:
                    self.cycle = self.answering = self.exchange = exchange
                    self.in_body = True
                    exchange.start()
                    return
        self._make_scope()
        ahead = len(self.pipeline)
        super().on_headers_complete()
        self.in_body = True
        self.sink = self._sink()
        if len(self.pipeline) == ahead:  # it need not wait
            self.answering = self.cycle
        if self.expect_100_continue:
            # Who is refused at once may send the body or not: no telling what comes next.
            self.keep_alive_with_body = self.cycle.keep_alive
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Take a part of the body, where somebody waits for it."""
        self.overhead_bytes = 0
        if not self.deaf and not self.transport.is_closing():
            if self.exchange is not None:
                self.exchange.feed(body)
            elif self.sink is not None and self.sink.open:
                self.sink.feed(body)
            else:
                super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request: the client owes nothing any more."""
        self.overhead_bytes = 0
        self.owing_since = None
        self.in_body = False
        if self.deaf or self.transport.is_closing():
            return
        if self.exchange is not None:
            exchange, self.exchange = self.exchange, None
            exchange.end()
        else:
            if self.expect_100_continue and not self.cycle.response_started:
                self.cycle.keep_alive = self.keep_alive_with_body
            super().on_message_complete()
            if self.sink is not None:
                self.sink.finish(True)
                self.sink = None

    def on_response_complete(self) -> None:
        """Send what is left of the answer; go on with the next request, or say what ends it all."""
        # As uvicorn does, but for a timer of each answer: `close_if_slow` looks at the clock.
        self.transport.flush()
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self.answering = cycle
            self._start_asgi_task(cycle, app)
        elif self.last_words:
            self.transport.write(self.last_words)
            self.transport.close()
        else:
            self.idle_since = time.monotonic()

    def pause_writing(self) -> None:
        """Note that the client does not read what it is sent."""
        self.stuck_since = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Note that it reads again."""
        self.stuck_since = None
        super().resume_writing()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Answer a client that has sent all and closed its side; then close ours."""
        if self.scheme == "https" or not self._busy:  # TLS knows no connection with one side
            return None
        if self.in_body and not self._drop_unfinished():
            return None
        if not self.last_words:
            self._newest.keep_alive = False
        self.deaf = True
        if self.half_closed_since is None:
            self.half_closed_since = time.monotonic()
        return True

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP in the protocol's form of an error."""
        self._refuse(400, "this is not a valid HTTP request")

    def close_if_slow(self, now: float) -> None:
        """Close the connection where its client has kept us waiting for too long.

        Args:
            now: reading of `time.monotonic`.
        """
        patience_s = self.limits.receive_timeout_s
        if self.transport.is_closing() and self.stuck_since is None:
            self.stuck_since = now
        if self.stuck_since is not None and now - self.stuck_since >= patience_s:
            self.transport.abort()
        elif self.transport.is_closing():
            return
        elif self.half_closed_since is not None:
            if now - self.half_closed_since >= _HALF_CLOSED_S:
                self.transport.close()
        elif self.owing_since is None:
            if self.idle_since is not None and now - self.idle_since >= self.limits.idle_timeout_s:
                self.transport.close()
        elif self._busy and not (self.in_body and self.cycle is self.answering):
            self.owing_since = now  # it is its turn once it has the answers that are due
        elif now - self.owing_since >= patience_s:
            if self.in_headers or self._busy:
                self._refuse(408, "the request did not arrive in time")
            else:  # its answer is sent
                self.transport.close()

    def cut_off(self) -> bool:
        """End a request that has no task to cancel; return whether there was one."""
        if not self._busy or not isinstance(self.answering, Exchange):
            return False
        self.answering.cut_off()
        return True

    @property
    def _busy(self) -> bool:
        return self.answering is not None and not self.answering.response_complete

    @property
    def _newest(self) -> RequestResponseCycle:
        """The last request that has come whole, while one is being answered."""
        if self.pipeline:
            return self.pipeline[0][0]
        assert self.answering is not None
        return self.answering

    def _make_scope(self) -> None:
        """Do what uvicorn does where a request begins, now that its headers are there."""
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        self.headers += headers  # the scope's own list
        self.expect_100_continue = any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in headers
        )

    def _sink(self) -> BodySink | None:
        """Return what takes the body of the request that begins, where that is a large one."""
        if self.expect_100_continue:  # asking for the body is the business of ASGI's receive
            return None
        for name, value in self.headers:
            if name == b"content-length" and int(value) >= SINK_BYTES_LEAST:
                sink = BodySink(self.cycle, self.flow)
                scope: Any = self.scope
                scope[SINK] = sink
                return sink
        return None

    def _read_directly(self, exchange: Exchange) -> None:
        if self.deaf or self.transport.is_closing() or self.scheme != "http":
            return
        missing = exchange.missing()
        if len(missing) >= DIRECT_BYTES_LEAST:
            self._hand_to(DirectBody(self, missing))

    def _hand_to(self, protocol: asyncio.BaseProtocol) -> None:
        # uvloop looks at the kind of protocol where it begins to read.
        self.transport.pause_reading()
        self.transport.set_protocol(protocol)
        self.transport.resume_reading()

    def _unsupported_upgrade_warning(self) -> None:
        # The parser has stopped; the request itself is one like others.
        if self.cycle is not None:
            self.cycle.keep_alive = False
        self.deaf = True

    def _drop_unfinished(self) -> bool:
        """Forget the request that is not whole, if its turn has not come; whether it was so."""
        if self.cycle is self.answering or not self.pipeline:
            return False
        self.pipeline.popleft()
        self.in_body = False
        return True

    def _refuse(self, status: int, message: str) -> None:
        """Answer a request that cannot be read, in its turn, and end."""
        if self.deaf or self.transport.is_closing():
            return
        self.deaf = True
        retry = "retry-after: 1\r\n" if status == 503 else ""
        body = f'{{"error":"{message}"}}'
        answer = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: application/json\r\n{retry}"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n{body}"
        ).encode()
        if self._busy and (not self.in_body or self._drop_unfinished()):
            self.last_words = answer
        elif self._busy and self.cycle.response_started:
            self.cycle.keep_alive = False
        else:
            if not self.in_body or self._busy:
                self.transport.write(answer)
            self.transport.close()


def bounded(limits: Limits, express: Express | None = None) -> type[BoundedProtocol]:
    """Return the protocol class of a server.

    Args:
        limits: what its clients may do.
        express: what answers plain requests; None leaves all of them to the ASGI application.
    """
    return type("Protocol", (BoundedProtocol,), {"limits": limits, "express": express})


def close_slow(connections: set[Any]) -> None:
    """Close the connections whose clients have kept the server waiting for too long.

    Args:
        connections: uvicorn's.
    """
    now = time.monotonic()
    for connection in list(connections):
        if isinstance(connection, BoundedProtocol):
            connection.close_if_slow(now)


def cut_off(connections: set[Any]) -> None:
    """End the requests that were not answered within the server's grace time.

    uvicorn cancels tasks; these requests have none.

    Args:
        connections: uvicorn's.
    """
    ours = [it for it in connections if isinstance(it, BoundedProtocol)]
    count = sum(connection.cut_off() for connection in ours)
    if count:
        _LOG.warning("%d request(s) were not answered within the grace time", count)
