"""Exporting a frozen graph to ONNX with tf2onnx."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from stnkit.convert.artifact import ExportedArtifact
from stnkit.convert.frozen import FrozenGraph
from stnkit.convert.onnx.checks import check_graph
from stnkit.convert.onnx.handlers import HANDLERS
from stnkit.convert.onnx.sampler_ops import (
    MARK_OP,
    SamplerOp,
    chosen_ops,
    form_of,
    sampler_handler,
    with_marks,
)
from stnkit.convert.onnx.tidy import hide_outputs, name_dimensions, whole_sizes
from stnkit.convert.onnx.upgrade import TF2ONNX_OPSET, upgrade
from stnkit.convert.options import OPSETS, Sampler
from stnkit.convert.quiet import quiet
from stnkit.convert.sampler_spots import SamplerSpot
from stnkit.convert.unique_names import unique_name
from stnkit.runtime.errors import ExportError, one_line


def export_onnx(graph: FrozenGraph, opset: int, sampler: Sampler = "auto") -> ExportedArtifact:
    """Return the graph as an ONNX file in memory.

    The file has the signature of the source and nothing more; taps are tensors inside, under
    their own names.

    Args:
        graph: The frozen source.
        opset: One of `OPSETS`.
        sampler: How samplers are written, see `chosen_ops`.

    Raises:
        ExportError: If an op has no ONNX equivalent, or none in a newer opset; names it and its
            layer or node.
        ValueError: If the opset is another one.
    """
    if opset not in OPSETS:
        raise ValueError(f"opset is {opset}: expected one of {OPSETS}")
    inputs = {name: name for name in graph.inputs}
    taps = {tap.spec.name: tap.spec.name for tap in graph.taps}
    # In the file, inputs and outputs share one space of names; in a signature they do not.
    taken = {*inputs, *graph.outputs, *taps}
    outputs = {n: unique_name(n, taken) if n in inputs else n for n in graph.outputs}
    ops = chosen_ops(graph, sampler, opset)
    model = _convert(graph, min(opset, TF2ONNX_OPSET), outputs, ops)
    check_graph(model, graph, opset)
    whole_sizes(model)
    model = upgrade(model, opset)
    hide_outputs(model, taps.values())
    shapes = {inputs[name]: graph.shapes[tensor] for name, tensor in graph.inputs.items()}
    shapes |= {outputs[name]: graph.shapes[tensor] for name, tensor in graph.outputs.items()}
    name_dimensions(model, shapes, graph.batch)
    return ExportedArtifact(
        format="onnx",
        content=model.SerializeToString(),
        inputs=inputs,
        outputs=outputs,
        taps=taps,
        opset=opset,
        batch=graph.batch,
        sampler=form_of(ops),
    )


def _convert(
    graph: FrozenGraph,
    opset: int,
    outputs: Mapping[str, str],
    ops: Mapping[SamplerSpot, SamplerOp],
) -> Any:
    from tf2onnx import optimizer, tf_loader, tfonnx

    inputs = list(graph.inputs.values())
    fetched = [*graph.outputs.values(), *(tap.tensor for tap in graph.taps)]
    renamed = {tensor: name for name, tensor in graph.inputs.items()}
    renamed |= {tensor: outputs[name] for name, tensor in graph.outputs.items()}
    renamed |= {tap.tensor: tap.spec.name for tap in graph.taps}
    try:
        with quiet("tf2onnx", "tensorflow", "absl"):
            with tf.Graph().as_default():
                marked = with_marks(graph.graph_def, ops) if ops else graph.graph_def
                optimized = tf_loader.tf_optimize(inputs, fetched, marked)
            with tf.Graph().as_default() as tf_graph:
                tf.import_graph_def(optimized, name="")
                onnx_graph = tfonnx.process_tf_graph(
                    tf_graph,
                    opset=opset,
                    input_names=inputs,
                    output_names=fetched,
                    tensors_to_rename=renamed,
                    custom_op_handlers={**HANDLERS, MARK_OP: (sampler_handler, [])},
                    # What it cannot convert stays in the graph, where it is found and named.
                    continue_on_error=True,
                )
            return optimizer.optimize_graph(onnx_graph).make_model("stnkit", producer_name="stnkit")
    except Exception as exc:  # tf2onnx raises whatever its handlers raise
        raise ExportError(
            f"tf2onnx cannot convert the model ({type(exc).__name__}: {one_line(exc)})",
            format="onnx",
        ) from exc
