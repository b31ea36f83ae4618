"""Give a tensor inside a TFLite graph from outside, in place of what the graph computes."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

from stnkit.runtime.errors import InputError
from stnkit.runtime.json_reader import join_names
from stnkit.runtime.tflite_file import buffer_content, check_file, damage_as_input_error, schema

__all__ = ["with_driven_tensors"]

_SHADOW = b"stnkit_computed::"
"""Prefix of the name of the tensor that the graph's own value is written to, unread."""


def with_driven_tensors(model: bytes, names: Collection[str]) -> bytes:
    """Return the model with tensors of its main graph as further inputs.

    The operator that computes such a tensor writes to a copy of it; everything that reads it reads
    the input. The file is written anew from its tables, which loses the alignment of the weights:
    it serves to run, not to ship.

    Args:
        model: a TFLite file's content.
        names: names of computed tensors.

    Returns:
        The content of the changed file, without its signatures.

    Raises:
        InputError: a damaged file, or a name that no operator computes, or several tensors have.
        BackendMissingError: ai-edge-litert is not installed.
    """
    tables = schema()
    check_file(model)
    with damage_as_input_error():
        import flatbuffers
        import numpy as np

        root = tables.ModelT.InitFromPackedBuf(model, 0)
        packed = tables.Model.GetRootAsModel(model, 0)
        for number, buffer in enumerate(root.buffers):
            # What lies behind the flatbuffer would not be written again.
            if buffer.offset and buffer.size:
                content = buffer_content(packed, model, number)
                buffer.data = np.frombuffer(content, np.uint8)
                buffer.offset = buffer.size = 0
        graph = root.subgraphs[0]
        producers: dict[int, Any] = {
            int(index): operator
            for operator in graph.operators
            for index in (operator.outputs if operator.outputs is not None else ())
        }
        indices: dict[bytes, list[int]] = {}
        for index in producers:
            indices.setdefault(graph.tensors[index].name, []).append(index)
        wrong = [name for name in names if len(indices.get(name.encode(), ())) != 1]
        if wrong:
            raise InputError(
                f"not exactly one operator of the TFLite graph computes {join_names(wrong)}"
            )
        inputs = [int(index) for index in graph.inputs]
        for name in names:
            index = indices[name.encode()][0]
            shadow = copy.copy(graph.tensors[index])
            shadow.name = _SHADOW + name.encode()
            graph.tensors.append(shadow)
            operator = producers[index]
            operator.outputs = [
                len(graph.tensors) - 1 if int(output) == index else int(output)
                for output in operator.outputs
            ]
            inputs.append(index)
        graph.inputs = inputs
        root.signatureDefs = []  # they would not name the new inputs
        builder = flatbuffers.Builder(len(model) + 4096)
        builder.Finish(root.Pack(builder), b"TFL3")
        return bytes(builder.Output())
