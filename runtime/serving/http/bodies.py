"""Read the body of a request, within the server's limits."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from stnkit.runtime.serving.errors import (
    InvalidRequestError,
    NotReadyError,
    TooLargeError,
    UnsupportedError,
)
from stnkit.runtime.serving.http.body_sink import BodySink
from stnkit.runtime.serving.limits import Limits

__all__ = ["Bodies", "ClientGoneError", "Receive", "header", "lead_bytes"]

Receive = Callable[[], Awaitable[dict[str, Any]]]

# What zlib calls a gzip and a zlib stream.
_WINDOW_BITS = {b"gzip": 31, b"deflate": 15}

# A bomb of a kilobyte makes a megabyte: what comes out is counted in steps of this size.
_STEP_BYTES = 4 * 2**20


class ClientGoneError(Exception):
    """The client closed the connection: there is nobody to answer."""


class Bodies:
    """Reads bodies, and counts what all of them hold at once; for one event loop.

    Args:
        limits: how long one body may be, and all of them together.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.held_bytes = 0

    async def read_into(self, sink: BodySink, length: bytes, lead: int) -> tuple[memoryview, int]:
        """Read a large body, uncompressed, where its tensors are read from.

        Args:
            sink: what takes it.
            length: value of `Content-Length`.
            lead: see `BodySink.read`.

        Returns:
            As `read` does.

        Raises:
            ClientGoneError: the client went away.
            NotReadyError: all bodies together take too much at present.
            TooLargeError: it is longer than the limit.
        """
        held = _content_length(length)
        self.take(held)
        try:
            body = await sink.read(held, lead)
            if body is None:
                raise ClientGoneError
        except BaseException:
            self.release(held)
            raise
        return body, held

    async def read(
        self, receive: Receive, length: bytes | None, encoding: bytes | None
    ) -> tuple[bytes, int]:
        """Read a body whole.

        Args:
            receive: ASGI's.
            length: value of `Content-Length`, None without one.
            encoding: value of `Content-Encoding`, None without one.

        Returns:
            The body, decompressed, and the bytes to give back with `release` once it is done with.

        Raises:
            ClientGoneError: the client went away.
            InvalidRequestError: a damaged compressed body.
            NotReadyError: all bodies together take too much at present.
            TooLargeError: it is longer than the limit, or would be when decompressed.
            UnsupportedError: another compression than gzip and deflate.
        """
        held = 0 if length is None else _content_length(length)
        self.take(held)
        try:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            body: bytes = message.get("body", b"")
            if message.get("more_body"):
                parts, size = [body], len(body)
                while message.get("more_body"):
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError
                    part = message.get("body", b"")
                    parts.append(part)
                    size += len(part)
                    if size > held:  # a body that did not say how long it is
                        self._check(size)
                        self._take(size - held)
                        held = size
                body = b"".join(parts)
            elif len(body) > held:
                self._check(len(body))
                self._take(len(body) - held)
                held = len(body)
            encoding = b"identity" if encoding is None else encoding.strip().lower()
            if encoding != b"identity":
                engine = _engine(encoding)
                parts, size = [], 0
                while not engine.eof:
                    part = await asyncio.to_thread(_decompress, engine, body, encoding)
                    size += len(part)
                    if size > self._limits.body_bytes_max:
                        raise TooLargeError(
                            f"the request has more than {self._limits.body_bytes_max} bytes when "
                            "decompressed: expected at most that"
                        )
                    self._take(len(part))
                    held += len(part)
                    parts.append(part)
                    body = engine.unconsumed_tail
                    if not engine.eof and not body and len(part) < _STEP_BYTES:
                        raise InvalidRequestError("the request's compressed body is cut off")
                if engine.unused_data:
                    raise InvalidRequestError(
                        f"{len(engine.unused_data)} bytes follow the end of the request's "
                        "compressed body: expected none"
                    )
                body = b"".join(parts)
        except BaseException:
            self.release(held)
            raise
        return body, held

    def take(self, length: int) -> None:
        """Make room for a body that was announced.

        Args:
            length: bytes, to give back with `release` once it is done with.

        Raises:
            NotReadyError: all bodies together take too much at present.
            TooLargeError: it is longer than the limit.
        """
        self._check(length)
        self._take(length)

    def release(self, held: int) -> None:
        """Give back what was taken.

        Args:
            held: bytes.
        """
        self.held_bytes -= held

    def _take(self, count: int) -> None:
        if self.held_bytes + count > self._limits.bodies_bytes_max:
            raise NotReadyError(
                "the server holds as many bytes of requests as it may: try again later"
            )
        self.held_bytes += count

    def _check(self, size: int) -> None:
        if size > self._limits.body_bytes_max:
            raise TooLargeError(
                f"the request has {size} bytes or more: expected at most "
                f"{self._limits.body_bytes_max}"
            )


def _engine(encoding: bytes) -> Any:
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        raise UnsupportedError(
            "the request's Content-Encoding is not known: expected gzip, deflate or none"
        )
    return zlib.decompressobj(bits)


def _decompress(engine: Any, data: bytes, encoding: bytes) -> bytes:
    """Return the next bytes, few enough to be counted before there are more."""
    try:
        found: bytes = engine.decompress(data, _STEP_BYTES)
    except zlib.error as exc:
        raise InvalidRequestError(
            "the request's body is not what its Content-Encoding says: expected "
            f"{encoding.decode('latin-1')}"
        ) from exc
    return found


def _content_length(text: bytes) -> int:
    # The server in front has refused what is no number; other servers may not.
    if not text.isdigit() or len(text) > 19:
        raise InvalidRequestError("the request's Content-Length is not a number")
    return int(text)


def lead_bytes(json_length: bytes | None) -> int:
    """Return how many bytes in front of a body put its tensors at a whole multiple of 8.

    Args:
        json_length: value of the header `Inference-Header-Content-Length`, None without one.
    """
    if json_length is None or not json_length.isdigit():
        return 0
    return -int(json_length[-3:]) % 8  # a thousand is a multiple of eight


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """Return the first header of a name, None without one.

    Args:
        headers: ASGI's, with names in lower case.
        name: in lower case.
    """
    for key, value in headers:
        if key == name:
            return value
    return None
