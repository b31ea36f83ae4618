"""Write a large body straight into the memory that its tensors are read from.

ASGI hands a body on in parts: each is collected, copied and put together again, and reading stops
between them. For half a megabyte that was a tenth of what a large network takes.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

__all__ = ["SINK", "SINK_BYTES_LEAST", "BodySink"]

SINK = "stnkit.body"
"""Key of the scope under which the sink of a request is found, where it has one."""

SINK_BYTES_LEAST = 64 * 2**10


class BodySink:
    """Takes the body of one request whose length is known.

    Args:
        cycle: uvicorn's, which has what arrived before anybody asked.
        flow: uvicorn's, which may have stopped reading.
    """

    def __init__(self, cycle: Any, flow: Any) -> None:
        self._cycle = cycle
        self._flow = flow
        self._view: memoryview | None = None
        self._at = 0
        self._whole: asyncio.Future[bool] | None = None
        self._lost = False

    @property
    def open(self) -> bool:
        """Whether somebody waits for the body."""
        return self._view is not None

    async def read(self, size: int, lead: int = 0) -> memoryview | None:
        """Return the body once it is there.

        Args:
            size: its length, from the header.
            lead: bytes to leave free in front of it, so that what lies further back in it begins
                at a whole number.

        Returns:
            The body; None where the client has gone.
        """
        cycle = self._cycle
        if self._lost or cycle.disconnected:
            return None
        view = np.empty(lead + size, np.uint8).data[lead:]
        early, cycle.body = cycle.body, bytearray()
        self._at = len(early)
        view[: self._at] = early
        if cycle.more_body:
            self._view = view
            self._whole = asyncio.get_running_loop().create_future()
            self._flow.resume_reading()
            try:
                if not await self._whole:
                    return None
            finally:
                self._view = None
        return view if self._at == size else None

    def feed(self, part: bytes) -> None:
        """Take the next part; only while `open`."""
        assert self._view is not None
        end = self._at + len(part)
        self._view[self._at : end] = part
        self._at = end

    def finish(self, whole: bool) -> None:
        """End the wait.

        Args:
            whole: whether the body is there; else the client has gone.
        """
        self._lost = not whole
        if self._whole is not None and not self._whole.done():
            self._whole.set_result(whole)
