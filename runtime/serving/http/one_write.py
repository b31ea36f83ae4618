"""Send an answer's headers together with its body."""

from __future__ import annotations

from typing import Any

__all__ = ["OneWrite"]

_COPIED_BYTES = 16 * 2**10


class OneWrite:
    """A transport that sends an answer's headers together with its body.

    uvicorn writes them one after the other, and each write is a system call and a packet that
    wakes the client: under load they took a quarter of the event loop's time.

    Args:
        transport: the connection's own.
    """

    __slots__ = ("_head", "_transport", "is_closing")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._head: bytes | None = None
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Keep the headers of an answer, and send them with what comes next."""
        head = self._head
        if head is not None:
            self._head = None
            self._transport.writelines((head, data))
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 1"):
            self._head = data
        else:  # "100 Continue" among them: the client waits for it
            self._transport.write(data)

    def write_whole(self, head: bytes, body: bytes) -> None:
        """Send an answer that is there in full.

        Args:
            head: its status and headers.
            body: its body.
        """
        if len(body) < _COPIED_BYTES:  # quicker than telling the system of two pieces
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))

    def flush(self) -> None:
        """Send what was kept: an answer without a body ended."""
        if self._head is not None:
            head, self._head = self._head, None
            self._transport.write(head)

    def close(self) -> None:
        """Send what was kept, then close."""
        if not self.is_closing():  # a lost connection is closed once more, and takes nothing
            self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
