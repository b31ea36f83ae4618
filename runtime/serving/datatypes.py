"""Name element types as the Open Inference Protocol does, and as Triton's configuration does.

Source: Open Inference Protocol (KServe V2), "Tensor Data Types".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stnkit.runtime.serving.errors import InvalidRequestError

__all__ = ["CONFIG_TYPES", "DATATYPES", "NUMPY_TYPES", "dtype_of"]

NUMPY_TYPES: Mapping[str, str] = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
"""The protocol's name -> NumPy's; BYTES has no fixed size and is no input of any model here."""

DATATYPES: Mapping[str, str] = {dtype: name for name, dtype in NUMPY_TYPES.items()}
"""NumPy's name -> the protocol's."""

CONFIG_TYPES: Mapping[str, str] = {dtype: f"TYPE_{name}" for dtype, name in DATATYPES.items()}
"""NumPy's name -> the name in a model's configuration."""


_DTYPES = {name: np.dtype(dtype) for name, dtype in NUMPY_TYPES.items()}


def dtype_of(datatype: object, tensor: str) -> np.dtype[Any]:
    """Return what a datatype is that a client named.

    Args:
        datatype: what the client wrote.
        tensor: the input it is for.

    Raises:
        InvalidRequestError: no such datatype, or BYTES.
    """
    found = _DTYPES.get(datatype) if isinstance(datatype, str) else None
    if found is None:
        # Not the value itself where it is no text: nested deeply it cannot be written out.
        shown = repr(datatype[:40]) if isinstance(datatype, str) else "of no text"
        raise InvalidRequestError(
            f"input {tensor!r} has the datatype {shown}: expected one of {', '.join(NUMPY_TYPES)}"
        )
    return found
