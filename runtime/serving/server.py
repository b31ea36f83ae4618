"""Run the servers of both protocols in one process, and end without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from stnkit.runtime.errors import InputError, one_line
from stnkit.runtime.serving.core import ServingCore
from stnkit.runtime.serving.http.app import ServingApp
from stnkit.runtime.serving.http.bounded_protocol import bounded, close_slow, cut_off
from stnkit.runtime.serving.http.express import Express
from stnkit.runtime.serving.listening import check_certificate, listen, refuse_connections

__all__ = ["ServerOptions", "run_server"]

_LOG = logging.getLogger("stnkit.serving")

# The event loop and the model's threads take turns; the default of 5 ms is longer than a small
# model takes in all.
_SWITCH_INTERVAL_S = 0.0005
# A connection without a request may have one on its way: it is closed only after this.
_LINGER_S = 0.25
# How long a client has to agree to the end of its connection.
_GOODBYE_S = 1.0
# What runs longer than the grace time is waited for no more.
_CLOSE_S = 1.0


@dataclass(frozen=True)
class ServerOptions:
    """Where a server listens and how it ends.

    Attributes:
        host: address to listen on.
        http_port: 0 for any free one; None serves no HTTP.
        grpc_port: likewise for gRPC.
        certificate: PEM file of a certificate chain, for TLS.
        key: PEM file of its private key.
        drain_ms: how long the server still answers new requests after SIGTERM, so that who spreads
            them learns that it is no longer ready.
        grace_s: how long accepted requests have to be answered after that.
        log_requests: whether every request leaves a line in the log.
    """

    host: str = "127.0.0.1"
    http_port: int | None = 8000
    grpc_port: int | None = 8001
    certificate: Path | None = None
    key: Path | None = None
    drain_ms: float = 500.0
    grace_s: float = 30.0
    log_requests: bool = False

    def __post_init__(self) -> None:
        if self.http_port is None and self.grpc_port is None:
            raise InputError("neither HTTP nor gRPC is served: expected at least one port")
        if (self.certificate is None) != (self.key is None):
            raise InputError("TLS takes a certificate and its key: name both, or none")
        for path in (self.certificate, self.key):
            if path is not None and not path.is_file():
                raise InputError(f"{one_line(str(path))} is not a file: expected a PEM file")
        for name, value in (("drain_ms", self.drain_ms), ("grace_s", self.grace_s)):
            if not 0 <= value <= 86_400_000:
                raise InputError(f"{name} is {value:g}: expected 0 or more, at most one day")


def run_server(
    core: ServingCore,
    options: ServerOptions,
    announce: Callable[[str], None] = print,
    while_loading: contextlib.AbstractContextManager[None] | None = None,
) -> None:
    """Load the models, serve until SIGTERM or SIGINT, answer what was accepted, and return.

    Args:
        core: the models.
        options: where to listen.
        announce: is told each address, once it is served.
        while_loading: is entered while the models are loaded.

    Raises:
        InputError: a port that cannot be listened on, or a bad certificate.
        StnkitError: a bundle that cannot be served.
    """
    # First: what is wrong here is told before models are loaded for a minute.
    if options.certificate is not None and options.key is not None:
        check_certificate(options.certificate, options.key)
    if options.grpc_port:
        listen(options.host, options.grpc_port, "--grpc-port").close()
    listener = None
    if options.http_port is not None:
        listener = listen(options.host, options.http_port, "--http-port")
    try:
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        with _Ending() as ending:
            with while_loading or contextlib.nullcontext():
                core.open()
            try:
                with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                    runner.run(_serve(core, options, listener, announce, ending))
            finally:
                core.close(_CLOSE_S)
    finally:
        if listener is not None:
            listener.close()


class _Ending:
    """SIGTERM and SIGINT, from before the models are loaded until the process is about to end.

    A second one, whenever it comes, changes nothing of how the process ends. The event loop's own
    handlers would not be there before and after it.
    """

    def __init__(self) -> None:
        self._told = False
        self._before: dict[int, Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event: asyncio.Event | None = None

    def __enter__(self) -> _Ending:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *error: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_IGN if self._told else before)

    def event(self) -> asyncio.Event:
        """Return what is set by the next signal, or by one that was there already."""
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._told:
            self._event.set()
        return self._event

    def _on_signal(self, number: int, frame: object) -> None:
        self._told = True
        if self._loop is None or self._event is None:
            raise SystemExit(0)  # nothing was accepted yet
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._event.set)


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:  # it has no wheel for some systems
        return None
    return uvloop.new_event_loop


class _Uvicorn(uvicorn.Server):
    """uvicorn's server, whose signals and slow clients are seen to here."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            close_slow(self.server_state.connections)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let requests arrive that are on their way, then end as uvicorn does.

        uvicorn closes connections that have no request at this moment. One may have been sent, on
        a new connection above all: the system establishes it before the event loop accepts it.
        """
        for listener in sockets or ():
            refuse_connections(listener)
        await asyncio.sleep(_LINGER_S)
        ending_stuck = asyncio.create_task(self._end_stuck())
        try:
            await super().shutdown(sockets)
            cut_off(self.server_state.connections)
        finally:
            ending_stuck.cancel()

    async def _end_stuck(self) -> None:
        """End connections that are closed and whose clients do not close their side, as in TLS."""
        closed_at: dict[Any, float] = {}
        while True:
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                transport: Any = connection.transport
                if transport.is_closing() and not transport.get_write_buffer_size():
                    if now - closed_at.setdefault(connection, now) > _GOODBYE_S:
                        transport.abort()
            await asyncio.sleep(0.1)


async def _serve(
    core: ServingCore,
    options: ServerOptions,
    listener: socket.socket | None,
    announce: Callable[[str], None],
    signals: _Ending,
) -> None:
    ending = signals.event()
    tls = None
    if options.certificate is not None and options.key is not None:
        tls = (options.certificate, options.key)
    scheme, grpc_scheme = ("https", "grpcs") if tls else ("http", "grpc")
    grpc_server = http_server = None
    serving: asyncio.Task[None] | None = None
    if options.grpc_port is not None:
        # Not above: where it is not served it costs neither time nor memory.
        from stnkit.runtime.serving.grpc_v2 import GrpcServer

        grpc_server = GrpcServer(core)
        port = await asyncio.to_thread(grpc_server.start, options.host, options.grpc_port, tls)
        announce(f"{grpc_scheme}://{_shown(options.host)}:{port}")
    try:
        if listener is not None:
            http_server = _Uvicorn(_config(core, options))
            serving = asyncio.create_task(http_server.serve(sockets=[listener]))
            while not http_server.started and not serving.done():
                await asyncio.sleep(0.005)
            port = listener.getsockname()[1]
            announce(f"{scheme}://{_shown(options.host)}:{port}")
        waiting = {asyncio.create_task(ending.wait())}
        await asyncio.wait(
            waiting | ({serving} if serving else set()), return_when=asyncio.FIRST_COMPLETED
        )
        await _drain(core, options, ending)
    finally:
        ends: list[Any] = []
        if grpc_server is not None:
            ends.append(asyncio.to_thread(grpc_server.stop, options.grace_s))
        if serving is not None and http_server is not None:
            http_server.should_exit = True
            ends.append(serving)
        await asyncio.gather(*ends)
    _LOG.info("ended")


async def _drain(core: ServingCore, options: ServerOptions, ending: asyncio.Event) -> None:
    """Be no longer ready and go on answering for a while; a second signal ends the wait."""
    ending.clear()
    core.drain()
    _LOG.info("ending: no longer ready, answering what is accepted")
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ending.wait(), options.drain_ms / 1000)


def _config(core: ServingCore, options: ServerOptions) -> uvicorn.Config:
    app: Any = ServingApp(core, log_requests=options.log_requests)
    # It takes fractions of a second too, and says that it does not.
    grace_s: Any = options.grace_s
    config = uvicorn.Config(
        app,
        http=bounded(core.limits, Express(app)),
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=grace_s,
        ssl_certfile=options.certificate,
        ssl_keyfile=options.key,
    )
    config.load()
    return config


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
