"""Samplers as ONNX GridSample: one op in place of the gathers.

ONNX Runtime samples fastest in one case, bilinear with "zeros" and `align_corners=0`. A point in
pixels means the same whatever -1 and 1 stand for, so that every sampler becomes that case: its
coordinates are normalised as `align_corners=0` has it. Where theta is known, the grid is computed
from it anew, in the order of axes that GridSample takes; see `grid_points`.

Source: ONNX operator GridSample, versions 16 and 20; ONNX Runtime, core/providers/cpu/tensor.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from stnkit.convert.frozen import FrozenGraph
from stnkit.convert.onnx.grid_points import grid_points
from stnkit.convert.onnx.node_builder import NodeBuilder
from stnkit.convert.sampler_spots import SamplerSpot

MARK_OP = "PyFunc"
"""What stands for a sampler until tf2onnx has converted the rest: an op that nothing folds."""

_TOKEN = "stnkit_grid_sample"


def replaceable(graph: FrozenGraph) -> tuple[SamplerSpot, ...]:
    """Return the samplers that GridSample can stand for: float32 images of known sizes."""
    with tf.Graph().as_default() as known:
        tf.import_graph_def(graph.graph_def, name="")
    found = []
    for spot in graph.samplers:
        tensors = [known.get_tensor_by_name(_full(name)) for name in (spot.image, spot.output)]
        open_sizes = any(None in tensor.shape[1:].as_list() for tensor in tensors)
        if tensors[0].dtype == tf.float32 and not open_sizes:
            found.append(spot)
    return tuple(found)


def with_marks(graph_def: Any, spots: Iterable[SamplerSpot]) -> Any:
    """Return the graph with an op for every sampler that `grid_sample_handler` converts.

    Args:
        graph_def: TensorFlow's GraphDef; it is not changed. What computed the samplers' results
            stays in it, unread.
        spots: Samplers that `replaceable` returned.
    """
    marked = tf.compat.v1.GraphDef()
    marked.CopyFrom(graph_def)
    with tf.Graph().as_default() as known:
        tf.import_graph_def(graph_def, name="")
    chosen = {spot.node: spot for spot in spots}
    for node in marked.node:
        spot = chosen.get(node.name)
        if spot is None:
            continue
        rows, columns = known.get_tensor_by_name(_full(spot.output)).shape.as_list()[1:3]
        node.op = MARK_OP
        del node.input[:]
        node.input.extend([spot.image, spot.grid])
        node.attr.clear()
        words = [_TOKEN, spot.padding_mode, spot.kind, str(rows), str(columns)]
        node.attr["token"].s = " ".join(words).encode()
        node.attr["Tin"].list.type.extend([tf.float32.as_datatype_enum] * 2)
        node.attr["Tout"].list.type.append(tf.float32.as_datatype_enum)
    return marked


def grid_sample_handler(ctx: Any, node: Any, name: str, _args: Any) -> None:
    """Write a mark as GridSample, with the image's channels moved to where it wants them."""
    token = node.get_attr_value("token")
    words = (token.decode() if isinstance(token, bytes) else str(token)).split()
    if not words or words[0] != _TOKEN:
        raise ValueError(f"{name}: PyFunc runs Python code, which has no ONNX equivalent")
    padding_mode, kind, rows, columns = words[1], words[2], int(words[3]), int(words[4])
    image, grid = node.input
    (output,) = node.output
    batch, height, width, channels = ctx.get_shape(image)
    build = NodeBuilder(ctx, name)
    points = grid_points(
        build, kind, grid, [batch, rows, columns, 2], (height, width), padding_mode
    )
    there = _channels_first(build, image, [batch, channels, height, width])
    ctx.remove_node(name)
    sampled = build.op(
        "GridSample",
        [there, points],
        [batch, channels, rows, columns],
        attr={"mode": "bilinear", "padding_mode": padding_mode, "align_corners": 0},
    )
    _channels_last(build, sampled, [batch, rows, columns, channels], output)


def _channels_first(build: NodeBuilder, image: str, shape: list[int]) -> str:
    # The values of one channel lie in the same order either way.
    if shape[1] == 1:
        return build.reshaped(image, shape)
    return build.op("Transpose", [image], shape, attr={"perm": [0, 3, 1, 2]})


def _channels_last(build: NodeBuilder, image: str, shape: list[int], output: str) -> str:
    if shape[3] == 1:
        return build.reshaped(image, shape, output=output)
    return build.op("Transpose", [image], shape, attr={"perm": [0, 2, 3, 1]}, output=output)


def _full(name: str) -> str:
    return name if ":" in name else f"{name}:0"
