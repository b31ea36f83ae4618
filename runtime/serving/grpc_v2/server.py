"""Serve over gRPC, on an event loop of its own in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import grpc

from stnkit.runtime.errors import InputError, one_line
from stnkit.runtime.serving.grpc_v2.calls import Receiver
from stnkit.runtime.serving.grpc_v2.contract import Core
from stnkit.runtime.serving.grpc_v2.service import Service
from stnkit.runtime.serving.grpc_v2.streams import Streams
from stnkit.runtime.serving.limits import Limits
from stnkit.runtime.serving.listening import check_certificate, listen

__all__ = ["GrpcServer"]

_FRAMING_BYTES = 64 * 2**10
"""What a message may be longer than a body: the names around its tensors."""

_KEEPALIVE_MS = 60_000
_KEEPALIVE_ANSWER_MS = 20_000
_STREAMS_MAX = 256
"""Calls at once on one connection; further ones wait at the client."""

_HANDLERS_S = 1.0
"""How long handlers whose calls have ended may take to end."""

_OPTION = "--grpc-port"
_START_TIMEOUT_S = 30.0


def _options(limits: Limits) -> list[tuple[str, int]]:
    return [
        # Else a second server on the same port starts, and gets half of the connections.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", limits.body_bytes_max + _FRAMING_BYTES),
        ("grpc.max_send_message_length", -1),
        # gRPC's own decompression has no bound.
        ("grpc.per_message_decompression", 0),
        ("grpc.max_metadata_size", limits.header_bytes_max // 2),
        ("grpc.absolute_max_metadata_size", limits.header_bytes_max),
        ("grpc.max_concurrent_streams", _STREAMS_MAX),
        ("grpc.max_allowed_incoming_connections", limits.connections_max),
        ("grpc.max_connection_idle_ms", round(limits.idle_timeout_s * 1000)),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_ANSWER_MS),
        ("grpc.server_handshake_timeout_ms", round(limits.receive_timeout_s * 1000)),
    ]


class GrpcServer:
    """The protocol's gRPC half.

    Args:
        core: answers the requests; its coroutines run on this server's event loop.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._grace_s = 0.0

    def start(self, host: str, port: int, tls: tuple[Path, Path] | None = None) -> int:
        """Start to serve.

        Args:
            host: address to listen at.
            port: port to listen at; 0 for any that is free.
            tls: files of the certificate and its key, in PEM; None serves without TLS.

        Returns:
            The port.

        Raises:
            InputError: the address cannot be listened at, or the certificate cannot be used.
        """
        credentials = None if tls is None else _credentials(*tls)
        # gRPC would write lines of its own to the error output, and not say what is wrong.
        listen(host, port, _OPTION).close()
        started: Future[int] = Future()
        self._thread = threading.Thread(
            target=self._run,
            args=(host, port, credentials, started),
            name="stnkit-grpc",
            daemon=True,
        )
        self._thread.start()
        return started.result(_START_TIMEOUT_S)

    def stop(self, grace_s: float = 10.0) -> None:
        """Take no new calls, answer those that are there, and end; blocks.

        Args:
            grace_s: seconds after which calls that are not answered are cancelled.
        """
        loop, stop, thread = self._loop, self._stop, self._thread
        if loop is None or stop is None or thread is None:
            return
        self._grace_s = grace_s
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(stop.set)
        thread.join()
        self._loop = self._stop = self._thread = None

    def _run(self, host: str, port: int, credentials: Any, started: Future[int]) -> None:
        # Not asyncio.run: where uvloop is installed as the policy, it would make one of its loops,
        # on which gRPC is slower.
        loop = asyncio.SelectorEventLoop()
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._serve(host, port, credentials, started))
        except BaseException as exc:
            if started.done():
                raise
            started.set_exception(exc)
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            loop.close()

    async def _serve(self, host: str, port: int, credentials: Any, started: Future[int]) -> None:
        limits = self._core.limits
        receiver = Receiver(limits)
        service = Service(self._core, receiver)
        streams = Streams(self._core, receiver, service)
        server = grpc.aio.server(
            options=_options(limits), maximum_concurrent_rpcs=limits.connections_max
        )
        for part in (service, streams):
            server.add_generic_rpc_handlers(
                tuple(
                    grpc.method_handlers_generic_handler(name, handlers)
                    for name, handlers in part.handlers().items()
                )
            )
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if credentials is None:
                bound = server.add_insecure_port(address)
            else:
                bound = server.add_secure_port(address, credentials)
        except RuntimeError as exc:
            raise InputError(
                f"gRPC cannot listen on {one_line(host)} port {port}: expected an address and a "
                f"free port of this machine; choose others with --host and {_OPTION}"
            ) from exc
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        await server.start()
        started.set_result(bound)
        await self._stop.wait()
        # What it has not handed over when it stops, gRPC ends with CANCELLED, as if the client had.
        await receiver.close()
        stopping = asyncio.ensure_future(server.stop(self._grace_s))
        # Only after the server has begun to refuse new calls.
        await asyncio.sleep(0)
        receiver.refuse()
        streams.close()
        await stopping
        # It does not wait for the handlers of calls that ended with an error.
        handlers = asyncio.all_tasks() - {asyncio.current_task()}
        if handlers:
            await asyncio.wait(handlers, timeout=_HANDLERS_S)


def _credentials(certificate: Path, key: Path) -> Any:
    # gRPC says of a wrong pair no more than that there is one.
    check_certificate(certificate, key)
    return grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
