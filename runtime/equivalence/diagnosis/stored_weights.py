"""The float32 constants of a model file, and what can be seen of them alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from stnkit.runtime.protobuf_wire import BYTES, fields, integers, text

__all__ = ["Constant", "float_constants", "in_float16", "lattice_of"]

_SMALLEST = 8  # elements of a constant that is looked at: few numbers are round by chance
_LEVELS_MAX = 256


@dataclass(frozen=True)
class Constant:
    """A constant of a file."""

    name: str
    values: Any


def float_constants(content: bytes, format: str) -> list[Constant]:
    """Return the float32 constants of a TFLite or ONNX file that are no scalars or nearly so."""
    found = _of_tflite(content) if format == "tflite" else _of_onnx(content)
    return [item for item in found if item.values.size >= _SMALLEST]


def in_float16(constants: list[Constant]) -> bool:
    """Return whether every constant holds numbers of float16 alone, and not just round ones."""

    def round_trip(values: Any, bits: int) -> bool:
        kept = values.view(np.uint32) & np.uint32(0xFFFFFFFF << bits & 0xFFFFFFFF)
        return bool((kept == values.view(np.uint32)).all())

    def half(values: Any) -> bool:
        with np.errstate(over="ignore"):
            return bool((values.astype(np.float16).astype(np.float32) == values).all())

    # Numbers of 4 bits are halves and quarters: they say nothing.
    told = [item.values for item in constants if not round_trip(item.values, 19)]
    return bool(told) and all(half(values) for values in told)


def lattice_of(values: Any) -> float | None:
    """Return the step of the lattice that a kernel lies on, as int8 leaves it; None without."""
    levels = np.unique(values.astype(np.float64))
    if values.size < 64 or not 3 <= len(levels) <= min(_LEVELS_MAX, values.size // 2):
        return None
    step = float(np.abs(levels).max()) / 127
    off = np.abs(levels / step - np.round(levels / step)).max()
    return step if off < 1e-3 else None


def _of_tflite(content: bytes) -> Iterator[Constant]:
    from stnkit.runtime.tflite_file import schema

    tables = schema()
    root = tables.Model.GetRootAsModel(content, 0)
    graph = root.Subgraphs(0)
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        buffer = root.Buffers(tensor.Buffer())
        if tensor.Type() == tables.TensorType.FLOAT32 and buffer.DataLength():
            values = buffer.DataAsNumpy().view(np.float32)
            yield Constant(tensor.Name().decode(), _shaped(values, tensor.ShapeAsNumpy()))


def _of_onnx(content: bytes) -> Iterator[Constant]:
    for number, wire, graph in fields(memoryview(content)):
        if number != 7 or wire != BYTES or isinstance(graph, int):
            continue
        for kind, _, tensor in fields(graph):
            if kind == 5 and not isinstance(tensor, int):
                found = _initializer(tensor)
                if found is not None:
                    yield found


def _initializer(tensor: memoryview) -> Constant | None:
    """Read a TensorProto of float32 with raw data."""
    name, dtype, raw = "", 0, b""
    shape: list[int] = []
    for number, wire, value in fields(tensor):
        if number == 1:
            shape += integers(wire, value)
        elif number == 2 and isinstance(value, int):
            dtype = value
        elif number == 8:
            name = text(value)
        elif number == 9 and not isinstance(value, int):
            raw = bytes(value)
    if dtype != 1 or not raw:
        return None
    return Constant(name, _shaped(np.frombuffer(raw, np.float32), shape))


def _shaped(values: Any, shape: Any) -> Any:
    sizes = [int(size) for size in np.atleast_1d(shape)]
    return values.reshape(sizes) if int(np.prod(sizes)) == values.size else values
