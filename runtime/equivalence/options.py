"""What a user can ask of a comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stnkit.runtime.equivalence.binding import Layout
from stnkit.runtime.equivalence.probes import SEED
from stnkit.runtime.errors import InputError
from stnkit.runtime.file_precision import PRECISIONS, Precision

__all__ = ["CompareOptions"]


@dataclass(frozen=True)
class CompareOptions:
    """How models are compared.

    Attributes:
        maps: reference's name of an input or output -> candidate's, for every candidate.
        layouts: number of a candidate, 1 first (B on the command line) -> its layout; 0 is the
            reference. NHWC where none is given.
        data: folder of images, `.npz` or `.npy` file with real inputs, to compare on as well.
        atol: what may differ, by kind ("outputs", "theta", "warped") or by name of a tensor; the
            error budget where nothing is given.
        seed: seed of everything random.
        value_range: smallest and largest value of a float image.
        threads: threads that share one run of a file.
        drive: whether transformers are given thetas of their own too.
        precision: as what candidates are judged; None takes it from each file.
        bisect: whether a difference is followed through the layers.
        views: whether pictures are kept for a report.
        custom_objects: references `module:attr` to layers of Keras models.
        trusted: whether Python code inside Keras files may run.

    Raises:
        InputError: a value is none of those.
    """

    maps: Mapping[str, str] = field(default_factory=dict)
    layouts: Mapping[int, Layout] = field(default_factory=dict)
    data: Path | None = None
    atol: Mapping[str, float] = field(default_factory=dict)
    seed: int = SEED
    value_range: tuple[float, float] = (0.0, 1.0)
    threads: int | None = None
    drive: bool = True
    precision: Precision | None = None
    bisect: bool = False
    views: bool = False
    custom_objects: tuple[str, ...] = ()
    trusted: bool = False

    def __post_init__(self) -> None:
        low, high = self.value_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InputError(f"value_range is {self.value_range}: expected (lower, higher)")
        for name, value in self.atol.items():
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"atol is {name}={value}: expected a number >= 0")
        if self.precision not in (None, *PRECISIONS):
            known = ", ".join(PRECISIONS)
            raise InputError(f"precision is {self.precision!r}: expected one of {known}")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}: expected 0 or more")
