"""Read tensors that come as lists of numbers, not as raw bytes.

Source: Open Inference Protocol (KServe V2), gRPC, `InferTensorContents`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stnkit.runtime.serving.datatypes import DATATYPES
from stnkit.runtime.serving.errors import InvalidRequestError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["from_contents"]

_FIELDS: Mapping[str, str] = {
    "bool": "bool_contents",
    "int8": "int_contents",
    "int16": "int_contents",
    "int32": "int_contents",
    "int64": "int64_contents",
    "uint8": "uint_contents",
    "uint16": "uint_contents",
    "uint32": "uint_contents",
    "uint64": "uint64_contents",
    "float32": "fp32_contents",
    "float64": "fp64_contents",
}
"""NumPy's type -> the field that holds its values."""

_HELD: Mapping[str, str] = {"int_contents": "int32", "uint_contents": "uint32"}
"""Fields that hold several types -> the type that each number in them has."""


def from_contents(
    contents: Any, dtype: np.dtype[Any], shape: tuple[int, ...], name: str
) -> npt.NDArray[Any]:
    """Return the array of a tensor's typed contents.

    Args:
        contents: the `InferTensorContents`; an empty one for a tensor without.
        dtype: the declared type.
        shape: the declared shape.
        name: the input it is for.

    Raises:
        InvalidRequestError: values in the field of another type, another number of them than the
            shape says, or values that the type does not hold.
    """
    datatype = DATATYPES[dtype.name]
    field = _FIELDS.get(dtype.name)
    if field is None:
        raise InvalidRequestError(
            f"input {name!r} is {datatype}, which no typed contents hold: send it as "
            "raw_input_contents"
        )
    present = [found.name for found, _ in contents.ListFields()]
    if any(other != field for other in present):
        raise InvalidRequestError(
            f"input {name!r} of {datatype} has {', '.join(present)}: expected {field} alone"
        )
    values = getattr(contents, field)
    # Counted before an array is made of them.
    if len(values) != math.prod(shape):
        raise InvalidRequestError(
            f"input {name!r} of {datatype} {list(shape)} takes {math.prod(shape)} values: "
            f"received {len(values)} in {field}"
        )
    held = np.array(values, _HELD.get(field, dtype.name))
    if held.dtype != dtype:
        bounds = np.iinfo(dtype)
        if held.size and (held.min() < bounds.min or held.max() > bounds.max):
            raise InvalidRequestError(
                f"input {name!r} has values outside {bounds.min} to {bounds.max}: {datatype} holds "
                "no others"
            )
    return held.astype(dtype, copy=False).reshape(shape)
