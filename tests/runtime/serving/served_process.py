"""`stnkit serve` as a process, and clients that send to it as fast as they can."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

PATIENCE_S = 60

# What a console script does, behind a hook that makes packages look as if they were not installed.
LAUNCHER = """
import sys
from importlib.machinery import PathFinder

missing = set(sys.argv.pop(1).split(",")) - {""}

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in missing else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
from stnkit.cli.main import main
sys.argv[0] = "stnkit"
main()
"""


class ServedProcess:
    """A server that is up when this returns.

    Args:
        arguments: of `stnkit serve`; ports are free ones unless they name others.
        folder: where its output is kept.
        missing: packages that look as if they were not installed, with commas between.
        environment: variables on top of ours.
    """

    def __init__(
        self,
        arguments: Sequence[Any],
        folder: Path,
        *,
        missing: str = "",
        environment: dict[str, str] | None = None,
    ) -> None:
        options = [str(it) for it in arguments]
        for name, value in (("--http-port", "0"), ("--grpc-port", "-1")):
            if name not in options:
                options += [name, value]
        self.log_file = folder / f"server-{time.monotonic_ns()}.log"
        self.started = time.monotonic()
        with self.log_file.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", LAUNCHER, missing, "serve", *options],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **(environment or {})},
            )
        self.addresses: dict[str, Any] = {}
        wanted = sum(
            options[options.index(name) + 1] != "-1" for name in ("--http-port", "--grpc-port")
        )
        assert self.process.stdout is not None
        while len(self.addresses) < wanted:
            line = self.process.stdout.readline()
            assert line.startswith("serving on "), (line, self.log)
            url = urlsplit(line.removeprefix("serving on ").strip())
            self.addresses[url.scheme] = url

    @property
    def log(self) -> str:
        """What it wrote to stderr so far."""
        return self.log_file.read_text()

    @property
    def port(self) -> int:
        """The port of HTTP, with TLS or without."""
        return int((self.addresses.get("http") or self.addresses["https"]).port)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = PATIENCE_S,
    ) -> tuple[int, dict[str, str], bytes]:
        """Send one request on a connection of its own; return status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def send(self, number: int = signal.SIGTERM) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def end(self) -> int:
        """Return the exit code, once the process has ended."""
        return self.process.wait(PATIENCE_S)

    def resident_bytes(self) -> int:
        """Return how much memory it has (Linux)."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")

    def close(self) -> None:
        """End it, whatever its state."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def infer_body(name: str, image: Any) -> tuple[bytes, bytes]:
    """Return a request for one input in binary form: its headers' block and its body."""
    value = np.ascontiguousarray(image)
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": name,
                    "datatype": {"float32": "FP32", "uint8": "UINT8"}[str(value.dtype)],
                    "shape": list(value.shape),
                    "parameters": {"binary_data_size": value.nbytes},
                }
            ]
        }
    ).encode()
    body = head + value.tobytes()
    headers = (
        f"host: x\r\ncontent-length: {len(body)}\r\n"
        f"inference-header-content-length: {len(head)}\r\n\r\n"
    )
    return headers.encode(), body


class Load:
    """Clients that send one request after the other, each on its own connection.

    A request that was sent whole and got no answer is lost, unless the server had announced the end
    of the connection. A client ends when nobody listens any more, or when it is told to.

    Args:
        port: the server's.
        model: name of the model.
        requests: a client each: input's name and value.
        expected: a client each: what the first output has to be, nearly.
    """

    def __init__(
        self, port: int, model: str, requests: Sequence[tuple[str, Any]], expected: Sequence[Any]
    ) -> None:
        self.port = port
        self.answered = 0
        self.lost: list[str] = []
        self.wrong: list[str] = []
        self.statuses: dict[int, int] = {}
        self._stop = threading.Event()
        self._lock = threading.Lock()
        line = f"POST /v2/models/{model}/infer HTTP/1.1\r\n".encode()
        self._threads = []
        for (name, value), want in zip(requests, expected, strict=True):
            headers, body = infer_body(name, value)
            thread = threading.Thread(
                target=self._client, args=(line + headers + body, np.asarray(want))
            )
            self._threads.append(thread)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self.join()

    def join(self) -> None:
        """Wait for the clients."""
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def wait_answered(self, more: int) -> None:
        """Wait until some more answers have come."""
        until, wanted = time.monotonic() + PATIENCE_S, self.answered + more
        while self.answered < wanted:
            assert time.monotonic() < until, (self.answered, self.lost, self.wrong)
            time.sleep(0.005)

    def _client(self, request: bytes, expected: Any) -> None:
        connection: socket.socket | None = None
        try:
            while not self._stop.is_set():
                if connection is None:
                    try:
                        connection = socket.create_connection(
                            ("127.0.0.1", self.port), timeout=PATIENCE_S
                        )
                    except OSError:  # nobody listens any more
                        return
                    stream = connection.makefile("rb")
                try:
                    connection.sendall(request)
                    status, headers, body = read_answer(stream)
                except (OSError, EOFError) as exc:
                    with self._lock:
                        self.lost.append(repr(exc))
                    return
                self._note(status, headers, body, expected)
                if headers.get("connection") == "close":
                    connection.close()
                    connection = None
        finally:
            if connection is not None:
                with contextlib.suppress(OSError):
                    connection.close()

    def _note(self, status: int, headers: dict[str, str], body: bytes, expected: Any) -> None:
        problem = ""
        if status == 200:
            found = np.array(json.loads(body)["outputs"][0]["data"], np.float32)
            if not np.allclose(found, expected.ravel(), atol=1e-5):
                problem = f"{found} where {expected} was expected"
        with self._lock:
            self.answered += 1
            self.statuses[status] = self.statuses.get(status, 0) + 1
            if problem:
                self.wrong.append(problem)


def read_answer(stream: Any) -> tuple[int, dict[str, str], bytes]:
    """Read one answer from a connection.

    Raises:
        EOFError: the connection ended first.
    """
    line = stream.readline()
    if not line:
        raise EOFError("closed before the answer")
    status = int(line.split()[1])
    headers = {}
    for line in iter(stream.readline, b"\r\n"):
        if not line:
            raise EOFError("closed within the headers")
        name, value = line.decode().split(":", 1)
        headers[name.lower()] = value.strip()
    length = int(headers["content-length"])
    body = stream.read(length)
    if len(body) < length:
        raise EOFError("closed within the body")
    return status, headers, body


@contextlib.contextmanager
def processes(folder: Path) -> Iterator[Any]:
    """Yield what starts servers; all are ended in the end."""
    started: list[ServedProcess] = []

    def start(*arguments: Any, **options: Any) -> ServedProcess:
        started.append(ServedProcess(arguments, folder, **options))
        return started[-1]

    try:
        yield start
    finally:
        for it in started:
            it.close()
