"""Checks of the arguments that several networks share."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any


def check_input_shape(
    shape: Any, *, channels: int | None = None, multiple: int = 1
) -> tuple[int, int, int]:
    """Return `(height, width, channels)` after checking it.

    Args:
        shape: Three positive integers.
        channels: How many channels there must be, if it matters.
        multiple: What height and width must be multiples of.

    Raises:
        ValueError: If it is something else.
    """
    expected = "(height, width, channels), three positive integers, e.g. (64, 64, 3)"
    if isinstance(shape, (str, bytes)) or not isinstance(shape, Sequence) or len(shape) != 3:
        raise ValueError(f"input_shape is {shape!r}: expected {expected}")
    sizes = [check_count(size, "input_shape", expected, given=shape) for size in shape]
    height, width, depth = sizes
    if channels is not None and depth != channels:
        raise ValueError(f"input_shape is {tuple(shape)!r}: expected {channels} channels")
    if height % multiple or width % multiple:
        raise ValueError(
            f"input_shape is {tuple(shape)!r}: expected a height and a width that are multiples of "
            f"{multiple}, because the network halves them and puts them together again"
        )
    return height, width, depth


def check_count(value: Any, name: str, expected: str = "", *, given: Any = None) -> int:
    """Return a positive integer after checking it.

    Args:
        value: The number.
        name: Name of the argument that it came in.
        expected: What the error says; by default "an integer of at least 1".
        given: What the error shows as received; the value itself if None.

    Raises:
        ValueError: If it is no integer, or below 1.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        received = value if given is None else given
        raise ValueError(
            f"{name} is {received!r}: expected {expected or 'an integer of at least 1'}"
        )
    return int(value)


def check_filters(filters: Any, least: int) -> tuple[int, ...]:
    """Return the channels of each level of a U-Net after checking them.

    Args:
        filters: Positive integers.
        least: How many levels there must be.

    Raises:
        ValueError: If they are something else, or fewer.
    """
    expected = f"the channels of {least} or more levels, e.g. (16, 32, 64)"
    if isinstance(filters, (str, bytes)) or not isinstance(filters, Sequence):
        raise ValueError(f"filters is {filters!r}: expected {expected}")
    if len(filters) < least:
        raise ValueError(f"filters is {filters!r}: expected {expected}")
    return tuple(check_count(count, "filters", expected, given=filters) for count in filters)


def check_choice(value: Any, name: str, choices: Sequence[str]) -> str:
    """Return `value` if it is one of the choices.

    Raises:
        ValueError: If it is not; the message lists them.
    """
    if value not in choices:
        known = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} is {value!r}: expected one of {known}")
    return str(value)
