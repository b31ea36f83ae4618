"""Open the sockets of a server, and close them without losing who has just connected."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import ssl
import struct
import sys
from pathlib import Path

from stnkit.runtime.errors import InputError, one_line

__all__ = ["check_certificate", "listen", "refuse_connections"]

_BACKLOG = 2048

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
# Classic BPF, which sees a packet from its TCP header on: code, jump if true, jump if false, value.
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte of flags
    (0x54, 0, 0, 0x12),  # SYN and ACK of it
    (0x15, 0, 1, 0x02),  # SYN alone: a new connection
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # take the packet
)


def listen(host: str, port: int, option: str) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: name or address of this machine.
        port: 0 for any free one.
        option: the command line's option for the port, for the message.

    Raises:
        InputError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except (OSError, UnicodeError) as exc:  # the latter for a name that can be none
        listener.close()
        reason = (exc.strerror if isinstance(exc, OSError) else None) or exc
        raise InputError(
            f"the server cannot listen on {one_line(host)} port {port} ({reason}): expected an "
            f"address and a free port of this machine; choose others with --host and {option}"
        ) from exc
    return listener


def refuse_connections(listener: socket.socket) -> None:
    """Let no new connection begin; those that have begun are still established and accepted.

    Closing the socket would reset what the system has established and the server has not accepted
    yet, with a request on it perhaps. A client that comes later tries again after a second, and
    learns that nobody listens any more. Does nothing but on Linux.

    Args:
        listener: a socket that listens.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *it) for it in _DROP_SYN))
    with contextlib.suppress(OSError):  # a sandbox that knows no filters
        listener.setsockopt(
            socket.SOL_SOCKET,
            _SO_ATTACH_FILTER,
            struct.pack("HP", len(_DROP_SYN), ctypes.addressof(program)),
        )


def check_certificate(certificate: Path, key: Path) -> None:
    """Check that a certificate and a key can be used.

    Args:
        certificate: PEM file of the chain.
        key: PEM file of the private key.

    Raises:
        InputError: they cannot.
    """
    try:
        # Without a password OpenSSL would ask the terminal for one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except OSError as exc:  # ssl.SSLError is one
        raise InputError(
            f"the certificate or its key cannot be used ({one_line(exc)}): expected PEM files "
            "that belong together, the key without a password"
        ) from exc
