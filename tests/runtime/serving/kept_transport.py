"""A transport without a socket: keeps what is written, and hands over what a test receives."""

from __future__ import annotations

import asyncio
from typing import Any


class KeptTransport:
    """Ends only when it is told to, as one whose peer reads nothing.

    Attributes:
        written: all that was written.
        closing: whether it was closed.
        aborted: whether that was at once.
        paused: whether nothing is to be read.
        protocol: who gets what is received; whoever is given the transport is set by hand.
        high: above how many bytes writing is to pause, or None where nobody said.
    """

    def __init__(self) -> None:
        self.written = b""
        self.closing = self.aborted = self.paused = False
        self.protocol: Any = None
        self.high: int | None = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)}.get(name, default)

    def set_protocol(self, protocol: Any) -> None:
        assert self.paused, "changed while it is read from: uvloop goes on as before"
        self.protocol = protocol

    def receive(self, data: bytes, most: int = 65_536) -> None:
        """Hand bytes to whichever protocol reads, as an event loop does."""
        while data and not self.closing:
            if isinstance(self.protocol, asyncio.BufferedProtocol):
                place = memoryview(self.protocol.get_buffer(-1))
                count = min(len(place), len(data), most)
                assert count > 0
                place[:count] = data[:count]
                self.protocol.buffer_updated(count)
            else:
                count = most
                self.protocol.data_received(data[:count])
            data = data[count:]

    def write(self, data: bytes) -> None:
        assert not self.closing, "written behind the end"
        self.written += data

    def writelines(self, parts: list[bytes]) -> None:
        self.write(b"".join(parts))

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def is_closing(self) -> bool:
        return self.closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
