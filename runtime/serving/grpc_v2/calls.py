"""Receive a call's message in time, and end a call with a status that says what was wrong.

A handler gets the message as bytes: protobuf's own errors would reach the client as INTERNAL, as if
the server had failed.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from typing import Any

import grpc

from stnkit.runtime.serving.errors import (
    DeadlineError,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    ServingError,
    TooLargeError,
)
from stnkit.runtime.serving.limits import Limits
from stnkit.runtime.serving.tracing import CARRIED

__all__ = ["Receiver", "abort", "carrier_of", "ending", "failure", "shorter_timeout_ms"]

_LOG = logging.getLogger("stnkit.serving")
_FAILED = "the server failed on this request"
_DETAILS_BYTES_MAX = 1000
"""Longest text of a status: it travels in a header, escaped, and clients keep 8 KiB for all."""

_QUIET_S = 0.05
_QUIET_TRIES = 20
"""No more calls come when none came for this time; so often it is looked for."""

_GZIP_MAGIC = b"\x1f\x8b"
_ZLIB_FIRST = 0x78
_INLINE_BYTES_MAX = 16 * 2**10
"""Longest compressed message that is read on the event loop."""


class Receiver:
    """Receives messages, within the limits on time and on bytes held at once.

    Args:
        limits: what clients may send.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._late: int | None = None
        self._refusing = asyncio.Event()
        self._held_bytes = 0
        # gRPC does not tell how long a message is before it is there.
        at_once = max(4, 4 * limits.bodies_bytes_max // limits.body_bytes_max)
        self._receiving = asyncio.Semaphore(at_once)

    async def close(self) -> None:
        """Keep further calls waiting, for `refuse`; return once no more come."""
        self._late = 0
        for _ in range(_QUIET_TRIES):
            late = self._late
            await asyncio.sleep(_QUIET_S)
            if self._late == late:
                break

    def refuse(self) -> None:
        """End the calls that came after `close`."""
        self._refusing.set()

    async def receive(self, context: Any) -> bytes:
        """Return the one message of a call; `release` is to be called with it afterwards.

        Args:
            context: the call's.

        Raises:
            InvalidRequestError: the call ended without a message, or it cannot be decompressed.
            TooLargeError: it is too long after decompression.
            NotReadyError: the server is about to end.
            OverloadedError: too many bytes are held already.
            DeadlineError: it did not arrive in time.
        """
        if self._late is not None:
            self._late += 1
            await self._refusing.wait()
            raise ending()
        self._check_room()
        try:
            async with asyncio.timeout(self._limits.receive_timeout_s), self._receiving:
                data = await context.read()
        except TimeoutError:
            raise DeadlineError(
                f"the request did not arrive within {self._limits.receive_timeout_s:g} s"
            ) from None
        if data is grpc.aio.EOF:
            raise InvalidRequestError("the call has no message: expected one")
        return await self.take(data)

    async def take(self, data: bytes) -> bytes:
        """Return a message without its compression; `release` is to be called with it afterwards.

        Args:
            data: the message as it came.

        Raises:
            InvalidRequestError: it cannot be decompressed.
            TooLargeError: it is too long then.
            OverloadedError: too many bytes are held already.
        """
        self._check_room()
        if _is_compressed(data):
            if len(data) <= _INLINE_BYTES_MAX:
                data = _decompressed(data, self._limits.body_bytes_max)
            else:
                data = await asyncio.to_thread(_decompressed, data, self._limits.body_bytes_max)
        self._held_bytes += len(data)
        return data

    def release(self, data: bytes) -> None:
        """Say that a message is no longer held.

        Args:
            data: what `receive` or `take` returned.
        """
        self._held_bytes -= len(data)

    def _check_room(self) -> None:
        if self._held_bytes > self._limits.bodies_bytes_max:
            raise OverloadedError(
                "the server holds as many bytes of requests as it may: try again later"
            )


def ending() -> NotReadyError:
    """Return what a client is told whose request is not taken any more."""
    return NotReadyError("the server is about to end: expected no more requests; ask another one")


def _is_compressed(data: bytes) -> bool:
    # gRPC does not say. A protobuf message cannot begin as gzip does, with field 3 of a wire type
    # that there is not; and none of this protocol's has the field 15 that zlib's first byte is.
    return data[:2] == _GZIP_MAGIC or (
        len(data) > 2 and data[0] == _ZLIB_FIRST and (data[0] << 8 | data[1]) % 31 == 0
    )


def _decompressed(data: bytes, bytes_max: int) -> bytes:
    reader = zlib.decompressobj(wbits=zlib.MAX_WBITS + 32)  # gzip or zlib
    try:
        found = reader.decompress(data, bytes_max + 1)
    except zlib.error as exc:
        raise InvalidRequestError(
            "the request's compression cannot be read: expected gzip or deflate"
        ) from exc
    if len(found) > bytes_max:
        raise TooLargeError(
            f"the request has more than {bytes_max} bytes after decompression: expected at most as "
            "many"
        )
    if not reader.eof:
        raise InvalidRequestError("the request's compression ends too early")
    return found


def shorter_timeout_ms(context: Any, timeout_ms: float | None) -> float | None:
    """Return the time left to a request.

    Args:
        context: the call's, with the deadline that the client gave it.
        timeout_ms: what the request itself says; None for nothing.

    Raises:
        DeadlineError: no time is left.
    """
    remaining_s = context.time_remaining()
    if remaining_s is None:
        return timeout_ms
    if remaining_s <= 0:
        raise DeadlineError("the call's deadline was over before the request was read")
    remaining_ms: float = remaining_s * 1000
    return remaining_ms if timeout_ms is None else min(timeout_ms, remaining_ms)


def failure(error: BaseException, method: str) -> tuple[grpc.StatusCode, str]:
    """Return the status that stands for an error, and log what nobody foresaw.

    Args:
        error: what was raised.
        method: name of the method, for the log.
    """
    if isinstance(error, ServingError):
        encoded = str(error).encode("utf-8", "replace")
        text = encoded[:_DETAILS_BYTES_MAX].decode("utf-8", "ignore")
        return grpc.StatusCode[error.grpc_code], text
    _LOG.error("gRPC %s failed", method, exc_info=error)
    return grpc.StatusCode.INTERNAL, _FAILED


async def abort(context: Any, error: BaseException, method: str) -> None:
    """End a call with the status that stands for an error; always raises gRPC's own exception.

    Args:
        context: the call's.
        error: what was raised.
        method: name of the method, for the log.
    """
    code, text = failure(error, method)
    trailing: tuple[tuple[str, str], ...] = ()
    if isinstance(error, ServingError) and error.retry_after_s is not None:
        # gRPC's own name for "not before": heeded by clients that were told to retry.
        trailing = (("grpc-retry-pushback-ms", str(error.retry_after_s * 1000)),)
    await context.abort(code, text, trailing)


def carrier_of(context: Any) -> dict[str, str]:
    """Return what a client sent to name its own span.

    Args:
        context: the call's.
    """
    return {
        key: value
        for key, value in context.invocation_metadata() or ()
        if key in CARRIED and isinstance(value, str)
    }
