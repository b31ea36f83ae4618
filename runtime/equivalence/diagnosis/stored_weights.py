"""What can be seen of a file's float32 constants alone: that they were rounded."""

from __future__ import annotations

from typing import Any

import numpy as np

from stnkit.runtime.file_constants import Constant

__all__ = ["in_float16", "lattice_of"]

_LEVELS_MAX = 256


def in_float16(constants: list[Constant]) -> bool:
    """Return whether every constant holds numbers of float16 alone, and not just round ones."""

    def round_trip(values: Any, bits: int) -> bool:
        kept = values.view(np.uint32) & np.uint32(0xFFFFFFFF << bits & 0xFFFFFFFF)
        return bool((kept == values.view(np.uint32)).all())

    def half(values: Any) -> bool:
        with np.errstate(over="ignore"):
            return bool((values.astype(np.float16).astype(np.float32) == values).all())

    # Numbers of 4 bits are halves and quarters: they say nothing.
    told = [item.values for item in constants if not round_trip(item.values, 19)]
    return bool(told) and all(half(values) for values in told)


def lattice_of(values: Any) -> float | None:
    """Return the step of the lattice that a kernel lies on, as int8 leaves it; None without."""
    levels = np.unique(values.astype(np.float64))
    if values.size < 64 or not 3 <= len(levels) <= min(_LEVELS_MAX, values.size // 2):
        return None
    step = float(np.abs(levels).max()) / 127
    off = np.abs(levels / step - np.round(levels / step)).max()
    return step if off < 1e-3 else None
