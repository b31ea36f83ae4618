"""Read a large body from the socket straight into the memory that its tensors are read from.

A parser in between takes the body apart into the pieces that it came in, and each is copied three
times on its way: by the event loop, by the parser, and to its place. The length of the body is
known, so that nobody has to look at it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stnkit.runtime.serving.http.bounded_protocol import BoundedProtocol

__all__ = ["DIRECT_BYTES_LEAST", "DirectBody", "ShortReads"]

DIRECT_BYTES_LEAST = 64 * 2**10
"""How much must be missing for it to be worth the change."""

_SHORT_BYTES = 8 * 2**10


class _StandIn(asyncio.BufferedProtocol):
    """Reads for a connection, which is told of everything else.

    Args:
        connection: whose bytes they are.
    """

    def __init__(self, connection: BoundedProtocol) -> None:
        self._connection = connection

    def eof_received(self) -> bool | None:
        """Pass it on."""
        return self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on."""
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass it on."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._connection.resume_writing()


class DirectBody(_StandIn):
    """Fills a body, then gives the connection back.

    Args:
        connection: whose body it is.
        missing: where the rest of it belongs; it is filled to the end, and no further.
    """

    def __init__(self, connection: BoundedProtocol, missing: memoryview) -> None:
        super().__init__(connection)
        self._missing = missing

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where the next bytes belong."""
        return self._missing

    def buffer_updated(self, nbytes: int) -> None:
        """Go on behind them."""
        self._missing = self._missing[nbytes:]
        if not self._missing:
            self._connection.end_direct()


class ShortReads(_StandIn):
    """Reads a little at a time: where large bodies come, the next one's headers and not much more.

    Args:
        connection: is fed.
    """

    def __init__(self, connection: BoundedProtocol) -> None:
        super().__init__(connection)
        self._buffer = bytearray(_SHORT_BYTES)

    def get_buffer(self, sizehint: int) -> bytearray:
        """Say where the next bytes belong."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Feed the connection."""
        self._connection.data_received(bytes(memoryview(self._buffer)[:nbytes]))
