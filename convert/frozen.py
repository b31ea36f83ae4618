"""The source as one flat graph with its weights inside: what both exporters start from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from stnkit.convert.layer_names import layer_of
from stnkit.convert.source.model import SourceModel
from stnkit.convert.tap_search import Tap, find_taps
from stnkit.runtime.errors import ExportError, one_line
from stnkit.runtime.signature import BATCH, TensorSpec

# What no target can do, whatever freezing makes of the rest.
_STATE_OR_CODE = re.compile(r"Assign\w*|ResourceScatter\w*|PyFunc(Stateless)?|EagerPyFunc")
# What must not be left after freezing: the value of each lives outside of the graph.
_UNFROZEN = re.compile(
    r"VarHandleOp|ReadVariableOp|Variable(V2)?|ResourceGather(Nd)?|(Mutable)?HashTable(V2)?|"
    r"Lookup\w+"
)


@dataclass(frozen=True)
class FrozenGraph:
    """A graph of standard ops and constants.

    Attributes:
        graph_def: TensorFlow's GraphDef, without functions of the model left to call.
        inputs: Tensor in the graph of every input, by its name in the signature.
        outputs: The same for outputs.
        taps: Theta and warped image of every spatial transformer.
        batch: Fixed batch size, or None.
        layers: Names of the Keras layers, where known.
    """

    graph_def: Any = field(repr=False)
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    taps: tuple[Tap, ...]
    batch: int | None
    layers: frozenset[str]

    def function(self) -> Any:
        """Return a TensorFlow function: input tensors in order to outputs, then taps, in order."""
        wrapped = tf.compat.v1.wrap_function(
            lambda: tf.import_graph_def(self.graph_def, name=""), []
        )
        fetched = [*self.outputs.values(), *(tap.tensor for tap in self.taps)]
        return wrapped.prune(list(self.inputs.values()), fetched)

    def runner(self) -> FrozenRunner:
        """Return the graph as something that can be run on arrays."""
        return FrozenRunner(self, self.function())

    def layer_of(self, node: str) -> str:
        """Return the layer that a node of the graph came from."""
        return layer_of(node, self.layers)


@dataclass(frozen=True)
class FrozenRunner:
    """A frozen graph, run by TensorFlow."""

    graph: FrozenGraph
    function: Any = field(repr=False)

    def run(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return (outputs, taps), NumPy arrays by name, for NumPy inputs by name."""
        tensors = [tf.constant(inputs[name]) for name in self.graph.inputs]
        results = [np.asarray(value) for value in self.function(*tensors)]
        count = len(self.graph.outputs)
        outputs = dict(zip(self.graph.outputs, results[:count], strict=True))
        names = [tap.spec.name for tap in self.graph.taps]
        return outputs, dict(zip(names, results[count:], strict=True))


def freeze(source: SourceModel, batch: int | None) -> FrozenGraph:
    """Return the source as a frozen graph.

    Args:
        source: The model.
        batch: Batch size to fix, or None to leave it open.

    Raises:
        ExportError: If a weight cannot be turned into a constant, or the graph calls Python code.
    """
    specs = [_tensor_spec(spec, index, batch) for index, spec in enumerate(source.inputs)]

    def traced(*tensors: Any) -> list[Any]:
        values = {spec.name: value for spec, value in zip(source.inputs, tensors, strict=True)}
        results = source.call(values)
        return [tf.identity(results[spec.name]) for spec in source.outputs]

    concrete = tf.function(traced).get_concrete_function(*specs)
    _check(concrete.graph.as_graph_def(), source.layers, _STATE_OR_CODE)
    try:
        frozen = convert_variables_to_constants_v2(
            concrete, lower_control_flow=False, aggressive_inlining=True
        )
    except Exception as exc:  # TensorFlow raises errors of every family here
        raise ExportError(f"the model cannot be frozen ({one_line(exc)})") from exc
    graph_def = frozen.graph.as_graph_def()
    _check(graph_def, source.layers, _UNFROZEN)
    return FrozenGraph(
        graph_def=graph_def,
        inputs={s.name: t.name for s, t in zip(source.inputs, frozen.inputs, strict=True)},
        outputs={s.name: t.name for s, t in zip(source.outputs, frozen.outputs, strict=True)},
        taps=find_taps(frozen.graph, source.layers),
        batch=batch,
        layers=source.layers,
    )


def _tensor_spec(spec: TensorSpec, index: int, batch: int | None) -> Any:
    shape: list[int | None] = [size if isinstance(size, int) else None for size in spec.shape]
    if spec.shape[0] == BATCH:
        shape[0] = batch
    # Names of inputs may hold anything; those of graph nodes may not.
    return tf.TensorSpec(shape, spec.dtype, name=f"in_{index}")


def _check(graph_def: Any, layers: frozenset[str], refused: re.Pattern[str]) -> None:
    nodes = [*graph_def.node, *(n for f in graph_def.library.function for n in f.node_def)]
    for node in nodes:
        if not refused.fullmatch(node.op):
            continue
        layer = layer_of(node.name, layers)
        if "PyFunc" in node.op:
            problem = f"calls Python code ({node.op}) while it runs: write it with TensorFlow ops"
        elif node.op.startswith(("Assign", "ResourceScatter")):
            problem = f"changes a variable while it infers ({node.op}): no artifact keeps state"
        else:
            problem = (
                f"has a weight that is missing from the graph: {node.name} ({node.op}) could not "
                "be made a constant"
            )
        raise ExportError(f"the layer {layer!r} {problem}", op=node.op, layer=layer)
