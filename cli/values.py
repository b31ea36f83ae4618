"""Turning the text of an option into a value, or into one clear line."""

from __future__ import annotations

import math
from pathlib import Path

from stnkit.runtime.equivalence.binding import Layout
from stnkit.runtime.errors import InputError


def batch_size(text: str) -> int | None:
    """Return the batch size that `--batch` names; None for "dynamic".

    Raises:
        InputError: If it is neither.
    """
    if text == "dynamic":
        return None
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 65536:
        return int(text)
    raise InputError(f"--batch is {text!r}: expected dynamic or a number from 1 to 65536")


def value_range(pair: tuple[float, float]) -> tuple[float, float]:
    """Return the pair of `--input-range` after checking it.

    Raises:
        InputError: If it is not two finite numbers in order.
    """
    low, high = pair
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"--input-range is {low} {high}: expected two numbers, the lower first")
    return low, high


def numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """Return the comma-separated numbers of an option; None where it was not given.

    Raises:
        InputError: If one is not a finite number.
    """
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = (math.nan,)
    if not all(math.isfinite(value) for value in values):
        raise InputError(f"{option} is {text!r}: expected numbers with commas, e.g. 0.5,0.5,0.5")
    return values


def integers(text: str, option: str, count: int) -> tuple[int, ...]:
    """Return the `count` positive integers of an option, with commas between them.

    Raises:
        InputError: If there are not as many, or one is not a positive integer.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != count or not all(
        part.isascii() and part.isdigit() and 1 <= int(part) <= 65536 for part in parts
    ):
        example = ",".join(("64", "64", "3")[:count])
        raise InputError(
            f"{option} is {text!r}: expected {count} numbers from 1 to 65536, e.g. {example}"
        )
    return tuple(int(part) for part in parts)


def absolute_tolerances(pairs: tuple[str, ...]) -> dict[str, float]:
    """Return the tolerances that `--atol KIND=VALUE` names, by kind.

    Raises:
        InputError: If one has another form or another kind.
    """
    found: dict[str, float] = {}
    for pair in pairs:
        kind, _, text = pair.partition("=")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if kind not in ("outputs", "theta", "warped") or not (math.isfinite(value) and value >= 0):
            raise InputError(
                f"--atol {pair}: expected outputs=VALUE, theta=VALUE or warped=VALUE with a number "
                ">= 0, e.g. outputs=1e-4"
            )
        found[kind] = value
    return found


def lines_of(path: Path, option: str) -> tuple[str, ...]:
    """Return the lines of a text file, without blank ones at its end.

    Raises:
        InputError: If it cannot be read, or is empty.
    """
    try:
        text = path.read_text("utf-8-sig")  # editors on Windows put a mark first
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(f"{option} {path}: cannot be read ({exc}): expected a text file") from exc
    lines = tuple(line.strip() for line in text.rstrip().splitlines())
    if not lines:
        raise InputError(f"{option} {path}: is empty: expected a name a line")
    return lines


def name_pairs(pairs: tuple[str, ...]) -> dict[str, str]:
    """Return the names that `--map A_NAME=B_NAME` pairs.

    Raises:
        InputError: If one has another form, or a name is paired twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        first, separator, second = pair.partition("=")
        if not (separator and first and second) or first in found:
            raise InputError(f"--map {pair}: expected A_NAME=B_NAME, each name of A once")
        found[first] = second
    return found


def layouts_by_number(pairs: tuple[str, ...], count: int) -> dict[int, Layout]:
    """Return the layouts that `--layout LETTER=nchw` names, by the number of the model.

    Args:
        pairs: The texts.
        count: How many models there are.

    Raises:
        InputError: If one has another form, or there is no such model.
    """
    known: dict[str, Layout] = {"nhwc": "nhwc", "nchw": "nchw"}
    letters = [chr(ord("A") + number) for number in range(min(count, 26))]
    found: dict[int, Layout] = {}
    for pair in pairs:
        letter, _, layout = pair.partition("=")
        if letter.upper() not in letters or layout.lower() not in known:
            raise InputError(
                f"--layout {pair}: expected LETTER=nchw or LETTER=nhwc, with A for the first of "
                f"the {count} models and {letters[-1]} for the last"
            )
        found[letters.index(letter.upper())] = known[layout.lower()]
    return found


def tolerances_by_name(pairs: tuple[str, ...]) -> dict[str, float]:
    """Return the tolerances that `--atol NAME=VALUE` gives, by name.

    Raises:
        InputError: If one has another form.
    """
    found: dict[str, float] = {}
    for pair in pairs:
        name, _, text = pair.rpartition("=")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not name or not (math.isfinite(value) and value >= 0):
            raise InputError(
                f"--atol {pair}: expected NAME=VALUE with a number >= 0, e.g. outputs=1e-4"
            )
        found[name] = value
    return found
