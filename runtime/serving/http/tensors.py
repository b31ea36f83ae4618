"""Turn the tensors of a request into arrays, and arrays into the tensors of an answer.

Source: Open Inference Protocol (KServe V2), "Tensor Data"; extension "binary tensor data".
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from stnkit.runtime.serving.datatypes import dtype_of
from stnkit.runtime.serving.errors import InvalidRequestError, TooLargeError
from stnkit.runtime.serving.limits import Limits

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "bytes_tensor",
    "check_shape",
    "from_json",
    "json_values",
    "shown",
    "text_field",
    "whole",
]

_INT64_MAX = 2**63 - 1
# So that their bytes can be counted in 64 bits too.
_ELEMENTS_MAX = 2**59

# Kind of dtype -> the types of its values in JSON, and what to call them.
_JSON_TYPES: Mapping[str, tuple[set[type], str]] = {
    "b": ({bool}, "true and false"),
    "i": ({int}, "whole numbers"),
    "u": ({int}, "whole numbers"),
    "f": ({int, float}, "numbers"),
}
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def check_shape(shape: object, tensor: str, limits: Limits) -> tuple[int, ...]:
    """Return a shape that a client sent, checked.

    Args:
        shape: what stands in the request.
        tensor: the input it is for.
        limits: the most dimensions.

    Raises:
        InvalidRequestError: not a list of whole numbers of at least 0.
        TooLargeError: too many dimensions, or more elements than any memory holds.
    """
    if isinstance(shape, list) and len(shape) > limits.rank_max:
        raise TooLargeError(
            f"input {tensor!r} has {len(shape)} dimensions: expected at most {limits.rank_max}"
        )
    sizes: list[int] = []
    for size in shape if isinstance(shape, list) else [None]:
        number = size if type(size) is int else whole(size)
        if number is None or not 0 <= number <= _INT64_MAX:
            raise InvalidRequestError(
                f"input {tensor!r} has the shape {shown(shape)}: expected a list of whole numbers, "
                "0 or more"
            )
        sizes.append(number)
    # A 0 among them hides the others.
    if (math.prod(sizes) or math.prod(size or 1 for size in sizes)) > _ELEMENTS_MAX:
        raise TooLargeError(
            f"input {tensor!r} has the shape {sizes}: expected no more elements than any memory "
            "holds"
        )
    return tuple(sizes)


def from_json(
    values: object, datatype: object, shape: tuple[int, ...], tensor: str
) -> npt.NDArray[Any]:
    """Return an array of the values in a JSON request.

    Args:
        values: numbers or booleans in one list, or in lists nested as the shape says.
        datatype: the protocol's name of their type.
        shape: the declared shape.
        tensor: the input it is for.

    Raises:
        InvalidRequestError: values of another type, outside the type's range, or another number of
            them than the shape says.
    """
    dtype = dtype_of(datatype, tensor)
    if not isinstance(values, list):
        raise InvalidRequestError(
            f"input {tensor!r} has no list as its data: expected its values, or binary_data_size "
            "and the values behind the JSON"
        )
    flat = _flat(values, shape, tensor)
    # Before NumPy sees them: it would give each the size of the longest text.
    types, wanted = _JSON_TYPES[dtype.kind]
    if not types.issuperset(map(type, flat)):
        raise InvalidRequestError(
            f"the data of input {tensor!r} does not hold {wanted} alone: {datatype} takes these"
        )
    try:
        with np.errstate(over="ignore"):  # beyond float32 is infinity, as the cast says
            return np.array(flat, dtype).reshape(shape)
    except OverflowError as exc:
        bounds = np.iinfo(dtype)
        raise InvalidRequestError(
            f"the data of input {tensor!r} has values outside {bounds.min} to {bounds.max}: "
            f"{datatype} holds no others"
        ) from exc


def _flat(values: list[Any], shape: tuple[int, ...], tensor: str) -> list[Any]:
    """Return the values in one list; they came in one, or in lists nested as the shape says."""
    count = math.prod(shape)
    if len(values) == count and not (values and type(values[0]) is list and len(shape) > 1):
        return values
    level = values
    for axis, size in enumerate(shape):
        if axis:
            if not {list}.issuperset(map(type, level)) or not {size}.issuperset(map(len, level)):
                break
            level = list(chain.from_iterable(level))
        elif len(level) != size:
            break
    else:
        if len(level) == count:  # where there is no axis, nothing was looked at
            return level
    raise InvalidRequestError(
        f"input {tensor!r} has data that is not of the shape {list(shape)}: expected {count} "
        "values in one list, or lists nested as the shape says"
    )


def json_values(array: npt.NDArray[Any]) -> list[Any]:
    """Return an array's values in one list, as JSON numbers, booleans or strings.

    JSON has no number that is not finite: such a value is the string `"NaN"`, `"Infinity"` or
    `"-Infinity"`, as in Protocol Buffers' JSON; the usual clients read it as the number.

    Args:
        array: any shape; an object array holds bytes of UTF-8.
    """
    flat: list[Any] = array.ravel().tolist()
    if array.dtype == object:
        return [value.decode("utf-8", "replace") for value in flat]
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return [value if math.isfinite(value) else _NOT_FINITE[str(value)] for value in flat]
    return flat


def bytes_tensor(array: npt.NDArray[Any]) -> bytes:
    """Return an array as the protocol's bytes.

    Args:
        array: any shape; each element of an object array is bytes, and gets its length in front
            as four bytes, little-endian.
    """
    if array.dtype == object:
        return b"".join(struct.pack("<I", len(item)) + item for item in array.ravel())
    return array.tobytes()


def text_field(fields: Mapping[str, Any], key: str, limits: Limits, *, what: str) -> str:
    """Return a text of the request, "" where it is missing.

    Args:
        fields: the object it stands in.
        key: its name there.
        limits: the most characters.
        what: what the object is, for messages.

    Raises:
        InvalidRequestError: not a text.
        TooLargeError: longer than the limit.
    """
    value = fields.get(key, "")
    if not isinstance(value, str):
        raise InvalidRequestError(f"the {key} of {what} is not a text: expected one")
    if len(value) > limits.text_length_max:
        raise TooLargeError(
            f"the {key} of {what} has {len(value)} characters: expected at most "
            f"{limits.text_length_max}"
        )
    return value


def shown(value: object) -> str:
    """Return a value of the request's JSON as a message shows it: short, whatever it holds.

    Args:
        value: any; what is nested a thousand deep cannot be written out.
    """
    if isinstance(value, str):
        return repr(value[:40])
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        plain = all(it is None or isinstance(it, str | int | float) for it in value[:8])
        if len(value) > 8 or not plain:
            return f"a list of {len(value)}"
        return f"[{', '.join(shown(it) for it in value)}]"
    return repr(value)[:40]


def whole(value: object) -> int | None:
    """Return a whole number of the request's JSON, None where it is none.

    Args:
        value: any; 2.0 is the whole number 2, true is none.
    """
    if type(value) is int:
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return None
