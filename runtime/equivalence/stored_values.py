"""Are the weights in a file those of its source? What no probe reaches can still be wrong.

A filter that fires on one image in a thousand may hold a flipped bit while every probe agrees. The
constants of both sides are compared as they are stored. Converters transpose and fold them, so that
only one thing is said: a constant that has almost all values of one of the source's, but not all,
was damaged. One that has few was made by folding, and is left to the probes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stnkit.runtime.compare import Comparison, Tolerance
from stnkit.runtime.equivalence.subject import Subject
from stnkit.runtime.file_constants import Constant

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["CASE", "check_stored_values"]

CASE = "stored weights"
"""Name of the case under which a damaged constant is reported."""

_SMALLEST = 16  # elements of a constant that is looked at
_DAMAGED_MAX = 0.05  # part of the values that may be others: with more it is another constant
_TINY = 1e-30  # below it, values are zero to some runtimes
_ROUNDED = 1e-5  # relative
_SAMPLES, _MISSES_MAX = 8, 2  # a look at a few values tells most others apart


@dataclass(frozen=True)
class _Digest:
    """What does not depend on the order of the values."""

    size: int
    total: int
    squares: int


def check_stored_values(reference: Subject, candidate: Subject) -> list[Comparison]:
    """Return a failed comparison for every constant of a candidate that was damaged.

    Args:
        reference: the source.
        candidate: what should hold the same weights.

    Returns:
        The failures; none where all is well, or where one of the two does not show its constants.
    """
    known: set[_Digest] = set()
    sizes: set[int] = set()
    for constant in _large(reference.constants()):
        known.add(_digest(constant.values))
        sizes.add(constant.values.size)
    strange = [
        constant
        for constant in _large(candidate.constants())
        if constant.values.size in sizes and _digest(constant.values) not in known
    ]
    if not strange:
        return []
    output = candidate.outputs[0].name
    found: dict[str, Comparison] = {}
    for ours in _large(reference.constants()):
        for theirs in strange:
            if theirs.name in found or ours.values.size != theirs.values.size:
                continue
            missing = _missing(ours.values, theirs.values)
            if missing is not None:
                found[theirs.name] = _failure(output, ours.name, theirs, missing)
    return list(found.values())


def _large(constants: Iterable[Constant]) -> Iterator[Constant]:
    """Yield the constants whose values say something, with what means zero as zero."""
    import numpy as np

    for constant in constants:
        values = np.asarray(constant.values)
        if values.dtype != np.float32 or values.size < _SMALLEST:
            continue
        flat = values.reshape(-1)
        if not (np.abs(flat) > _TINY).all():
            flat = np.where(np.abs(flat) > _TINY, flat, np.float32(0)) + np.float32(0)
        yield Constant(constant.name, flat)


def _digest(values: npt.NDArray[Any]) -> _Digest:
    import numpy as np

    bits = values.view(np.uint32).astype(np.uint64)
    mixed = bits * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    return _Digest(values.size, int(mixed.sum()), int((mixed * mixed).sum()))


def _missing(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """Return the places of a candidate's values that the source's constant does not have.

    None where it is not the same constant with a few values changed.
    """
    import numpy as np

    told = np.flatnonzero(theirs)
    if told.size < _SMALLEST:
        return None
    misses = 0
    for place in told[:: max(1, told.size // _SAMPLES)]:
        misses += not (ours == theirs[place]).any()
        if misses > _MISSES_MAX:
            return None
    if np.unique(ours).size < _SMALLEST:
        return None  # of few values the same few in another number say nothing
    absent = np.flatnonzero(~np.isin(theirs, ours))
    if not 0 < absent.size <= _DAMAGED_MAX * theirs.size:
        return None
    lost = ours[~np.isin(ours, theirs)]
    return (
        None
        if _only_rounded(theirs[absent], lost if lost.size == absent.size else ours)
        else absent
    )


def _only_rounded(new: npt.NDArray[Any], old: npt.NDArray[Any]) -> bool:
    """Return whether every new value is an old one but for its last digits.

    Two converters that fold the same normalisation round some of the products otherwise.
    """
    import numpy as np

    new, old = np.sort(new).astype(np.float64), np.sort(old).astype(np.float64)
    if new.size == old.size:
        nearest = np.abs(new - old)
    else:
        right = np.clip(np.searchsorted(old, new), 1, old.size - 1)
        nearest = np.minimum(np.abs(new - old[right]), np.abs(new - old[right - 1]))
    return bool((nearest <= _ROUNDED * np.abs(new)).all())


def _failure(output: str, ours: str, theirs: Constant, missing: npt.NDArray[Any]) -> Comparison:
    first = int(missing[0])
    return Comparison(
        output,
        "output",
        CASE,
        tuple(theirs.values.shape),
        Tolerance(0.0),
        passed=False,
        reason=f"{missing.size} of the {theirs.values.size} values stored in {theirs.name!r} are "
        f"not among those of the source's {ours!r}, the first, {theirs.values[first]:.9g}, as "
        f"number {first}: the file is damaged, or its weights were changed",
    )
