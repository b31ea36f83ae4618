"""Samplers as ONNX GridSample: one op in place of the gathers.

ONNX Runtime samples fastest in one case, bilinear with "zeros" and `align_corners=0`. A point in
pixels means the same whatever -1 and 1 stand for, so that every sampler becomes that case: its
coordinates are normalised as `align_corners=0` has it. For an affine theta that changes theta
alone, and the grid is computed from it anew, in the order of axes that GridSample takes.

Source: ONNX operator GridSample, versions 16 and 20; ONNX Runtime, core/providers/cpu/tensor.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from stnkit.convert.frozen import FrozenGraph
from stnkit.convert.onnx.node_builder import NodeBuilder
from stnkit.convert.sampler_spots import SamplerSpot

MARK_OP = "PyFunc"
"""What stands for a sampler until tf2onnx has converted the rest: an op that nothing folds."""

_TOKEN = "stnkit_grid_sample"
# Beyond, every point reads the same as there: 3 is outside of an image of one pixel. NaN becomes
# the lowest; a comparison with it is false in every runtime.
_LOWEST, _HIGHEST = -4e9, 1e9
_OUTSIDE = 4.0


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
    shape = [batch, rows, columns, 2]
    if kind == "points":
        points = _from_pixels(build, grid, shape, (height, width))
    else:
        points = _from_theta(build, grid, shape, (height, width), kind == "corners")
    if padding_mode != "zeros":
        # At a million pixels float32 has no fractions left, and the two weights of a point add up
        # to 0, not to 1.
        bounds = [build.constant(-_OUTSIDE), build.constant(_OUTSIDE)]
        points = build.op("Clip", [points, *bounds], [batch, 2, rows, columns])
    points = build.op("Transpose", [points], shape, attr={"perm": [0, 2, 3, 1]})
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


def _from_pixels(
    build: NodeBuilder, points: str, shape: list[int], image_size: tuple[int, int]
) -> str:
    """Return the normalised grid `[batch, 2, rows, columns]` of points in pixels."""
    height, width = image_size
    # x = (2 p + 1) / size - 1, for which -1 and 1 are the outer edges of the image.
    batch, rows, columns, _ = shape
    there = [batch, 2, rows, columns]
    scale = build.constant(np.reshape([2 / width, 2 / height], [2, 1, 1]))
    offset = build.constant(np.reshape([1 / width - 1, 1 / height - 1], [2, 1, 1]))
    return build.op("Add", [build.op("Mul", [points, scale], there), offset], there)


def _from_theta(
    build: NodeBuilder,
    theta: str,
    shape: list[int],
    image_size: tuple[int, int],
    align_corners: bool,
) -> str:
    """Return the normalised grid `[batch, 2, rows, columns]` of affine thetas `[batch, 2, 3]`."""
    batch, rows, columns, _ = shape
    if align_corners:
        height, width = image_size
        edges = np.reshape([(width - 1) / width, (height - 1) / height], [2, 1])
        theta = build.op("Mul", [theta, build.constant(edges)], [batch, 2, 3])
    line, pile = _parts(
        build, theta, _centres(columns, align_corners), _centres(rows, align_corners), batch
    )
    line = build.unsqueezed(line, 2, [batch, 2, 1, columns])
    pile = build.unsqueezed(pile, 3, [batch, 2, rows, 1])
    # Added with x and y apart, and brought together after: runtimes add long rows fast, pairs not.
    return build.op("Add", [line, pile], [batch, 2, rows, columns])


def _parts(build: NodeBuilder, theta: str, x: Any, y: Any, batch: int) -> tuple[str, str]:
    """Return what columns `[batch, 2, columns]` and rows `[batch, 2, rows]` add to a point.

    Infinities that would cancel to NaN, and NaN, end on the low side, as in `pixel_grid`. A matrix
    product would do with fewer ops; but tools that quantise products would round theta to 8 bits.
    """
    first, second, third = build.split(theta, 2, [[batch, 2, 1]] * 3)
    line = build.op("Mul", [first, build.constant(x)], [batch, 2, len(x)])
    pile = build.op("Mul", [second, build.constant(y)], [batch, 2, len(y)])
    pile = build.op("Add", [pile, third], [batch, 2, len(y)])
    return (
        _kept(build, line, [batch, 2, len(x)], 1.0),
        _kept(build, pile, [batch, 2, len(y)], 0.5),
    )


def _kept(build: NodeBuilder, tensor: str, shape: list[int], part: float) -> str:
    """Return a tensor without NaN and infinities; a part of the bounds applies."""
    lowest, highest = -part * _HIGHEST, part * _HIGHEST
    above = build.op("Greater", [tensor, build.constant(lowest)], shape, dtype="bool")
    kept = build.op("Where", [above, tensor, build.constant(part * _LOWEST)], shape)
    return build.op("Min", [kept, build.constant(highest)], shape)


def _centres(size: int, align_corners: bool) -> Any:
    """Return the normalised coordinates of pixel centres; see `models.grids.pixel_centres`."""
    index = np.arange(size)
    if not align_corners:
        return (2 * index + 1) / size - 1
    return 2 * index / (size - 1) - 1 if size > 1 else np.zeros(1)


def _full(name: str) -> str:
    return name if ":" in name else f"{name}:0"
