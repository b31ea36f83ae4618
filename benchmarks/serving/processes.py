"""Servers as processes of their own: started on free ports of the loopback, watched and stopped."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers.contender import UnavailableError

HOST = "127.0.0.1"
READY_S = 120.0
STOP_S = 15.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Command:
    """How a server is started.

    Attributes:
        argv: Program and arguments.
        ready: Path that answers 200 when the server is ready.
        port: Where it listens for HTTP.
        environment: Variables added to this process's own.
        folder: Where it runs; None for here.
    """

    argv: Sequence[str]
    ready: str
    port: int
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback on which nothing listens.

    Args:
        count: How many.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for it in sockets:
            it.bind((HOST, 0))
        return [it.getsockname()[1] for it in sockets]


class Server:
    """A running server, in a process group of its own.

    Args:
        command: How it was started.
        process: Its first process.
        log: Where its output goes.
    """

    def __init__(self, command: Command, process: subprocess.Popen[bytes], log: Path) -> None:
        self.command = command
        self.process = process
        self.log = log

    @property
    def port(self) -> int:
        """Where it listens for HTTP."""
        return self.command.port

    def rss_bytes(self) -> int:
        """Return the memory that all its processes hold, bytes; shared pages count in each."""
        return sum(int(fields[21]) for fields in self._stats()) * _PAGE_BYTES

    def cpu_s(self) -> float:
        """Return the processor time that all its processes have taken, s."""
        return sum(int(fields[11]) + int(fields[12]) for fields in self._stats()) / _TICKS

    def last_words(self) -> str:
        """Return the end of its output, on one line."""
        lines = self.log.read_text("utf-8", "replace").strip().splitlines()[-3:]
        return " ".join(" ".join(lines).split())[-300:] or "it said nothing"

    def _stats(self) -> Iterator[list[str]]:
        group = str(self.process.pid)
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                # What follows the name, which may hold blanks: state, parent, group, ...
                fields = path.read_text("ascii", "replace").rpartition(")")[2].split()
                if fields[2] == group:
                    yield fields


@contextlib.contextmanager
def running(command: Command, log: Path) -> Iterator[Server]:
    """Start a server, wait until it is ready, and stop it at the end.

    Args:
        command: How.
        log: File for its output.

    Raises:
        UnavailableError: It ends or is not ready in time; says its last words.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                list(command.argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **command.environment},
                cwd=command.folder,
                start_new_session=True,
            )
        except OSError as exc:
            raise UnavailableError(f"it cannot be started: {exc}") from exc
        server = Server(command, process, log)
        try:
            _wait(server)
            yield server
        finally:
            _stop(process)


def _wait(server: Server) -> None:
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        if server.process.poll() is not None:
            raise UnavailableError(
                f"it ended with {server.process.returncode}: {server.last_words()}"
            )
        if status_of(server.port, server.command.ready) == 200:
            return
        time.sleep(0.1)
    raise UnavailableError(f"it was not ready within {READY_S:.0f} s: {server.last_words()}")


def status_of(port: int, path: str) -> int | None:
    """Return the HTTP status of a path, or None where nothing answers.

    Args:
        port: Of the loopback.
        path: From the slash on.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process group: politely, and then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        # Members of the group may outlive the first process, whose number stays theirs.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
