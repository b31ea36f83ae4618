"""What an ONNX graph must be before anyone runs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx

from stnkit.convert.frozen import FrozenGraph
from stnkit.runtime.errors import ExportError

STANDARD_DOMAINS = ("", "ai.onnx")
"""Both names of the domain of the standard's ops."""


def check_graph(model: Any, source: FrozenGraph, opset: int) -> None:
    """Check that a model has standard ops alone and that no tensor comes from nowhere.

    Args:
        model: `onnx.ModelProto`.
        source: The graph it was made from, to name layers.
        opset: The opset that it is for; what is not of that yet is checked without its types.

    Raises:
        ExportError: If an op is not in the standard, or a weight is missing.
    """
    for node in all_nodes(model.graph):
        if node.domain not in STANDARD_DOMAINS or not onnx.defs.has(node.op_type, opset, ""):
            layer = source.layer_of(node.name)
            raise ExportError(
                f"the op {node.op_type} of the layer {layer!r} has no equivalent in ONNX opset "
                f"{opset}: write the layer with other ops, or convert with --to tflite alone",
                format="onnx",
                op=node.op_type,
                layer=layer,
            )
    for node, missing in _unfed(model.graph, set()):
        layer = source.layer_of(node.name or missing)
        raise ExportError(
            f"a weight is missing from the ONNX file: the op {node.op_type} of the layer {layer!r} "
            f"reads {missing!r}, which nothing provides",
            format="onnx",
            op=node.op_type,
            layer=layer,
        )
    if opset == next(o.version for o in model.opset_import if o.domain in STANDARD_DOMAINS):
        onnx.checker.check_model(model)


def all_nodes(graph: Any) -> Iterator[Any]:
    """Yield every node of a graph or a function, those of the bodies of its nodes too."""
    for node in graph.node:
        yield node
        for subgraph in _subgraphs(node):
            yield from all_nodes(subgraph)


def _subgraphs(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def _unfed(graph: Any, outer: set[str]) -> Iterator[tuple[Any, str]]:
    """Yield (node, tensor) for every tensor that a node reads and nothing gives."""
    known = outer | {value.name for value in graph.input}
    known |= {tensor.name for tensor in graph.initializer}
    known |= {name for node in graph.node for name in node.output}
    for node in graph.node:
        for name in node.input:
            if name and name not in known:
                yield node, name
        for subgraph in _subgraphs(node):
            yield from _unfed(subgraph, known)
