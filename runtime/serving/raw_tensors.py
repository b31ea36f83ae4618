"""Turn the bytes of a tensor into an array, whichever protocol they came by.

Source: Open Inference Protocol (KServe V2), "Tensor Data"; extension "binary tensor data".
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from stnkit.runtime.serving.datatypes import DATATYPES
from stnkit.runtime.serving.errors import InvalidRequestError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["from_raw", "over_bytes"]


def from_raw(
    data: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...], tensor: str
) -> npt.NDArray[Any]:
    """Return an array over bytes, without copying them.

    Args:
        data: the elements, row-major, little-endian, at any address.
        dtype: their type.
        shape: the declared shape.
        tensor: the input it is for.

    Raises:
        InvalidRequestError: the shape asks for another number of bytes; or see `over_bytes`.
    """
    # Python's integers: a product that overflows elsewhere is just a large number here.
    needed = math.prod(shape) * dtype.itemsize
    if needed != len(data):
        raise InvalidRequestError(
            f"input {tensor!r} of {DATATYPES[dtype.name]} {list(shape)} takes {needed} bytes: "
            f"received {len(data)}"
        )
    return over_bytes(data, dtype, shape, tensor)


def over_bytes(
    data: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...], tensor: str
) -> npt.NDArray[Any]:
    """Return an array over as many bytes as it takes.

    Args:
        data: the elements, row-major, little-endian, at any address.
        dtype: their type.
        shape: of the array.
        tensor: the input it is for.

    Raises:
        InvalidRequestError: a byte that is neither true nor false.
    """
    if dtype.kind == "b" and len(data) and np.frombuffer(data, np.uint8).max() > 1:
        raise InvalidRequestError(
            f"input {tensor!r} has bytes other than 0 and 1: BOOL has no other"
        )
    return np.frombuffer(data, dtype).reshape(shape)
