"""Read JSON that came from outside, strictly, with errors that name the place.

Every check raises `BundleError` with the path of the value in the file, e.g.
`manifest.json: artifacts[0].file is "../x": expected a plain file name inside the bundle`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from stnkit.runtime.errors import BundleError, one_line

__all__ = ["JsonNode", "join_names", "parse_json"]

T = TypeVar("T")
_Option = TypeVar("_Option", bound=str)

_SHOWN_MAX = 80


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {json.dumps(key)} stands twice in one object")
        result[key] = value
    return result


def parse_json(data: bytes, *, name: str, bytes_max: int) -> Any:
    """Parse UTF-8 JSON without the liberties that Python's parser takes.

    Args:
        data: the file's content.
        name: the file's name, for messages.
        bytes_max: the longest content that is parsed.

    Returns:
        The value: dict, list, str, int, float, bool or None; every float is finite.

    Raises:
        BundleError: too long, not UTF-8, not JSON, NaN or infinite numbers, a key twice in one
            object, or nested too deeply.
    """
    if len(data) > bytes_max:
        raise BundleError(f"{name} has {len(data)} bytes: expected at most {bytes_max}")
    try:
        # Decoded here because json.loads would guess UTF-16 and UTF-32, and skip a byte order mark.
        return json.loads(
            data.decode("utf-8"),
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            object_pairs_hook=_refuse_duplicates,
        )
    except RecursionError as exc:
        raise BundleError(f"{name} is nested too deeply: expected a few levels") from exc
    except ValueError as exc:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise BundleError(f"{name} is not strict UTF-8 JSON: {one_line(exc)}") from exc


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:_SHOWN_MAX]} is out of the range of a double")
    return value


class JsonNode:
    """One value of a parsed JSON document together with its path in it.

    Args:
        value: the parsed value.
        path: where it stands, e.g. `artifacts[0].file`; empty for the whole document.
        name: the file's name, for messages.
    """

    def __init__(self, value: Any, path: str = "", *, name: str) -> None:
        self.value = value
        self.path = path
        self._name = name

    def fail(self, expected: str) -> NoReturn:
        """Raise `BundleError` that says where the value stands, what it is and what was expected.

        Args:
            expected: what should have stood there.

        Raises:
            BundleError: always.
        """
        if isinstance(self.value, dict):
            shown = "an object"
        elif isinstance(self.value, list):
            shown = f"a list of {len(self.value)}"
        else:
            shown = json.dumps(self.value)
        if len(shown) > _SHOWN_MAX:
            shown = shown[: _SHOWN_MAX - 1] + "…"
        where = f"{self.path} is" if self.path else "the document is"
        raise BundleError(f"{self._name}: {where} {shown}: expected {expected}")

    def fields(self, *keys: str, may_have: Sequence[str] = ()) -> dict[str, JsonNode]:
        """Return the members of an object that must have exactly these keys.

        Args:
            *keys: the keys, every one required.
            may_have: further keys, which may be missing.

        Raises:
            BundleError: not an object, a missing key or an unknown one.
        """
        members = self.members()
        for key in keys:
            if key not in members:
                where = f"{self.path}.{key}" if self.path else key
                raise BundleError(f"{self._name}: {where} is missing: expected it to be there")
        for key, member in members.items():
            if key not in keys and key not in may_have:
                known = ", ".join([*keys, *may_have])
                raise BundleError(
                    f"{self._name}: {one_line(member.path)} is unknown: expected only {known}"
                )
        return members

    def members(self) -> dict[str, JsonNode]:
        """Return the members of an object with any keys.

        Raises:
            BundleError: not an object.
        """
        if not isinstance(self.value, dict):
            self.fail("an object")
        prefix = f"{self.path}." if self.path else ""
        return {k: JsonNode(v, f"{prefix}{k}", name=self._name) for k, v in self.value.items()}

    def items(self, *, least: int = 0, most: int = 10_000) -> list[JsonNode]:
        """Return the items of a list.

        Args:
            least: the smallest length allowed.
            most: the largest length allowed.

        Raises:
            BundleError: not a list, or of another length.
        """
        if not isinstance(self.value, list) or not least <= len(self.value) <= most:
            self.fail(f"a list of {least} to {most} items")
        return [JsonNode(v, f"{self.path}[{i}]", name=self._name) for i, v in enumerate(self.value)]

    def optional(self, read: Callable[[JsonNode], T]) -> T | None:
        """Return None for null, else what `read` makes of the value.

        Args:
            read: turns this node into the value.
        """
        return None if self.value is None else read(self)

    def text(self, pattern: str, expected: str) -> str:
        """Return a string that matches a pattern as a whole.

        Args:
            pattern: regular expression for the whole string.
            expected: what to say was expected.

        Raises:
            BundleError: not a string, or one that does not match.
        """
        if not isinstance(self.value, str) or re.fullmatch(pattern, self.value) is None:
            self.fail(expected)
        return self.value

    def choice(self, *options: _Option) -> _Option:
        """Return a string that is one of the options.

        Args:
            *options: the strings allowed.

        Raises:
            BundleError: anything else.
        """
        for option in options:
            if isinstance(self.value, str) and self.value == option:
                return option
        self.fail(f"one of {', '.join(options)}")

    def integer(self, *, least: int, most: int) -> int:
        """Return a whole number within bounds.

        Args:
            least: the smallest one allowed.
            most: the largest one allowed.

        Raises:
            BundleError: not a whole number (true and 1.0 are none), or out of bounds.
        """
        if type(self.value) is not int or not least <= self.value <= most:
            self.fail(f"a whole number from {least} to {most}")
        return self.value

    def number(self, *, least: float | None = None, above: float | None = None) -> float:
        """Return a finite number within bounds.

        Args:
            least: the smallest one allowed, None for any.
            above: the bound it must exceed, None for none.

        Raises:
            BundleError: not a number (true is none), not finite as a double, or out of bounds.
        """
        expected = "a number"
        if least is not None:
            expected = f"a number of at least {least:g}"
        if above is not None:
            expected = f"a number above {above:g}"
        if type(self.value) not in (int, float):
            self.fail(expected)
        try:
            value = float(self.value)
        except OverflowError:
            self.fail(expected)
        if (
            not math.isfinite(value)
            or (least is not None and value < least)
            or (above is not None and value <= above)
        ):
            self.fail(expected)
        return value


def join_names(names: Sequence[str]) -> str:
    """Return names as `"a", "b"` for a message.

    Args:
        names: any names.
    """
    return ", ".join(json.dumps(name) for name in names) or "none"
