"""One kept-open connection: sends a request, reads the answer, notes when.

Only what a server that is loaded needs to say is understood: a status line, `Content-Length` and
`Connection: close`. Everything else is a malformed answer, counted, and ends the connection.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from stnkit.runtime.timing.load.result import CLOSED, MALFORMED

__all__ = ["Connection", "Owner"]

_HEAD_MOST_BYTES = 64 * 1024
_BODY_MOST_BYTES = 256 * 2**20
_VERSION = b"HTTP/1.1 "
_LENGTH = b"\r\ncontent-length:"
_CLOSE = b"\r\nconnection: close"


class Owner(Protocol):
    """Who owns connections and is told what happens on them."""

    def opened(self, connection: Connection) -> None:
        """Take a connection on which nothing was sent yet."""

    def answered(self, connection: Connection, status: int, head_bytes: int, data: bytes) -> None:
        """Take the answer to the request that was sent last.

        Args:
            connection: where it came.
            status: HTTP status.
            head_bytes: where the empty line after the head starts.
            data: the whole answer.
        """

    def lost(self, connection: Connection, code: int) -> None:
        """Take a connection off.

        Args:
            connection: it is closed already.
            code: what became of the request that was on its way; 0 where none was.
        """


class Connection(asyncio.Protocol):
    """A connection with at most one request on its way.

    Args:
        owner: told of everything.

    Attributes:
        answers: how many have come.
        closing: whether the server announced, with its last answer, that it closes.
        received_bytes: in all.
        scheduled_ns: when the last request was due, by the monotonic clock.
        sent_ns: when it was sent; 0 where none is on its way.
    """

    __slots__ = (
        "_have_bytes",
        "_needed_bytes",
        "_over",
        "_owner",
        "_parts",
        "_transport",
        "answers",
        "closing",
        "received_bytes",
        "scheduled_ns",
        "sent_ns",
    )

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._over = False
        self._parts: list[bytes] = []
        self._have_bytes = self._needed_bytes = 0
        self.answers = self.received_bytes = self.scheduled_ns = self.sent_ns = 0
        self.closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast(asyncio.Transport, transport)
        self._owner.opened(self)

    def send(self, request: bytes, scheduled_ns: int, now_ns: int) -> None:
        """Send a request; none may be on its way.

        Args:
            request: its bytes.
            scheduled_ns: when it was due, by the monotonic clock.
            now_ns: what that clock says.
        """
        assert self._transport is not None
        self.scheduled_ns = scheduled_ns
        self.sent_ns = now_ns
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Take bytes, and pass the answer on when it is whole."""
        self.received_bytes += len(data)
        if self._parts:
            self._parts.append(data)
            self._have_bytes += len(data)
            if self._have_bytes < self._needed_bytes:
                return
            data = b"".join(self._parts)
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if len(data) > _HEAD_MOST_BYTES or not _VERSION.startswith(data[:9]):
                self.end(MALFORMED)
            else:
                self._wait(data, len(data) + 1)
            return
        head = data[: end + 2].lower()
        at = head.find(_LENGTH)
        try:
            status = int(data[9:12])
            length = int(head[at + 17 : head.index(b"\r", at + 17)]) if at >= 0 else -1
        except ValueError:
            status = length = -1
        if not (data.startswith(_VERSION) and self.sent_ns and status >= 200):
            length = -1
        if not 0 <= length <= _BODY_MOST_BYTES:
            self.end(MALFORMED)
            return
        needed = end + 4 + length
        if len(data) < needed:
            self._wait(data, needed)
            return
        if len(data) > needed:
            self.end(MALFORMED)
            return
        if self._parts:
            self._parts.clear()
        self.answers += 1
        if _CLOSE in head:
            self.closing = True
        self._owner.answered(self, status, end, data)

    def _wait(self, data: bytes, needed_bytes: int) -> None:
        self._parts = [data]
        self._have_bytes, self._needed_bytes = len(data), needed_bytes

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner, where the server or the system closed the connection."""
        self.end(CLOSED)

    def end(self, code: int) -> None:
        """Close the connection at once; a second call does nothing.

        Args:
            code: what became of the request that is on its way, if one is.
        """
        if self._over:
            return
        self._over = True
        if self._transport is not None:
            self._transport.abort()
        # Something that nobody asked for is an error of its own.
        unasked = code == MALFORMED
        self._owner.lost(self, code if self.sent_ns or unasked else 0)

    def drop(self) -> None:
        """Close the connection without telling the owner."""
        self._over = True
        if self._transport is not None:
            self._transport.abort()
