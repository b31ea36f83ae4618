"""Answer the calls that go on: inference in a stream, and watching the server's health."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import grpc

from stnkit.runtime.serving.errors import NotFoundError
from stnkit.runtime.serving.grpc_v2.answers import stream_answer, stream_error
from stnkit.runtime.serving.grpc_v2.calls import (
    Receiver,
    abort,
    carrier_of,
    ending,
    failure,
    shorter_timeout_ms,
)
from stnkit.runtime.serving.grpc_v2.contract import Core
from stnkit.runtime.serving.grpc_v2.messages import (
    HEALTH_SERVICE,
    INFERENCE_SERVICE,
    METHODS,
    message_class,
    message_of,
)
from stnkit.runtime.serving.grpc_v2.requests import parse, parse_infer, to_request
from stnkit.runtime.serving.grpc_v2.service import Service

__all__ = ["Streams"]

_IN_FLIGHT_MAX = 16
"""Requests of one stream that are read and not answered; further ones wait at the client."""

_LINGER_S = 0.1
"""From a stream's last answer to its end. The connection may end with it, and a client that sends
on a connection that has ended does not read what it has received there."""

_WATCH_INTERVAL_S = 0.2
"""Between two looks at the health for those who watch it: the default drain is longer."""


class Streams:
    """The calls that go on until their client, or the server, ends them.

    Args:
        core: answers the requests.
        receiver: receives their messages.
        service: knows the server's health.
    """

    def __init__(self, core: Core, receiver: Receiver, service: Service) -> None:
        self._core = core
        self._receiver = receiver
        self._service = service
        self._closing = asyncio.Event()
        self._readers: set[asyncio.Task[bool]] = set()

    def handlers(self) -> dict[str, dict[str, Any]]:
        """Return service -> method -> handler."""
        return {
            INFERENCE_SERVICE: {
                "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self._stream)
            },
            HEALTH_SERVICE: {"Watch": grpc.stream_stream_rpc_method_handler(self._watch)},
        }

    def close(self) -> None:
        """Read no further requests; what was read is answered, then each stream ends."""
        self._closing.set()
        for reader in self._readers:
            reader.cancel()

    async def _stream(self, _requests: Any, context: Any) -> None:
        slots = asyncio.Semaphore(_IN_FLIGHT_MAX)
        answers: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
        reader = asyncio.create_task(self._read(context, slots, answers))
        self._readers.add(reader)
        task = None
        try:
            while (task := await answers.get()) is not None:
                await context.write(await task)
                slots.release()
            if self._closing.is_set():
                (all_read,) = await asyncio.gather(reader, return_exceptions=True)
                if all_read is not True:  # who waits for the rest's answers must learn of the end
                    await asyncio.sleep(_LINGER_S)
                    await abort(context, ending(), "ModelStreamInfer")
        finally:
            self._readers.discard(reader)
            reader.cancel()
            # What it raised is the client's end of the call, which the next write meets too.
            await asyncio.gather(reader, return_exceptions=True)
            if task is not None:
                task.cancel()
            while not answers.empty():
                if (task := answers.get_nowait()) is not None:
                    task.cancel()

    async def _read(
        self,
        context: Any,
        slots: asyncio.Semaphore,
        answers: asyncio.Queue[asyncio.Task[bytes] | None],
    ) -> bool:
        """Read requests; return whether the client said that it has no more."""
        try:
            while not self._closing.is_set():
                await slots.acquire()
                data = await context.read()
                if data is grpc.aio.EOF:
                    return True
                answers.put_nowait(asyncio.create_task(self._answer(data, context)))
            return False
        finally:
            answers.put_nowait(None)

    async def _answer(self, data: bytes, context: Any) -> bytes:
        request_id = ""
        held = b""
        try:
            held = await self._receiver.take(data)
            message, raw = parse_infer(held, self._core.limits)
            request_id = message.id[: self._core.limits.text_length_max]
            request = to_request(message, raw, self._core.limits)
            request.timeout_ms = shorter_timeout_ms(context, request.timeout_ms)
            if self._core.traced:
                request.carrier = carrier_of(context)
            return stream_answer(await self._core.infer(request))
        except Exception as exc:
            return stream_error(failure(exc, "ModelStreamInfer")[1], request_id)
        finally:
            self._receiver.release(held)

    async def _watch(self, _requests: Any, context: Any) -> None:
        request_name, answer_name = METHODS[HEALTH_SERVICE]["Watch"]
        data = b""
        try:
            data = await self._receiver.receive(context)
            wanted = parse(message_class(request_name), data, self._core.limits).service
        except Exception as exc:
            await abort(context, exc, "Watch")
            raise
        finally:
            self._receiver.release(data)
        said = ""
        while True:
            closing = self._closing.is_set()
            try:
                now = self._service.health(wanted)
            except NotFoundError:  # it may come into being, says the protocol
                now = "SERVICE_UNKNOWN"
            if now != said:
                await context.write(message_of(answer_name, {"status": now}).SerializeToString())
                said = now
            if closing:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(_WATCH_INTERVAL_S):
                    await self._closing.wait()
