"""Turning the text of an option into a value, or into one clear line."""

from __future__ import annotations

import math
from pathlib import Path

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
