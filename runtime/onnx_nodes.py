"""List the nodes of an ONNX graph, without the onnx package.

Source: field numbers from onnx.proto3, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3
"""

from __future__ import annotations

from collections.abc import Iterator

from stnkit.runtime.errors import InputError
from stnkit.runtime.model_file import FileNode
from stnkit.runtime.protobuf_wire import BYTES, fields, text

__all__ = ["nodes"]

_DEPTH_MAX = 100  # protobuf's own limit for nested messages

_GRAPH = 7  # ModelProto.graph
_NODE = 1  # GraphProto.node
_NODE_INPUT, _NODE_OUTPUT, _OP_TYPE, _ATTRIBUTE, _DOMAIN = 1, 2, 4, 5, 7
_ATTRIBUTE_GRAPHS = (6, 11)  # AttributeProto.g and .graphs


def nodes(model: bytes) -> tuple[FileNode, ...]:
    """Return the computed tensors of the main graph in the order of the file.

    What a branch or a loop reads from outside counts among the inputs of its node.

    Args:
        model: the file's content.

    Raises:
        InputError: a damaged file.
    """
    found: list[FileNode] = []
    for graph in _messages(memoryview(model), _GRAPH):
        for node in _messages(graph, _NODE):
            op = domain = ""
            outputs = []
            for number, _, value in fields(node):
                if number == _NODE_OUTPUT:
                    outputs.append(text(value))
                elif number == _OP_TYPE:
                    op = text(value)
                elif number == _DOMAIN:
                    domain = text(value)
            kind = op if domain in ("", "ai.onnx") else f"{domain}::{op}"
            # An optional input or output that is left out has no name.
            inputs = tuple(dict.fromkeys(name for name in _inputs(node, 0) if name))
            found += [FileNode(name, kind, inputs) for name in outputs if name]
    return tuple(found)


def _inputs(node: memoryview, depth: int) -> Iterator[str]:
    """Yield the inputs of a node and of the nodes in its subgraphs."""
    if depth > _DEPTH_MAX:
        raise InputError(f"an ONNX file nests deeper than {_DEPTH_MAX} graphs: expected less")
    for number, _, value in fields(node):
        if number == _NODE_INPUT:
            yield text(value)
    for attribute in _messages(node, _ATTRIBUTE):
        for number in _ATTRIBUTE_GRAPHS:
            for graph in _messages(attribute, number):
                for inner in _messages(graph, _NODE):
                    yield from _inputs(inner, depth + 1)


def _messages(data: memoryview, number: int) -> Iterator[memoryview]:
    for found, wire, value in fields(data):
        if found == number and wire == BYTES and not isinstance(value, int):
            yield value
