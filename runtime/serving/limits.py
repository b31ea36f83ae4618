"""Bound everything that a client controls."""

from __future__ import annotations

from dataclasses import dataclass, fields

from stnkit.runtime.errors import InputError

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """What a server accepts; every one is checked before memory is taken for it.

    Attributes:
        body_bytes_max: longest body of a request, also after decompression.
        bodies_bytes_max: bodies held at once, all connections together.
        json_bytes_max: longest JSON; a parsed number takes up to ten times its text.
        header_bytes_max: longest request line and headers together.
        tensors_max: inputs, outputs or parameters of one request.
        text_length_max: characters of a name or an id.
        rank_max: dimensions of a tensor.
        connections_max: open connections, each protocol for itself.
        receive_timeout_s: seconds within which a whole request must have arrived.
        idle_timeout_s: seconds after which a connection without a request is closed.
        image_pixels_max: pixels of an image that is decoded.
    """

    body_bytes_max: int = 64 * 2**20
    bodies_bytes_max: int = 512 * 2**20
    json_bytes_max: int = 16 * 2**20
    header_bytes_max: int = 32 * 2**10
    tensors_max: int = 64
    text_length_max: int = 256
    rank_max: int = 8
    connections_max: int = 1024
    receive_timeout_s: float = 30.0
    idle_timeout_s: float = 60.0
    image_pixels_max: int = 16 * 10**6

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not value > 0:
                raise InputError(f"{item.name} is {value}: expected more than 0")
