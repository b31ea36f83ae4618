"""Exporting a frozen graph to TFLite with TensorFlow's converter."""

from __future__ import annotations

import tempfile
import warnings
from typing import Any

import tensorflow as tf

from stnkit.convert.artifact import ExportedArtifact
from stnkit.convert.frozen import FrozenGraph
from stnkit.convert.quiet import quiet
from stnkit.convert.tflite.checks import check_model
from stnkit.convert.tflite.explain import explain
from stnkit.convert.tflite.rewrite import Names, rewrite


def export_tflite(graph: FrozenGraph) -> ExportedArtifact:
    """Return the graph as a TFLite file in memory, with builtin ops alone.

    The file has the signature of the source and nothing more; taps are tensors inside, under
    their own names.

    Args:
        graph: The frozen source.

    Raises:
        ExportError: If an op is not a builtin one, or a weight is missing; names op and layer.
    """
    content = _convert(graph)
    wanted = Names(
        inputs={f"in_{i}": name for i, name in enumerate(graph.inputs)},
        outputs={f"out_{i}": name for i, name in enumerate(graph.outputs)},
        taps={f"tap_{i}": tap.spec.name for i, tap in enumerate(graph.taps)},
    )
    content, tensors = rewrite(content, wanted)
    check_model(content, graph)
    return ExportedArtifact(
        format="tflite",
        content=content,
        inputs=tensors.inputs,
        outputs=tensors.outputs,
        taps=tensors.taps,
        opset=None,
        batch=graph.batch,
    )


class _Servable(tf.Module):
    """The frozen graph as a module, with plain names that any signature may have."""

    def __init__(self, graph: FrozenGraph) -> None:
        super().__init__()
        function = graph.function()
        names = [f"out_{i}" for i in range(len(graph.outputs))]
        names += [f"tap_{i}" for i in range(len(graph.taps))]
        specs = [
            tf.TensorSpec(tensor.shape, tensor.dtype, name=f"in_{i}")
            for i, tensor in enumerate(function.inputs)
        ]
        self._function = function  # keeps the graph alive

        def serve(*tensors: Any) -> dict[str, Any]:
            results = function(*tensors)
            # Distinct tensors, else the converter merges outputs that are equal.
            return {name: tf.identity(v) for name, v in zip(names, results, strict=True)}

        self.serve = tf.function(serve, input_signature=specs)


def _convert(graph: FrozenGraph) -> bytes:
    servable = _Servable(graph)
    # Through a SavedModel: from concrete functions the converter can write a file without weights,
    # and gives it no signature.
    with (
        tempfile.TemporaryDirectory(prefix="stnkit-") as folder,
        quiet("tensorflow", "absl"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # the converter's own deprecations
        tf.saved_model.save(servable, folder, signatures=servable.serve.get_concrete_function())
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        try:
            content: bytes = converter.convert()
        except Exception as exc:  # the converter raises its own class and several of Python's
            raise explain(exc, graph) from exc
    return content
