"""Make inputs on which a session can run before the first real ones come."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stnkit.runtime.errors import InputError
from stnkit.runtime.golden import GoldenCase
from stnkit.runtime.signature import BATCH, Signature

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["open_sizes", "zero_inputs"]

_BYTES_MAX = 512 * 2**20  # of one input: more is a mistake and not a warm-up


def open_sizes(signature: Signature, cases: Sequence[GoldenCase]) -> dict[str, int]:
    """Return a size for every named dimension but the batch: that of the first stored probe.

    Args:
        signature: what the model takes.
        cases: the bundle's probes.
    """
    return {
        dim: size
        for spec in signature.inputs
        for dim, size in zip(spec.shape, cases[0].inputs[spec.name].shape, strict=True)
        if isinstance(dim, str) and dim != BATCH
    }


def zero_inputs(
    signature: Signature, batch: int, sizes: Mapping[str, int]
) -> dict[str, npt.NDArray[Any]]:
    """Return inputs full of zeros.

    Args:
        signature: what the model takes.
        batch: number of items, >= 1.
        sizes: sizes of the other named dimensions.

    Raises:
        InputError: a batch size below 1, or an input that would take more than 512 MiB.
    """
    import numpy as np

    if batch < 1:
        raise InputError(f"a batch of {batch} cannot be warmed up: expected at least 1")
    known = {**sizes, BATCH: batch}
    inputs = {}
    for spec in signature.inputs:
        shape = tuple(known[dim] if isinstance(dim, str) else dim for dim in spec.shape)
        needed = math.prod(shape) * np.dtype(spec.dtype).itemsize
        if needed > _BYTES_MAX:
            raise InputError(
                f'input "{spec.name}" would be {list(shape)}, {needed / 2**20:,.0f} MiB: expected '
                f"at most {_BYTES_MAX // 2**20} MiB; warm up smaller batches"
            )
        inputs[spec.name] = np.zeros(shape, spec.dtype)
    return inputs
