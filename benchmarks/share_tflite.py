"""A TFLite file cut down to some of its operators, and run by LiteRT."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.cases import Array
from stnkit.runtime.tflite_file import buffer_content, schema


def cut(content: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """Return a file with the operators alone that compute some tensors from others.

    The file is written anew, which loses the alignment of the weights: it serves to run here.

    Args:
        content: A file with one graph.
        inputs: Names of the tensors that are given, in the order of the new file's inputs.
        outputs: Names of the tensors that are computed.

    Raises:
        ValueError: If not exactly one tensor has such a name, if no kept operator reads an input,
            or if the inputs do not suffice.
    """
    import flatbuffers

    tables = schema()
    root = tables.ModelT.InitFromPackedBuf(content, 0)
    packed = tables.Model.GetRootAsModel(content, 0)
    for number, buffer in enumerate(root.buffers):
        # What lies behind the flatbuffer would not be written again.
        if buffer.offset and buffer.size:
            buffer.data = np.frombuffer(buffer_content(packed, content, number), np.uint8)
            buffer.offset = buffer.size = 0
    graph = root.subgraphs[0]
    given, wanted = ([_index(graph, name) for name in names] for names in (inputs, outputs))
    producers = {
        int(index): place
        for place, operator in enumerate(graph.operators)
        for index in operator.outputs
    }
    kept: set[int] = set()
    read = set(wanted)
    open_tensors = [index for index in wanted if index not in given]
    while open_tensors:
        index = open_tensors.pop()
        if index in {int(it) for it in graph.inputs}:
            raise ValueError(f"{list(outputs)} depend on more of the file's inputs than {inputs}")
        place = producers.get(index)
        if place is None or place in kept:
            continue
        kept.add(place)
        used = {int(it) for it in graph.operators[place].inputs if it >= 0}
        read |= used
        open_tensors += used.difference(given)
    unread = [name for name, index in zip(inputs, given, strict=True) if index not in read]
    if unread:
        raise ValueError(f"{list(outputs)} do not depend on {unread}")
    graph.operators = [graph.operators[place] for place in sorted(kept)]
    graph.inputs, graph.outputs = given, wanted
    root.signatureDefs = []  # they would not name the new inputs
    builder = flatbuffers.Builder(len(content) + 4096)
    builder.Finish(root.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _index(graph: Any, name: str) -> int:
    found = [i for i, tensor in enumerate(graph.tensors) if tensor.name == name.encode()]
    if len(found) != 1:
        raise ValueError(f"{len(found)} tensors are called {name!r}: expected one")
    return found[0]


def operators(content: bytes) -> dict[str, int]:
    """Return how many operators of each kind a file has."""
    tables = schema()
    root = tables.ModelT.InitFromPackedBuf(content, 0)
    names = {
        value: name for name, value in vars(tables.BuiltinOperator).items() if name[0].isupper()
    }
    codes = [max(it.builtinCode, it.deprecatedBuiltinCode) for it in root.operatorCodes]
    kinds = Counter(names[codes[it.opcodeIndex]] for it in root.subgraphs[0].operators)
    return dict(kinds.most_common())


def tflite_run(
    content: bytes, feeds: Mapping[str, Array], threads: int
) -> Callable[[], list[Array]]:
    """Return a function that runs a file once, from arrays to arrays, in the order of its outputs.

    Args:
        content: The file.
        feeds: An array for every input, by the name of its tensor.
        threads: Threads of LiteRT and XNNPACK.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    inputs = [(item["index"], feeds[item["name"]]) for item in interpreter.get_input_details()]
    outputs = [item["index"] for item in interpreter.get_output_details()]

    def run() -> list[Array]:
        for index, value in inputs:
            interpreter.set_tensor(index, value)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in outputs]

    return run
