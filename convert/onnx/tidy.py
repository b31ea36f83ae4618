"""Small rewrites that give an ONNX graph the names its users know."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stnkit.convert.frozen import FrozenGraph
from stnkit.runtime.signature import BATCH


def hide_outputs(model: Any, names: Iterable[str]) -> None:
    """Make outputs into tensors inside the graph, which keep their names and types.

    1. The entry moves from `graph.output` to `graph.value_info`.
    2. Where the tensor is a copy by Identity that nobody else reads, the original takes the name
       and the copy goes: what remains is the graph as it would be without the output.

    Args:
        model: `onnx.ModelProto`, changed in place.
        names: Names of the outputs to hide.
    """
    graph = model.graph
    hidden = set(names)
    kept = [value for value in graph.output if value.name not in hidden]
    moved = [value for value in graph.output if value.name in hidden]
    del graph.output[:]
    graph.output.extend(kept)
    del_names = {value.name for value in moved}
    existing = [value for value in graph.value_info if value.name not in del_names]
    del graph.value_info[:]
    graph.value_info.extend([*existing, *moved])
    for name in hidden:
        _replace_copy(graph, name)


def _replace_copy(graph: Any, name: str) -> None:
    copy = next((n for n in graph.node if n.op_type == "Identity" and name in n.output), None)
    if copy is None or any(name in node.input for node in graph.node):
        return
    original = copy.input[0]
    fixed = {value.name for value in [*graph.input, *graph.output]}
    fixed |= {tensor.name for tensor in graph.initializer}
    if original in fixed:
        return
    graph.node.remove(copy)
    for node in graph.node:
        for names in (node.input, node.output):
            for index, tensor in enumerate(names):
                if tensor == original:
                    names[index] = name


def name_dimensions(model: Any, source: FrozenGraph) -> None:
    """Give the batch dimension of every input and output its name, or its fixed size.

    Args:
        model: `onnx.ModelProto`, changed in place.
        source: The graph it was made from.
    """
    for value in [*model.graph.input, *model.graph.output]:
        dims = value.type.tensor_type.shape.dim
        for axis, dim in enumerate(dims):
            if axis == 0:
                if source.batch is None:
                    dim.dim_param = BATCH
                else:
                    dim.dim_value = source.batch
            elif not dim.HasField("dim_value"):
                dim.dim_param = f"dim_{axis}"
