"""Read protobuf messages field by field, with every length checked.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

from stnkit.runtime.errors import InputError

__all__ = [
    "BYTES",
    "VARINT",
    "bytes_field",
    "fields",
    "integers",
    "key",
    "signed",
    "text",
    "varint_field",
]

VARINT = 0
BYTES = 2
_FIXED_BYTES = {1: 8, 5: 4}
_VARINT_BYTES_MAX = 10


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for count in range(_VARINT_BYTES_MAX):
        if position + count >= len(data):
            raise InputError("a protobuf number ends after the end of its message: file truncated?")
        byte = data[position + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value & (2**64 - 1), position + count + 1
    raise InputError("a protobuf number is longer than 10 bytes: expected a protobuf file")


def fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yield the fields of one message in the order of the file.

    Args:
        data: the message.

    Yields:
        (field number, wire type, value): an unsigned int for wire type 0, a view into the
        message for all others. No content is copied.

    Raises:
        InputError: a truncated number, a length past the end, or an unknown wire type.
    """
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise InputError("a protobuf field has the number 0: expected a protobuf file")
        if wire == VARINT:
            value, position = _varint(data, position)
            yield number, wire, value
            continue
        if wire == BYTES:
            length, position = _varint(data, position)
        elif wire in _FIXED_BYTES:
            length = _FIXED_BYTES[wire]
        else:
            raise InputError(f"a protobuf field has wire type {wire}: expected 0, 1, 2 or 5")
        if length > len(data) - position:
            raise InputError(
                f"a protobuf field of {length} bytes has {len(data) - position} left: expected a "
                "whole file, is it truncated?"
            )
        yield number, wire, data[position : position + length]
        position += length


def signed(value: int) -> int:
    """Return a varint read as int64.

    Args:
        value: from 0 to 2**64 - 1.
    """
    return value - 2**64 if value >= 2**63 else value


def integers(wire: int, value: int | memoryview) -> list[int]:
    """Return the numbers of a repeated int64 field, packed or not.

    Args:
        wire: the field's wire type.
        value: the field's value.

    Raises:
        InputError: a truncated number.
    """
    if isinstance(value, int):
        return [signed(value)]
    if wire != BYTES:
        return []
    numbers, position = [], 0
    while position < len(value):
        number, position = _varint(value, position)
        numbers.append(signed(number))
    return numbers


def text(value: int | memoryview) -> str:
    """Return a string field.

    Args:
        value: the field's value.

    Raises:
        InputError: a number where a string was expected, or not UTF-8.
    """
    if isinstance(value, int):
        raise InputError("a protobuf field holds a number: expected a string")
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError as exc:
        raise InputError("a protobuf string is not UTF-8: expected a whole file") from exc


def _encoded(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def key(number: int, wire: int) -> bytes:
    """Return what stands in front of a field's value.

    Args:
        number: the field's number.
        wire: its wire type.
    """
    return _encoded(number << 3 | wire)


def varint_field(number: int, value: int) -> bytes:
    """Return one field of wire type 0.

    Args:
        number: the field's number.
        value: from 0 to 2**64 - 1.
    """
    return key(number, VARINT) + _encoded(value)


def bytes_field(number: int, content: bytes) -> bytes:
    """Return one field of wire type 2.

    Args:
        number: the field's number.
        content: a string or an embedded message.
    """
    return key(number, BYTES) + _encoded(len(content)) + content
