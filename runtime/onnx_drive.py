"""Give a tensor inside an ONNX graph from outside, in place of what the graph computes.

Source: field numbers from onnx.proto3, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3
"""

from __future__ import annotations

from collections.abc import Mapping

from stnkit.runtime.errors import InputError
from stnkit.runtime.json_reader import join_names
from stnkit.runtime.protobuf_wire import BYTES, bytes_field, fields, key, text, varint_field

__all__ = ["with_driven_tensors"]

_GRAPH, _NODE, _INPUT = 7, 1, 11
_NODE_OUTPUT = 2
_SHADOW = "stnkit_computed::"
"""Prefix of the name under which the graph's own value goes on to exist, unread."""

# NumPy's name -> TensorProto.DataType
_TYPES = {"float32": 1, "float16": 10, "float64": 11, "int32": 6, "int64": 7, "uint8": 2, "int8": 3}


def with_driven_tensors(model: bytes, tensors: Mapping[str, str]) -> bytes:
    """Return the model with tensors of its main graph as further inputs.

    The node that computes such a tensor writes to another name; everything that reads it reads the
    input. Shapes are left open.

    Args:
        model: an ONNX file's content.
        tensors: name of a computed tensor -> NumPy's name of its element type.

    Returns:
        The content of the changed file; the largest part of it, the weights, is copied as it is.

    Raises:
        InputError: a damaged file, a name that no node computes, or an element type that is none
            of the usual ones.
    """
    pieces: list[bytes] = []
    found: set[str] = set()
    for number, wire, value in fields(memoryview(model)):
        if number == _GRAPH and wire == BYTES and not isinstance(value, int):
            pieces.append(bytes_field(_GRAPH, _rewired(value, set(tensors), found)))
        else:
            pieces.append(_copied(number, wire, value))
    missing = [name for name in tensors if name not in found]
    if missing:
        raise InputError(f"no node of the ONNX graph computes {join_names(missing)}")
    inputs = b"".join(
        bytes_field(_INPUT, _value_info(name, dtype)) for name, dtype in tensors.items()
    )
    # A second `graph` field merges into the first, as everywhere in protobuf.
    return b"".join(pieces) + bytes_field(_GRAPH, inputs)


def _rewired(graph: memoryview, tensors: set[str], found: set[str]) -> bytes:
    pieces = []
    for number, wire, value in fields(graph):
        if number == _NODE and wire == BYTES and not isinstance(value, int):
            computed = {text(v) for n, _, v in fields(value) if n == _NODE_OUTPUT} & tensors
            if computed:
                found |= computed
                pieces.append(bytes_field(_NODE, _renamed(value, computed)))
                continue
        pieces.append(_copied(number, wire, value))
    return b"".join(pieces)


def _renamed(node: memoryview, outputs: set[str]) -> bytes:
    pieces = []
    for number, wire, value in fields(node):
        if number == _NODE_OUTPUT and text(value) in outputs:
            pieces.append(bytes_field(_NODE_OUTPUT, f"{_SHADOW}{text(value)}".encode()))
        else:
            pieces.append(_copied(number, wire, value))
    return b"".join(pieces)


def _copied(number: int, wire: int, value: int | memoryview) -> bytes:
    if isinstance(value, int):
        return varint_field(number, value)
    if wire == BYTES:
        return bytes_field(number, bytes(value))
    return key(number, wire) + bytes(value)


def _value_info(name: str, dtype: str) -> bytes:
    if dtype not in _TYPES:
        raise InputError(f"{name} is {dtype}: expected one of {', '.join(_TYPES)}")
    # A TypeProto.Tensor with an element type and no shape: any rank is taken.
    tensor = varint_field(1, _TYPES[dtype])
    return bytes_field(1, name.encode()) + bytes_field(2, bytes_field(1, tensor))
