"""A Keras model, or anything else that TensorFlow loads, as a subject of a comparison."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from stnkit.convert.frozen import FrozenGraph, FrozenRunner, freeze
from stnkit.convert.graph_nodes import graph_nodes, node_name, tensor_name
from stnkit.convert.source import SourceModel, load_source, source_from_keras
from stnkit.runtime.equivalence.subject import Node, Role, Subject, Tap
from stnkit.runtime.file_constants import Constant
from stnkit.runtime.memory import LARGE_BYTES, give_back
from stnkit.runtime.signature import TensorSpec

# Ops that add products up, and where their weights are.
_WEIGHTED = {
    "Conv2D": 1,
    "Conv3D": 1,
    "DepthwiseConv2dNative": 1,
    "Conv2DBackpropInput": 1,
    "MatMul": 1,
    "BatchMatMulV2": 1,
}
_REDUCING = ("Mean", "Sum", "AvgPool")
# TensorFlow adds a long row of numbers up with an error that grows with its length, not with the
# root of it: 3.7e-4 was measured for a mean over 224 x 224 of them, an eighth of the length.
_LINEAR_GROWTH = 1 / 8


class KerasSubject(Subject):
    """A source model, run by TensorFlow; outputs by the model itself, taps by its frozen graph.

    Args:
        name: The model as the user named it.
        source: The model.
        graph: Its frozen graph, where it has been made already.
    """

    def __init__(self, name: str, source: SourceModel, graph: FrozenGraph | None = None) -> None:
        self.name, self.source = name, source
        self.format = source.origin.kind
        self.graph = graph or freeze(source, None)
        self.inputs = tuple(_fixed(spec, self.graph.batch) for spec in source.inputs)
        self.outputs = tuple(_fixed(spec, self.graph.batch) for spec in source.outputs)
        self.taps = tuple(
            Tap(tap.spec.name, tap.spec.kind, tap.spec.transformer) for tap in self.graph.taps
        )
        self.backend, self.backend_version = "tensorflow", tf.__version__
        self._runners: dict[tuple[str, ...], FrozenRunner] = {}
        self._imported: Any = None
        self._pruned: tuple[list[str], Any] = ([], None)
        self._nodes: tuple[Node, ...] | None = None
        self._large = self.graph.graph_def.ByteSize() >= LARGE_BYTES
        give_back(cycles=self._large)  # freezing leaves several copies of the weights

    def run(
        self,
        inputs: Mapping[str, Any],
        *,
        taps: bool = False,
        drives: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Run the model; see `Subject.run`."""
        found = self._run(inputs, taps, dict(drives or {}))
        if self._large:
            give_back()  # what one run leaves in pieces the next one does not fill
        return found

    def _run(
        self, inputs: Mapping[str, Any], taps: bool, driven: Mapping[str, Any]
    ) -> dict[str, Any]:
        if not taps and not driven:
            return self.source.run(inputs)
        key = tuple(driven)
        if key not in self._runners:
            beside = next(iter(self._runners.values()), None)
            self._runners[key] = self.graph.runner(key, beside=beside)
        outputs, found = self._runners[key].run({**inputs, **driven})
        return {**outputs, **found} if driven else found

    def nodes(self) -> tuple[Node, ...]:
        """Return the nodes of the frozen graph that depend on an input."""
        if self._nodes is None:
            self._nodes = graph_nodes(self.graph)
        return self._nodes

    def node_of(self, role: Role, name: str) -> str | None:
        """Return the node of an input, output or tap."""
        taps = {tap.spec.name: tap.tensor for tap in self.graph.taps}
        tensors = {"input": self.graph.inputs, "output": self.graph.outputs}.get(role, taps)
        return node_name(tensors[name]) if name in tensors else None

    def fetch(
        self,
        inputs: Mapping[str, Any],
        names: Sequence[str],
        drives: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Run the frozen graph; see `Subject.fetch`."""
        driven = dict(drives or {})
        if self._imported is None:
            self._imported = tf.compat.v1.wrap_function(
                lambda: tf.import_graph_def(self.graph.graph_def, name=""), []
            )
        taps = {tap.spec.name: tap.tensor for tap in self.graph.taps}
        fed = [*self.graph.inputs.values(), *(taps[name] for name in driven)]
        wanted = [name for name in names if tensor_name(name) not in fed]
        # With the outputs, every input is needed: TensorFlow refuses to feed one that is not.
        fetched = [*self.graph.outputs.values(), *(tensor_name(name) for name in wanted)]
        key = [*fed, *fetched]
        if self._pruned[0] != key:
            self._pruned = (key, self._imported.prune(fed, fetched))
        function = self._pruned[1]
        given = [inputs[name] for name in self.graph.inputs] + list(driven.values())
        values = function(*(tf.constant(value) for value in given))
        found = values[len(self.graph.outputs) :]
        return {name: np.asarray(value) for name, value in zip(wanted, found, strict=True)}

    def rest(self) -> None:
        """Drop the graphs that were made of the model."""
        self._runners.clear()
        self._imported, self._pruned = None, ([], None)
        give_back(cycles=self._large)

    def constants(self) -> Iterator[Constant]:
        """Yield the float32 constants of the frozen graph, one at a time."""
        for node in self.graph.graph_def.node:
            if node.op == "Const" and node.attr["dtype"].type == tf.float32.as_datatype_enum:
                yield Constant(node.name, tf.make_ndarray(node.attr["value"].tensor))

    def rounding_length(self) -> float:
        """Return the lengths of all dot products and sums in the graph, added up."""
        nodes = {node.name: node for node in self.graph.graph_def.node}
        with tf.Graph().as_default() as known:
            tf.import_graph_def(self.graph.skeleton(), name="")
        total = 0.0
        for node in nodes.values():
            if node.op in _WEIGHTED:
                total += _products(node, nodes)
            elif node.op in _REDUCING:
                total += (_summed(known.get_operation_by_name(node.name)) * _LINEAR_GROWTH) ** 2
        return total


def _fixed(spec: TensorSpec, batch: int | None) -> TensorSpec:
    return spec if batch is None else replace(spec, shape=(batch, *spec.shape[1:]))


def _constant_shape(name: str, nodes: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of a constant; that of a scalar where the node is none."""
    node = nodes.get(name.split(":")[0].lstrip("^"))
    while node is not None and node.op == "Identity":
        node = nodes.get(node.input[0].split(":")[0])
    if node is None or node.op != "Const":
        return ()
    return tuple(int(dim.size) for dim in node.attr["value"].tensor.tensor_shape.dim)


def _products(node: Any, nodes: Mapping[str, Any]) -> int:
    shape = _constant_shape(node.input[_WEIGHTED[node.op]], nodes)
    if len(shape) < 2:
        return 0
    if node.op == "DepthwiseConv2dNative":
        return math.prod(shape[:2])
    if "MatMul" in node.op:
        # Asked for by a name that is not there, protobuf would write it into the graph.
        turned = any(name in node.attr and node.attr[name].b for name in ("transpose_b", "adj_y"))
        return shape[-1 if turned else -2]
    return math.prod(shape[:-1])


def _summed(operation: Any) -> int:
    """Return how many numbers a reduction adds up, as far as the graph knows."""
    if operation.type == "AvgPool":
        return math.prod(operation.get_attr("ksize"))
    before, after = operation.inputs[0].shape, operation.outputs[0].shape
    sizes = [size or 1 for size in before.as_list()[1:]] if before.rank else [1]
    kept = [size or 1 for size in after.as_list()[1:]] if after.rank else [1]
    return max(1, math.prod(sizes) // max(1, math.prod(kept)))


def open_keras(
    model: Any, *, custom_objects: Iterable[str] = (), trusted: bool = False
) -> KerasSubject:
    """Return the subject for a Keras model in memory, or for the path of one or of a SavedModel.

    This is the loader that `stnkit.runtime.equivalence` finds by its entry point.

    Args:
        model: A `keras.Model`, a path, or the name of a shipped model.
        custom_objects: References `module:attr` to the user's own layers.
        trusted: Whether Python code inside the file may run.

    Raises:
        InputError: If it cannot be loaded.
        ExportError: If it cannot be frozen.
    """
    if isinstance(model, (str, Path)):
        source = load_source(model, custom_objects=custom_objects, trusted=trusted)
        return KerasSubject(str(model), source)
    return KerasSubject(model.name, source_from_keras(model))
