"""Numbers that were stored or computed with fewer digits than float32 has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from stnkit.runtime.equivalence.diagnosis.case import Case, Claim, values_of
from stnkit.runtime.equivalence.diagnosis.stored_weights import in_float16, lattice_of
from stnkit.runtime.equivalence.file_subject import FileSubject
from stnkit.runtime.equivalence.stored_values import CASE
from stnkit.runtime.equivalence.subject import Subject
from stnkit.runtime.file_constants import float_constants

__all__ = ["damage_claims", "precision_claims"]

_DISTINCT_MAX = 256
_HALF = 2.0**-11  # rounding of float16, relative
_PLAUSIBLE = 0.3  # largest error, relative to the largest value, that few digits can do


def damage_claims(case: Case) -> Iterator[Claim]:
    """Yield that constants in the file are not those of the source."""
    for item in case.comparisons:
        if item.case == CASE and item.reason is not None:
            yield Claim(
                "damaged_weights",
                "weights in the file are not the source's: copy or convert it again",
                item.reason,
                0.97,
            )
            return


def precision_claims(case: Case) -> Iterator[Claim]:
    """Yield what explains small errors everywhere: few bits in values or in weights."""
    if not case.plain:
        return
    if case.candidate.precision == "int8":
        yield from _quantised_transformer(case)
    expected, got = case.plain[0]
    there, here = values_of(expected), values_of(got)
    for name in case.wrong_tensors():
        if name not in here or there[name].shape != here[name].shape:
            continue
        a, b = there[name].ravel(), here[name].ravel()
        if a.dtype.kind != "f" or not np.isfinite(b).all():
            continue
        yield from _few_values(name, a, b)
        yield from _half_values(name, a, b)
    yield from _weights(case, there, here)


def _quantised_transformer(case: Case) -> Iterator[Claim]:
    """Yield that a transformer was quantised along with the rest of the network."""
    moved = [item for item in case.failed("theta") if item.pixels is not None]
    wrong = moved or case.failed("warped")
    if not wrong:
        return
    evidence = (
        f"theta reads up to {max(item.pixels or 0.0 for item in moved):.2g} px away"
        if moved
        else f"{wrong[0].tensor!r} is off by up to {wrong[0].max_abs or 0.0:.2g}"
    )
    yield Claim(
        "quantised_transformer",
        f"{wrong[0].tensor!r} is too coarse on its grid of integers: keep theta, grid and sampler "
        "in float when the network is quantised, and the last layers of the localisation network",
        evidence,
        0.995,
    )


def _few_values(name: str, a: Any, b: Any) -> Iterator[Claim]:
    distinct, of_source = len(np.unique(b)), len(np.unique(a))
    if not (2 < distinct <= _DISTINCT_MAX and of_source > 4 * distinct):
        return
    values = np.unique(b).astype(np.float64)
    steps = np.diff(values)
    step = float(steps.min())
    on_lattice = float(np.abs(steps / step - np.round(steps / step)).max()) < 0.02
    if on_lattice and float(np.abs(b - a).max()) < 64 * step:
        yield Claim(
            "quantised",
            f"{name!r} has been quantised: it takes {distinct} values, {step:.3g} apart; compare "
            "with the tolerance of a quantised model, or export in float32",
            f"{distinct} values where the source has {of_source}, all on one lattice",
            0.99,
        )


def _half_values(name: str, a: Any, b: Any) -> Iterator[Claim]:
    def coarse(values: Any) -> bool:
        with np.errstate(over="ignore"):
            return bool(np.array_equal(values.astype(np.float16).astype(values.dtype), values))

    relative = float(np.abs(b - a).max()) / max(float(np.abs(a).max()), 1e-30)
    if a.size >= 4 and coarse(b) and not coarse(a) and relative < 64 * _HALF:
        yield Claim(
            "reduced_precision",
            f"{name!r} was computed in float16: export in float32, or compare with the tolerance "
            "of float16",
            f"every value is one of float16; the largest difference is {relative:.1e} of the "
            "largest value",
            0.98,
        )


def _weights(case: Case, there: dict[str, Any], here: dict[str, Any]) -> Iterator[Claim]:
    """Yield that weights are stored with fewer digits, as the file says or shows."""
    sizes = _relative_errors(case, there, here)
    if not sizes:
        return
    shown = ", ".join(f"{size:.1e}" for size in sizes.values())
    for kind, evidence in _as_stored(case.candidate):
        if max(sizes.values()) < _PLAUSIBLE:
            yield Claim(
                "reduced_precision" if "float" in kind else "quantised",
                f"the file's weights are {kind}: export in float32, or compare with the tolerance "
                "of such a model",
                f"{evidence}; the errors are {shown} of the largest values",
                0.9,
            )


def _as_stored(candidate: Subject) -> Iterator[tuple[str, str]]:
    """Yield what weights are in a file, with the evidence."""
    if not isinstance(candidate, FileSubject):
        return
    stored = candidate.summary.weight_dtypes
    for dtype in ("float16", "bfloat16", "int8", "int4", "uint8"):
        if dtype in stored:
            yield dtype, f"{stored[dtype]} of its constants are stored as {dtype}"
            return
    constants = float_constants(candidate.content, candidate.format)
    if in_float16(constants):
        yield (
            "float16",
            f"each of its {len(constants)} constants holds numbers of float16 alone, in float32",
        )
        return
    coarse = {
        item.name: step
        for item in constants
        if item.values.ndim > 1 and (step := lattice_of(item.values)) is not None
    }
    if coarse:
        name, step = next(iter(coarse.items()))
        yield (
            f"int8 in {len(coarse)} constants, {name!r} for one",
            f"all its values are multiples of {step:.4g}",
        )


def _relative_errors(case: Case, there: dict[str, Any], here: dict[str, Any]) -> dict[str, float]:
    found = {}
    for name in case.wrong_tensors():
        if name in here and there[name].shape == here[name].shape and there[name].size:
            largest = float(np.abs(there[name]).max())
            difference = float(np.abs(here[name].astype(np.float64) - there[name]).max())
            if largest > 0 and np.isfinite(difference) and difference > 0:
                found[name] = difference / largest
    return found
