"""Sizes that are Python integers where the graph knows them, and scalar tensors elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import tensorflow as tf

# A Python int, or an int32 scalar tensor when the size is known only while the graph runs.
Size = Any


def sizes(tensor: Any) -> list[Size]:
    """Return the size of every axis of `tensor`, as int where static, else as int32 scalar.

    Static sizes stay Python integers, so that nothing of them remains in an exported graph.
    """
    static = tensor.shape.as_list()
    if None not in static:
        return list(static)
    dynamic = tf.shape(tensor)
    return [dynamic[axis] if size is None else size for axis, size in enumerate(static)]


def as_float(size: Size, dtype: Any) -> Any:
    """Return `size` as a Python float, or as a scalar of `dtype` when it is a tensor."""
    return float(size) if isinstance(size, int) else tf.cast(size, dtype)


def check_output_size(output_size: Any, name: str = "output_size") -> tuple[Size, Size]:
    """Return `output_size` as `(height, width)` after checking it.

    Args:
        output_size: Two sizes in pixels, height first; ints >= 1 or int32 scalar tensors.
        name: What the caller calls it, for the error.

    Raises:
        ValueError: If there are not two of them, or one is not positive.
    """
    expected = "expected (height, width), two positive integers, e.g. (28, 28)"
    if isinstance(output_size, (str, bytes)) or not (
        isinstance(output_size, Sequence) or hasattr(output_size, "__len__")
    ):
        raise ValueError(f"{name} is {output_size!r}: {expected}")
    if len(output_size) != 2:
        raise ValueError(f"{name} is {output_size!r}: {expected}")
    result = []
    for size in output_size:
        if not tf.is_tensor(size):
            if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
                raise ValueError(f"{name} is {tuple(output_size)!r}: {expected}")
            size = int(size)
        result.append(size)
    return result[0], result[1]
