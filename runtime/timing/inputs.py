"""Choose what a bundle is timed on: a stored probe where one fits, else noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stnkit.runtime.array_check import case_fits
from stnkit.runtime.errors import InputError
from stnkit.runtime.golden import GoldenCase
from stnkit.runtime.signature import BATCH, Signature, TensorSpec

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["INPUT_BYTES_MAX", "RANDOM", "TimingInputs", "inputs_for"]

INPUT_BYTES_MAX = 512 * 2**20
"""Largest input that is made up, so that a large batch size is refused and not a lack of memory."""

RANDOM = "random"
"""What inputs are called that were made up."""

_SEED = 20150605  # any fixed number


@dataclass(frozen=True)
class TimingInputs:
    """Inputs of one run.

    Attributes:
        name: the probe's name, or `RANDOM`.
        arrays: signature name -> array.
        sizes: sizes of the named dimensions, by name.
    """

    name: str
    arrays: Mapping[str, npt.NDArray[Any]]
    sizes: Mapping[str, int]


def inputs_for(signature: Signature, cases: Sequence[GoldenCase], batch: int) -> TimingInputs:
    """Return what to run at a batch size; the same for every call.

    Args:
        signature: what the model takes.
        cases: the bundle's stored probes. Where none has this batch size, named dimensions other
            than the batch get the sizes that they have in the first.
        batch: number of items, >= 1.

    Raises:
        InputError: an input would take more than `INPUT_BYTES_MAX`.
    """
    for case in cases:
        sizes = _sizes(signature, case)
        if case_fits(signature, batch, case.inputs) and sizes.get(BATCH, batch) == batch:
            return TimingInputs(case.name, case.inputs, sizes)
    sizes = _sizes(signature, cases[0]) if cases else {}
    if BATCH in sizes or not cases:
        sizes[BATCH] = batch
    rng = np.random.default_rng(_SEED)
    arrays = {spec.name: _noise(spec, sizes, rng) for spec in signature.inputs}
    return TimingInputs(RANDOM, arrays, sizes)


def _sizes(signature: Signature, case: GoldenCase) -> dict[str, int]:
    return {
        dim: size
        for spec in signature.inputs
        for dim, size in zip(spec.shape, case.inputs[spec.name].shape, strict=True)
        if isinstance(dim, str)
    }


def _noise(
    spec: TensorSpec, sizes: Mapping[str, int], rng: np.random.Generator
) -> npt.NDArray[Any]:
    shape = tuple(sizes[dim] if isinstance(dim, str) else dim for dim in spec.shape)
    dtype = np.dtype(spec.dtype)
    needed = math.prod(shape) * dtype.itemsize
    if needed > INPUT_BYTES_MAX:
        raise InputError(
            f'input "{spec.name}" would be {list(shape)}, {needed / 2**20:,.0f} MiB: expected at '
            f"most {INPUT_BYTES_MAX // 2**20} MiB; choose a smaller batch"
        )
    if dtype.kind == "f":
        low, high = spec.range or (-1.0, 1.0)
        # float32 while it is made: float64 would take twice the memory that was checked.
        values = rng.random(shape, np.float32) * np.float32(high - low) + np.float32(low)
        return values.astype(dtype, copy=False)
    # 0 and 1 are rows of any table of embeddings, where no range is known.
    low, high = spec.range or (0.0, 1.0)
    first, last = math.ceil(low), math.floor(high)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape, np.uint8).astype(dtype)
    bounds = np.iinfo(dtype)
    first, last = max(first, int(bounds.min)), min(last, int(bounds.max))
    return rng.integers(first, max(first, last), shape, dtype, endpoint=True)
