"""HTTP as bytes on a socket: what no well-behaved client would send can be sent."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One answer of the server, its framing already checked."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def request(
    method: str, path: str, body: bytes = b"", headers: Iterable[tuple[str, str]] = ()
) -> bytes:
    """Return a request; `Content-Length` is added where there is a body and no length of it."""
    lines = [f"{method} {path} HTTP/1.1", "Host: test"]
    lines += [f"{name}: {value}" for name, value in headers]
    named = {name.lower() for name, _ in headers}
    if (body or method == "POST") and not named & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def infer_body(image: Any, **fields: Any) -> bytes:
    """Return the JSON of an inference request on an image [batch, height, width, channels]."""
    inputs = [
        {
            "name": "image",
            "datatype": "FP32",
            "shape": list(image.shape),
            "data": image.ravel().tolist(),
        }
    ]
    return json.dumps({"inputs": inputs, **fields}).encode()


class Client:
    """One connection."""

    def __init__(self, port: int, timeout_s: float = 10.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def send(self, data: bytes) -> bool:
        """Send; return whether the server took it."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def half_close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End the connection with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    def answer(self, *, head: bool = False) -> Answer | None:
        """Return the next answer; None where the server has closed the connection before one.

        Interim answers (1xx) are returned like others. What is cut off, or is no HTTP, fails.
        """
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                assert self._buffer == b"", f"cut off: {self._buffer[:200]!r}"
                return None
        top, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
        first, *lines = top.decode("ascii").split("\r\n")
        version, status, _reason = first.split(" ", 2)
        assert version == "HTTP/1.1", first
        headers = {}
        for line in lines:
            name, value = line.split(": ", 1)
            assert name.lower() not in headers, f"{name} stands twice"
            headers[name.lower()] = value
        assert "transfer-encoding" not in headers
        length = int(headers.get("content-length", "0"))
        if head or int(status) < 200:
            return Answer(int(status), headers, b"")
        while len(self._buffer) < length:
            assert self._more(), "the answer's body is cut off"
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Answer(int(status), headers, body)

    def answers(self) -> list[Answer]:
        """Return every answer until the server closes the connection."""
        found = []
        while (answer := self.answer()) is not None:
            found.append(answer)
        return found

    def closed_within(self, seconds: float) -> float:
        """Return after how many seconds the server closed; fail where it has not, or has spoken."""
        started = time.monotonic()
        self.socket.settimeout(seconds)
        try:
            assert not self._more(), f"it says {self._buffer[:200]!r}"
        except TimeoutError:
            raise AssertionError(f"the connection is open after {seconds} s") from None
        return time.monotonic() - started

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            return False
        self._buffer += data
        return bool(data)


def ask(port: int, data: bytes) -> Answer:
    """Send one request on a connection of its own, and return its answer."""
    with Client(port) as client:
        client.send(data)
        answer = client.answer()
        assert answer is not None, "the server closed the connection without an answer"
        return answer
