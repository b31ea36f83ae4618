"""The float32 constants of a model file.

Source: TFLite's schema.fbs, version 3; onnx.proto3, TensorProto.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stnkit.runtime.protobuf_wire import BYTES, fields, integers, text

__all__ = ["Constant", "float_constants"]

_SMALLEST = 8  # elements of a constant that is looked at: few numbers are round by chance


@dataclass(frozen=True)
class Constant:
    """A constant of a model.

    Attributes:
        name: its name.
        values: its values, read only.
    """

    name: str
    values: Any


def float_constants(content: bytes, format: str) -> list[Constant]:
    """Return the float32 constants of a TFLite or ONNX file that are no scalars or nearly so.

    Args:
        content: the file's bytes.
        format: `"tflite"` or `"onnx"`.

    Raises:
        InputError: the file is damaged.
    """
    found = _of_tflite(content) if format == "tflite" else _of_onnx(content)
    return [item for item in found if item.values.size >= _SMALLEST]


def _of_tflite(content: bytes) -> Iterator[Constant]:
    import numpy as np

    from stnkit.runtime.tflite_file import buffer_content, schema

    tables = schema()
    root = tables.Model.GetRootAsModel(content, 0)
    graph = root.Subgraphs(0)
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        if tensor.Type() != tables.TensorType.FLOAT32:
            continue
        values = np.frombuffer(buffer_content(root, content, tensor.Buffer()), np.float32)
        if values.size:
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
    import numpy as np

    return Constant(name, _shaped(np.frombuffer(raw, np.float32), shape))


def _shaped(values: Any, shape: Any) -> Any:
    import numpy as np

    sizes = [int(size) for size in np.atleast_1d(shape)]
    return values.reshape(sizes) if int(np.prod(sizes)) == values.size else values
