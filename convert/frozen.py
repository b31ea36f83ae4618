"""The source as one flat graph with its weights inside: what both exporters start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from stnkit.convert.dimensions import named_shape
from stnkit.convert.layer_names import layer_of
from stnkit.convert.refused_ops import check_frozen, check_trace
from stnkit.convert.sampler_spots import SamplerSpot, take_marks
from stnkit.convert.source.model import SourceModel
from stnkit.convert.tap_search import Tap, find_taps
from stnkit.runtime.errors import ExportError, OutOfMemoryError, one_line
from stnkit.runtime.signature import BATCH, Shape, TensorSpec

_COMPILED = "_XlaMustCompile"
_CALLS = ("PartitionedCall", "While", "If", "Case")
_LARGE_BYTES = 2**20


@dataclass(frozen=True)
class FrozenGraph:
    """A graph of standard ops and constants.

    Attributes:
        graph_def: TensorFlow's GraphDef, without functions of the model left to call.
        inputs: Tensor in the graph of every input, by its name in the signature.
        outputs: The same for outputs.
        shapes: Shape of every tensor of `inputs` and `outputs`, by its name in the graph.
        taps: Theta and warped image of every spatial transformer; no tap has the name of an input
            or an output.
        batch: Fixed batch size, or None.
        layers: Names of the Keras layers, where known.
        samplers: The samplers that one op can stand for.
    """

    graph_def: Any = field(repr=False)
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    shapes: Mapping[str, Shape]
    taps: tuple[Tap, ...]
    batch: int | None
    layers: frozenset[str]
    samplers: tuple[SamplerSpot, ...] = ()

    def function(self, drives: Sequence[str] = ()) -> Any:
        """Return a TensorFlow function: input tensors in order to outputs, then taps, in order.

        Args:
            drives: Names of taps that are given behind the inputs, and do not come out.
        """
        wrapped = tf.compat.v1.wrap_function(
            lambda: tf.import_graph_def(self.graph_def, name=""), []
        )
        tensors = {tap.spec.name: tap.tensor for tap in self.taps}
        driven = [tensors.pop(name) for name in drives]
        fetched = [*self.outputs.values(), *tensors.values()]
        return wrapped.prune([*self.inputs.values(), *driven], fetched)

    def skeleton(self) -> Any:
        """Return the GraphDef with placeholders for its large constants.

        It is all there but for the values of weights, and takes kilobytes.
        """
        return _without_weights(self.graph_def)[0]

    def runner(
        self, drives: Sequence[str] = (), *, beside: FrozenRunner | None = None
    ) -> FrozenRunner:
        """Return the graph as something that can be run on arrays.

        Large weights are handed to it at each run: as constants TensorFlow copies them half a
        dozen times on the way from a graph to kernels.

        Args:
            drives: Names of taps that are given and not computed.
            beside: Another runner of this graph, whose weights it takes.
        """
        light, names = _without_weights(self.graph_def)
        tensors = {tap.spec.name: tap.tensor for tap in self.taps}
        driven = [tensors.pop(name) for name in drives]
        fetched = [*self.outputs.values(), *tensors.values()]
        given = [*self.inputs.values(), *driven, *(f"{name}:0" for name in names)]
        function = _between(light, given, fetched)
        weights = self._weights(names) if beside is None else beside.weights
        return FrozenRunner(self, function, tuple(drives), weights)

    def _weights(self, names: Sequence[str]) -> tuple[Any, ...]:
        constants = {node.name: node for node in self.graph_def.node if node.name in names}
        values = (tf.make_ndarray(constants[name].attr["value"].tensor) for name in names)
        return tuple(tf.constant(value) for value in values)

    def layer_of(self, node: str) -> str:
        """Return the layer that a node of the graph came from."""
        return layer_of(node, self.layers)


@dataclass(frozen=True)
class FrozenRunner:
    """A frozen graph, run by TensorFlow."""

    graph: FrozenGraph
    function: Any = field(repr=False)
    drives: tuple[str, ...] = ()
    weights: tuple[Any, ...] = field(default=(), repr=False)

    def run(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return (outputs, taps), NumPy arrays by name, for NumPy inputs by name.

        Raises:
            OutOfMemoryError: If there is not enough memory.
        """
        tensors = [tf.constant(inputs[name]) for name in (*self.graph.inputs, *self.drives)]
        try:
            results = [np.asarray(value) for value in self.function(*tensors, *self.weights)]
        except tf.errors.ResourceExhaustedError as exc:
            raise OutOfMemoryError(f"not enough memory for the model ({one_line(exc)})") from exc
        count = len(self.graph.outputs)
        outputs = dict(zip(self.graph.outputs, results[:count], strict=True))
        names = [tap.spec.name for tap in self.graph.taps if tap.spec.name not in self.drives]
        return outputs, dict(zip(names, results[count:], strict=True))


