"""Check that an answer is the right one: a server that answers nonsense is fast."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stnkit.runtime.errors import one_line
from stnkit.runtime.serving.datatypes import NUMPY_TYPES

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["answer_problem"]

_LENGTH = b"\r\ninference-header-content-length:"


def answer_problem(
    head: bytes, body: bytes, expected: Mapping[str, npt.NDArray[Any]], atol: float
) -> str | None:
    """Return what is wrong with an answer to an inference request, or None.

    Args:
        head: status line and headers.
        body: JSON, or JSON with raw tensors behind it where a header gives the JSON's length.
        expected: output name -> array; others in the answer are not looked at.
        atol: largest difference allowed.
    """
    try:
        given = _tensors(head, body)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as exc:
        return f"the answer is none of the protocol: {one_line(repr(exc))}"
    for name, wanted in expected.items():
        value = given.get(name)
        if value is None:
            return f'the answer has no "{one_line(name)}"'
        if value.shape != wanted.shape or value.dtype != wanted.dtype:
            return (
                f'"{name}" is {value.dtype} {list(value.shape)}: expected {wanted.dtype} '
                f"{list(wanted.shape)}"
            )
        apart = np.abs(value.astype(np.float64) - wanted.astype(np.float64))
        if not np.all(apart <= atol):  # NaN is not
            return f'"{name}" is off by {apart.max():.3g}: expected at most {atol:g}'
    return None


def _tensors(head: bytes, body: bytes) -> dict[str, npt.NDArray[Any]]:
    _, found, rest = head.lower().partition(_LENGTH)
    length = int(rest.partition(b"\r\n")[0]) if found else len(body)
    if not 0 <= length <= len(body):
        raise ValueError(f"{length} of {len(body)} bytes are JSON")
    tensors, at = {}, length
    for output in json.loads(body[:length])["outputs"]:
        dtype = NUMPY_TYPES[output["datatype"]]
        size = (output.get("parameters") or {}).get("binary_data_size")
        if size is None:
            value = np.asarray(output["data"], dtype)
        else:
            value = np.frombuffer(body[at : at + size], dtype)
            at += size
        tensors[output["name"]] = value.reshape(output["shape"])
    if at != len(body):
        raise ValueError(f"{len(body) - at} bytes are left over")
    return tensors
