"""The nodes of a frozen graph in the order of computation, as a comparison looks at them."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from stnkit.convert.frozen import FrozenGraph
from stnkit.convert.layer_names import scopes_of
from stnkit.runtime.equivalence.subject import Node

_UNREADABLE = ("resource", "variant", "string")


def graph_nodes(graph: FrozenGraph) -> tuple[Node, ...]:
    """Return every tensor of a frozen graph that depends on an input.

    1. A node stands behind everything that it is computed from.
    2. What is computed from constants alone, a folded scale for one, is left out.
    3. A copy outside all scopes, an output for one, belongs to the layer that it copies from.

    Args:
        graph: The frozen source.
    """
    with tf.Graph().as_default() as known:
        tf.import_graph_def(graph.skeleton(), name="")
    inputs = {known.get_tensor_by_name(name).op.name for name in graph.inputs.values()}
    live: set[str] = set(inputs)
    layers: dict[str, str] = {}
    found = []
    for operation in _ordered(known):
        sources = [tensor.op.name for tensor in operation.inputs]
        if operation.name in inputs or live.isdisjoint(sources):
            continue
        live.add(operation.name)
        layer = graph.layer_of(operation.name)
        if operation.type == "Identity" and not scopes_of(operation.name):
            layer = layers.get(sources[0], layer)
        layers[operation.name] = layer
        names = tuple(node_name(tensor.name) for tensor in operation.inputs)
        found += [
            Node(node_name(tensor.name), operation.type, layer, names)
            for tensor in operation.outputs
            if tensor.dtype.base_dtype.name not in _UNREADABLE
        ]
    return tuple(found)


def node_name(tensor: str) -> str:
    """Return what a tensor is called as a node: `a/b` for `a/b:0`."""
    return tensor.removesuffix(":0")


def tensor_name(node: str) -> str:
    """Return the tensor of a node: `a/b:0` for `a/b`."""
    return node if ":" in node else f"{node}:0"


def _ordered(graph: Any) -> list[Any]:
    """Return the operations, each behind its inputs; a GraphDef need not be in that order."""
    found: list[Any] = []
    entered: set[str] = set()
    for last in graph.get_operations():
        waiting = [(last, False)]
        while waiting:
            operation, inputs_done = waiting.pop()
            if inputs_done:
                found.append(operation)
            elif operation.name not in entered:
                entered.add(operation.name)
                waiting.append((operation, True))
                waiting += [(tensor.op, False) for tensor in reversed(operation.inputs)]
    return found
