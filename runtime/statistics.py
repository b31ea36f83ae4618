"""Measure how two tensors differ, in every way that somebody asks for.

Nothing here decides whether a difference is allowed: `stnkit.runtime.compare` does, and only for
tensors of one shape and dtype without NaN and infinity. Nothing is averaged away: each mean stands
beside the largest value and the quantiles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["QUANTILES", "Ranking", "Statistics", "histogram", "measure", "ranking"]

QUANTILES = (0.5, 0.9, 0.99, 0.999)
_TOP_K = 5
_DECADES = (-12, 3)  # of the histogram: 1e-12 to 1e3, what lies outside counts at the ends


@dataclass(frozen=True)
class Statistics:
    """How two tensors differ.

    Attributes:
        count: number of elements.
        differing: number of elements that are not equal.
        max_abs: largest absolute difference.
        mean_abs: mean absolute difference.
        abs_quantiles: quantile -> absolute difference, for `QUANTILES`.
        max_rel: largest difference relative to the reference, where that is not 0; None where the
            reference is 0 everywhere.
        mean_rel: mean of the same.
        rel_quantiles: quantile -> relative difference; empty where `max_rel` is None.
        max_ulp: largest number of floats between the two; None for integers.
        cosine: cosine of the angle between the two as vectors, in [-1, 1]; None where one is 0.
        snr_db: 10 log10 of the reference's power over the difference's; None where there is no
            difference, or no reference.
    """

    count: int
    differing: int
    max_abs: float
    mean_abs: float
    abs_quantiles: Mapping[float, float]
    max_rel: float | None
    mean_rel: float | None
    rel_quantiles: Mapping[float, float]
    max_ulp: int | None
    cosine: float | None
    snr_db: float | None

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values; quantiles have keys like "0.999"."""
        return {
            "count": self.count,
            "differing": self.differing,
            "max_abs": self.max_abs,
            "mean_abs": self.mean_abs,
            "abs_quantiles": {f"{key:g}": value for key, value in self.abs_quantiles.items()},
            "max_rel": self.max_rel,
            "mean_rel": self.mean_rel,
            "rel_quantiles": {f"{key:g}": value for key, value in self.rel_quantiles.items()},
            "max_ulp": self.max_ulp,
            "cosine": self.cosine,
            "snr_db": self.snr_db,
        }


@dataclass(frozen=True)
class Ranking:
    """How often two tensors of scores put the same class first.

    Attributes:
        items: number of items compared.
        top1: items with the same class first.
        topk: items in which the reference's first class is among the candidate's first `k`.
        k: 5, or the number of classes where there are fewer.
    """

    items: int
    top1: int
    topk: int
    k: int

    def to_json(self) -> dict[str, int]:
        """Return a dict of JSON values."""
        return {"items": self.items, "top1": self.top1, "topk": self.topk, "k": self.k}


def measure(reference: npt.NDArray[Any], candidate: npt.NDArray[Any]) -> Statistics:
    """Return how a candidate differs from its reference.

    Args:
        reference: any shape with at least one element; finite.
        candidate: the same shape and dtype; finite.
    """
    import numpy as np

    largest = float(np.finfo(np.float64).max)
    ref, cand = reference.astype(np.float64).ravel(), candidate.astype(np.float64).ravel()
    with np.errstate(over="ignore", under="ignore"):
        # An overflow is a difference larger than any other: the largest number stands for it.
        difference = np.minimum(np.abs(cand - ref), largest)
        nonzero = ref != 0
        relative = np.minimum(difference[nonzero] / np.abs(ref[nonzero]), largest)
        mean = min(float(difference.mean()), largest)
        mean_rel = min(float(relative.mean()), largest) if relative.size else None
    return Statistics(
        count=ref.size,
        differing=int(np.count_nonzero(reference != candidate)),
        max_abs=float(difference.max()),
        mean_abs=mean,
        abs_quantiles=_quantiles(difference),
        max_rel=float(relative.max()) if relative.size else None,
        mean_rel=mean_rel,
        rel_quantiles=_quantiles(relative) if relative.size else {},
        max_ulp=_max_ulp(reference, candidate),
        cosine=_cosine(ref, cand),
        snr_db=_snr_db(ref, difference),
    )


def _quantiles(values: npt.NDArray[np.float64]) -> dict[float, float]:
    import numpy as np

    # "higher": a value that occurred, never one between two.
    found = np.quantile(values, QUANTILES, method="higher")
    return {key: float(value) for key, value in zip(QUANTILES, found, strict=True)}


def _max_ulp(reference: npt.NDArray[Any], candidate: npt.NDArray[Any]) -> int | None:
    import numpy as np

    if reference.dtype.kind != "f":
        return None
    width = reference.dtype.itemsize
    signed = np.dtype(f"i{width}")

    def ordered(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return integers in the order of the floats, one apart where floats are neighbours."""
        bits = np.ascontiguousarray(values).view(signed).astype(object if width == 8 else np.int64)
        lowest = -(2 ** (8 * width - 1))
        return np.asarray(np.where(bits < 0, lowest - bits, bits))

    return int(np.abs(ordered(candidate) - ordered(reference)).max())


def _cosine(ref: npt.NDArray[np.float64], cand: npt.NDArray[np.float64]) -> float | None:
    import numpy as np

    # Scaled first: squares of values beyond 1e154 overflow.
    scales = float(np.abs(ref).max()), float(np.abs(cand).max())
    if min(scales) == 0:
        return None
    a, b = ref / scales[0], cand / scales[1]
    return float(np.clip(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), -1.0, 1.0))


def _snr_db(ref: npt.NDArray[np.float64], difference: npt.NDArray[np.float64]) -> float | None:
    import numpy as np

    scale, noise = float(np.abs(ref).max()), float(difference.max())
    if scale == 0 or noise == 0:
        return None
    power = np.linalg.norm(ref / scale) / np.linalg.norm(difference / noise)
    return float(20 * (math.log10(power) + math.log10(scale) - math.log10(noise)))


def ranking(reference: npt.NDArray[Any], candidate: npt.NDArray[Any]) -> Ranking | None:
    """Return how often the same class comes first; None where the tensor holds no scores.

    Args:
        reference: `[items, classes]` with two classes at least, finite.
        candidate: the same shape.
    """
    import numpy as np

    if reference.ndim != 2 or reference.shape[1] < 2 or reference.dtype.kind != "f":
        return None
    items, classes = reference.shape
    k = min(_TOP_K, classes)
    first = reference.argmax(axis=1)
    best = np.argsort(-candidate, axis=1, kind="stable")[:, :k]
    return Ranking(
        items,
        int((best[:, 0] == first).sum()),
        int((best == first[:, None]).any(axis=1).sum()),
        k,
    )


def histogram(difference: npt.NDArray[Any]) -> tuple[tuple[int, int], ...]:
    """Return (decade, count) of absolute differences that are not 0.

    Args:
        difference: any shape, >= 0. A difference d counts for the decade floor(log10(d)).
    """
    import numpy as np

    values = np.asarray(difference, np.float64).ravel()
    values = values[values > 0]
    if not values.size:
        return ()
    decades = np.clip(np.floor(np.log10(values)), *_DECADES).astype(int)
    found, counts = np.unique(decades, return_counts=True)
    return tuple((int(d), int(c)) for d, c in zip(found, counts, strict=True))
