"""What no artifact can hold, found in the graph before any exporter sees it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from tensorflow.core.framework import types_pb2

from stnkit.convert.layer_names import layer_of
from stnkit.runtime.errors import ExportError

_PYTHON = re.compile(r"PyFunc(Stateless)?|EagerPyFunc")
_STATE = re.compile(r"Assign\w*|ResourceScatter\w*")
_RANDOM = re.compile(
    r"Random\w+|Multinomial|(Parameterized)?TruncatedNormal|\w+CandidateSampler|"
    r"Stateless\w*(Random(?!Get)|Multinomial|TruncatedNormal|Shuffle)\w*|"
    r"Stateful(Uniform\w*|StandardNormal\w*|TruncatedNormal|RandomBinomial)|Rng\w*Skip"
)
_TABLE = re.compile(r"(Anonymous)?(Mutable)?(Dense)?HashTable\w*|LookupTable\w*|InitializeTable\w*")
# What must not be left after freezing: the value of each lives outside of the graph.
_UNFROZEN = re.compile(r"VarHandleOp|ReadVariableOp|Variable(V2)?|ResourceGather(Nd)?")

_HALVES = {types_pb2.DT_HALF: "float16", types_pb2.DT_BFLOAT16: "bfloat16"}
# Ops that carry a dtype which another one computes in: not the ones to name.
_CARRIERS = ("Placeholder", "Const", "Identity", "Cast")


def check_trace(graph_def: Any, layers: frozenset[str]) -> None:
    """Check that a traced model neither leaves its graph nor changes anything while it runs.

    Args:
        graph_def: TensorFlow's GraphDef of the trace, before freezing.
        layers: Names of the Keras layers, where known.

    Raises:
        ExportError: If it does; names op and layer.
    """
    nodes = [*graph_def.node, *(n for f in graph_def.library.function for n in f.node_def)]
    for node in _matching(nodes, _PYTHON):
        problem = f"calls Python code ({node.op}) while it runs: write it with TensorFlow ops"
        raise _error(node, layers, problem)
    for node in _matching(nodes, _TABLE):
        problem = (
            f"looks values up in a table ({node.op}), which no artifact holds: look them up before "
            "the model, and give it the indices"
        )
        raise _error(node, layers, problem)
    for node in _matching(nodes, _STATE):
        layer = layer_of(node.name, layers)
        # Keras counts the draws of a seed in a variable: what the user wrote is the draw.
        for draw in _matching(nodes, _RANDOM):
            if layer_of(draw.name, layers) == layer:
                raise _drawn(draw, layers)
        problem = f"changes a variable while it infers ({node.op}): no artifact keeps state"
        raise _error(node, layers, problem)


def check_frozen(graph_def: Any, fetched: Iterable[str], layers: frozenset[str]) -> None:
    """Check that a frozen graph computes from its inputs and constants alone, in full precision.

    Args:
        graph_def: TensorFlow's GraphDef, frozen.
        fetched: Tensors that are computed, as `node:0`; what none of them needs may be anything.
        layers: Names of the Keras layers, where known.

    Raises:
        ExportError: If a value is missing, is drawn at random, or is float16; names op and layer.
    """
    nodes = list(_needed(graph_def, fetched))
    for node in _matching(nodes, _UNFROZEN):
        problem = (
            f"has a weight that is missing from the graph: {node.name} ({node.op}) could not be "
            "made a constant"
        )
        raise _error(node, layers, problem)
    for node in _matching(nodes, _RANDOM):
        raise _drawn(node, layers)
    halves = [(node, dtype) for node in nodes if (dtype := _half(node))]
    for node, dtype in sorted(halves, key=lambda half: half[0].op in _CARRIERS)[:1]:
        problem = (
            f"computes in {dtype} ({node.op}): this version writes float32: build the model under "
            "the float32 policy"
        )
        raise _error(node, layers, problem)


def _drawn(node: Any, layers: frozenset[str]) -> ExportError:
    problem = (
        f"draws random numbers while it infers ({node.op}): no two runs agree, so that nothing can "
        "be compared; draw them only when training is true"
    )
    return _error(node, layers, problem)


def _error(node: Any, layers: frozenset[str], problem: str) -> ExportError:
    layer = layer_of(node.name, layers)
    return ExportError(f"the layer {layer!r} {problem}", op=node.op, layer=layer)


def _matching(nodes: Iterable[Any], ops: re.Pattern[str]) -> Iterator[Any]:
    return (node for node in nodes if ops.fullmatch(node.op))


def _half(node: Any) -> str | None:
    """Return the 16-bit float dtype that a node reads or gives, or None."""
    for attribute in node.attr.values():
        for dtype in (attribute.type, *attribute.list.type):
            if dtype in _HALVES:
                return _HALVES[dtype]
    return None


def _needed(graph_def: Any, fetched: Iterable[str]) -> Iterator[Any]:
    """Yield the nodes that the fetched tensors depend on, and those of functions they call."""
    nodes = {node.name: node for node in graph_def.node}
    functions = {function.signature.name: function for function in graph_def.library.function}
    needed: set[str] = set()
    waiting = [tensor.split(":", 1)[0] for tensor in fetched]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            # A control edge orders what happens and brings no value.
            waiting += [i.split(":", 1)[0] for i in nodes[name].input if not i.startswith("^")]
    seen: set[str] = set()
    called = [node for name, node in nodes.items() if name in needed]
    while called:
        node = called.pop(0)
        yield node
        for attribute in node.attr.values():
            for function in (attribute.func.name, *(f.name for f in attribute.list.func)):
                if function in functions and function not in seen:
                    seen.add(function)
                    called += functions[function].node_def