def freeze(source: SourceModel, batch: int | None) -> FrozenGraph:
    """Return the source as a frozen graph.

    Args:
        source: The model.
        batch: Batch size to fix, or None to leave it open; an input whose batch the model itself
            fixes keeps its own.

    Raises:
        ExportError: If a weight cannot be turned into a constant, or the graph calls Python code,
            keeps state, draws random numbers, or computes in 16 bits.
    """
    specs = [_tensor_spec(spec, index, batch) for index, spec in enumerate(source.inputs)]

    def traced(*tensors: Any) -> list[Any]:
        values = {spec.name: value for spec, value in zip(source.inputs, tensors, strict=True)}
        results = source.call(values)
        return [tf.identity(results[spec.name]) for spec in source.outputs]

    concrete = tf.function(traced).get_concrete_function(*specs)
    check_trace(concrete.graph.as_graph_def(), source.layers)
    try:
        frozen = convert_variables_to_constants_v2(
            concrete, lower_control_flow=False, aggressive_inlining=True
        )
    except Exception as exc:  # TensorFlow raises errors of every family here
        raise ExportError(f"the model cannot be frozen ({one_line(exc)})") from exc
    frozen = _without_compiled_calls(frozen)
    inputs = dict(zip((spec.name for spec in source.inputs), frozen.inputs, strict=True))
    outputs = dict(zip((spec.name for spec in source.outputs), frozen.outputs, strict=True))
    taps = find_taps(frozen.graph, source.layers, {*inputs, *outputs})
    graph_def = frozen.graph.as_graph_def()
    samplers = take_marks(graph_def)
    fetched = [*(tensor.name for tensor in outputs.values()), *(tap.tensor for tap in taps)]
    check_frozen(graph_def, fetched, source.layers)
    return FrozenGraph(
        graph_def=graph_def,
        inputs={name: tensor.name for name, tensor in inputs.items()},
        outputs={name: tensor.name for name, tensor in outputs.items()},
        shapes={
            tensor.name: named_shape(name, tensor.shape.as_list())
            for role in (inputs, outputs)
            for name, tensor in role.items()
        },
        taps=taps,
        batch=_fixed_batch(specs),
        layers=source.layers,
        samplers=samplers,
    )


def _without_compiled_calls(frozen: Any) -> Any:
    """Return a frozen function in which what XLA was to compile stands like everything else.

    TensorFlow leaves calls of functions with `jit_compile=True` as calls, for XLA to find them.
    """
    if not any(op.type.endswith(_CALLS) for op in frozen.graph.get_operations()):
        return frozen  # told without a copy of all weights
    graph_def = frozen.graph.as_graph_def()
    library = graph_def.library.function
    nodes = [*graph_def.node, *(node for function in library for node in function.node_def)]
    marked = [item for item in (*nodes, *library) if _COMPILED in item.attr]
    if not marked:
        return frozen
    for item in marked:
        del item.attr[_COMPILED]
    # TensorFlow knows other functions by these names.
    names = {function.signature.name: f"{function.signature.name}_plain" for function in library}
    for function in library:
        function.signature.name = names[function.signature.name]
    for node in nodes:
        node.op = names.get(node.op, node.op)
        for attribute in node.attr.values():
            calls = [attribute.func] if attribute.HasField("func") else attribute.list.func
            for called in calls:
                called.name = names.get(called.name, called.name)
    wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph_def, name=""), [])
    sides = [
        [wrapped.graph.get_tensor_by_name(tensor.name) for tensor in tensors]
        for tensors in (frozen.inputs, frozen.outputs)
    ]
    return convert_variables_to_constants_v2(
        wrapped.prune(*sides), lower_control_flow=False, aggressive_inlining=True
    )


def _between(graph_def: Any, given: Sequence[str], fetched: Sequence[str]) -> Any:
    """Return a TensorFlow function from some tensors of a graph to others.

    `prune` gives the same, and copies the graph for it one op after the other in Python.
    """
    with tf.Graph().as_default() as known:
        tf.import_graph_def(graph_def, name="")
        shown = [known.get_tensor_by_name(name) for name in given]
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in shown]
    computed = [name for name in dict.fromkeys(fetched) if name not in given]

    def run(*values: Any) -> list[Any]:
        there = dict(zip(given, values, strict=True))
        found = tf.import_graph_def(graph_def, input_map=there, return_elements=computed, name="")
        there.update(zip(computed, found, strict=True))
        return [tf.identity(there[name]) for name in fetched]

    return tf.function(run, input_signature=specs, autograph=False).get_concrete_function()


def _without_weights(graph_def: Any) -> tuple[Any, list[str]]:
    """Return the graph with placeholders for its large floats, and their names."""
    light = tf.compat.v1.GraphDef()
    names = []
    for node in graph_def.node:
        if node.op != "Const" or node.ByteSize() < _LARGE_BYTES:
            light.node.add().CopyFrom(node)
            continue
        tensor = node.attr["value"].tensor
        placeholder = light.node.add(name=node.name, op="Placeholder")
        placeholder.attr["dtype"].type = tensor.dtype
        placeholder.attr["shape"].shape.CopyFrom(tensor.tensor_shape)
        names.append(node.name)
    light.versions.CopyFrom(graph_def.versions)
    light.library.CopyFrom(graph_def.library)
    return light, names


def _tensor_spec(spec: TensorSpec, index: int, batch: int | None) -> Any:
    shape: list[int | None] = [size if isinstance(size, int) else None for size in spec.shape]
    if spec.shape[0] == BATCH:
        shape[0] = batch
    # Names of inputs may hold anything; those of graph nodes may not.
    return tf.TensorSpec(shape, spec.dtype, name=f"in_{index}")


def _fixed_batch(specs: Sequence[Any]) -> int | None:
    sizes: set[int | None] = {spec.shape[0] for spec in specs}
    return sizes.pop() if len(sizes) == 1 else None
