"""Take the tensors' bytes out of a request before protobuf reads the rest.

A message of a few megabytes can hold millions of empty fields, for each of which a parser takes
memory: so they are counted first. And a parser copies the tensors, twice; here they are views.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from stnkit.runtime.serving.errors import InvalidRequestError, TooLargeError
from stnkit.runtime.serving.limits import Limits

__all__ = ["TYPED_BYTES_MAX", "split_request", "varint"]

TYPED_BYTES_MAX = 4 * 2**20
"""Longest request without its raw tensors: what protobuf holds takes up to 16 times its bytes."""

_INPUTS = 5
_RAW_INPUT_CONTENTS = 7
_CONTENTS = 5
_SMALL_BYTES = 16 * 2**10
"""Longest field that holds no tensor. Shorter inputs are not counted through: they hold little."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_SKIPPED = {_FIXED64: 8, _FIXED32: 4}


def varint(value: int) -> bytes:
    """Return a number as protobuf writes it.

    Args:
        value: 0 or more.
    """
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def split_request(data: bytes, limits: Limits) -> tuple[bytes, list[memoryview]]:
    """Split a `ModelInferRequest` into its tensors and the rest.

    Args:
        data: the message.
        limits: how many fields there may be.

    Returns:
        The message without `raw_input_contents`, and views of these, in order.

    Raises:
        InvalidRequestError: a field that goes past the end, or of an unknown kind.
        TooLargeError: too many fields, or too much that is not a raw tensor.
    """
    view = memoryview(data)
    end = len(data)
    raw: list[memoryview] = []
    pieces: list[memoryview] = []
    position = copied = 0
    # Parameters, inputs, outputs and raw tensors, each as many as there may be, and the names.
    fields_left = 4 * limits.tensors_max + 8
    while position < end:
        start = position
        number, wire, position, following = _field(data, position, end)
        fields_left -= 1
        if fields_left < 0:
            raise TooLargeError(
                f"the request has more than {4 * limits.tensors_max + 8} fields: expected at most "
                f"{limits.tensors_max} inputs, outputs and parameters each"
            )
        if wire == _LENGTH:
            if number == _RAW_INPUT_CONTENTS:
                raw.append(view[position:following])
                pieces.append(view[copied:start])
                copied = following
            elif following - position > _SMALL_BYTES:
                if number != _INPUTS:
                    raise _too_long(number, following - position)
                _count_input(data, position, following, limits)
        position = following
    pieces.append(view[copied:])
    rest = b"".join(pieces)
    if len(rest) > TYPED_BYTES_MAX:
        raise TooLargeError(
            f"the request has {len(rest)} bytes beside raw_input_contents: expected at most "
            f"{TYPED_BYTES_MAX}; send large tensors as raw_input_contents"
        )
    return rest, raw


def _count_input(data: bytes, position: int, end: int, limits: Limits) -> None:
    # Fields that are not packed stand one by one: sizes of the shape may.
    fields_left = limits.tensors_max + limits.rank_max + 8
    while position < end:
        number, wire, position, following = _field(data, position, end)
        fields_left -= 1
        if fields_left < 0:
            raise TooLargeError(
                f"an input has more than {limits.tensors_max + limits.rank_max + 8} fields: "
                f"expected at most {limits.rank_max} sizes and {limits.tensors_max} parameters"
            )
        if wire == _LENGTH and number != _CONTENTS and following - position > _SMALL_BYTES:
            raise _too_long(number, following - position)
        position = following


def _too_long(number: int, length: int) -> TooLargeError:
    return TooLargeError(
        f"field {number} of the request or of an input has {length} bytes: expected at most "
        f"{_SMALL_BYTES} in what holds no tensor"
    )


def _field(data: bytes, position: int, end: int) -> tuple[int, int, int, int]:
    """Return number, wire type, start of the content and start of the next field."""
    tag = data[position]
    position += 1
    if tag >= 0x80:
        tag, position = _long_varint(data, position - 1, end)
    number, wire = tag >> 3, tag & 7
    if wire == _LENGTH:
        if position < end and data[position] < 0x80:
            length = data[position]
            position += 1
        else:
            length, position = _long_varint(data, position, end)
        following = position + length
    elif wire == _VARINT:
        _, following = _long_varint(data, position, end)
    elif wire in _SKIPPED:
        following = position + _SKIPPED[wire]
    else:
        raise InvalidRequestError(
            f"the request cannot be read: a field has the wire type {wire}, expected 0, 1, 2 or 5"
        )
    if number == 0:
        raise InvalidRequestError("the request cannot be read: a field has the number 0")
    if following > end:
        raise InvalidRequestError(
            f"the request cannot be read: field {number} ends {following - end} bytes after the "
            "message"
        )
    return number, wire, position, following


def _long_varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise InvalidRequestError("the request cannot be read: it ends inside of a number")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise InvalidRequestError("the request cannot be read: a number has more than 10 bytes")
