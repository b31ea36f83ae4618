"""Small rewrites that give an ONNX graph the names and sizes that its users know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx

from stnkit.runtime.signature import BATCH, Shape


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


def whole_sizes(model: Any) -> None:
    """Make the scales of Resize such that the sizes they stand for come out everywhere.

    TensorFlow knows sizes, tf2onnx writes their ratio as a float32, and where that was rounded down
    28 is 27.999 for who multiplies with more digits, and cut to 27: so in onnx's shape inference.
    The next larger number is as near to the ratio.

    Args:
        model: `onnx.ModelProto`, changed in place.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    resizes = [node for node in model.graph.node if node.op_type == "Resize" and node.input[2:]]
    for node in resizes:
        if node.input[2] not in stored:
            continue
        tensor = stored[node.input[2]]
        scales = onnx.numpy_helper.to_array(tensor)
        if (scales == np.round(scales)).all():
            continue
        # Anew for each: what follows a size that was wrong is wrong too.
        sizes = _known_sizes(model, node.input[0])
        if len(sizes) != len(scales):
            continue
        kept = [_scale_for(scale, size) for scale, size in zip(scales, sizes, strict=True)]
        changed = onnx.numpy_helper.from_array(np.array(kept, np.float32), tensor.name)
        tensor.CopyFrom(changed)


def _scale_for(scale: Any, size: int) -> Any:
    exact = float(scale) * size
    wanted = round(exact)
    if 0 <= wanted - exact < 1e-6 * wanted:
        while float(scale) * size < wanted:
            scale = np.nextafter(scale, np.float32(np.inf))
    return scale


def _known_sizes(model: Any, name: str) -> list[int]:
    """Return a tensor's sizes, 0 for those that are open; none where nothing is known."""
    inferred = onnx.shape_inference.infer_shapes(model)
    for value in [*inferred.graph.value_info, *inferred.graph.input]:
        if value.name == name:
            return [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return []


def name_dimensions(model: Any, shapes: Mapping[str, Shape], batch: int | None) -> None:
    """Give every dimension of the inputs and outputs its size or its name.

    Args:
        model: `onnx.ModelProto`, changed in place.
        shapes: Shape of every input and output, by its name in the file.
        batch: Fixed batch size, which takes the place of the name, or None.
    """
    for value in [*model.graph.input, *model.graph.output]:
        del value.type.tensor_type.shape.dim[:]
        for size in shapes[value.name]:
            known = batch if size == BATCH and batch is not None else size
            dim = value.type.tensor_type.shape.dim.add()
            if isinstance(known, int):
                dim.dim_value = known
            else:
                dim.dim_param = known
