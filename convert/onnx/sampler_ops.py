"""Samplers as one ONNX op in place of the gathers: DeformConv, or GridSample.

**DeformConv** of one tap adds an offset to each pixel's own place and reads there, bilinear with
zeros outside: a sampler, when its weights are ones. ONNX Runtime takes half to nine tenths of
GridSample's time for it on a CPU. It came with opset 19, and with ONNX Runtime 1.25; its points are
computed in `offsets`.

**GridSample** is older, and one launch on a GPU whatever the channels are. ONNX Runtime is fastest
in one case, bilinear with "zeros" and `align_corners=0`. A point in pixels
means the same whatever -1 and 1 stand for, so that every sampler becomes that case; its points are
computed in `grid_points`.

Where theta is known, both compute the grid from it anew, in the order of axes that the op takes.

Source: ONNX operators GridSample, versions 16 and 20, and DeformConv, version 19; ONNX Runtime,
core/providers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from stnkit.convert.frozen import FrozenGraph
from stnkit.convert.onnx.grid_points import grid_points
from stnkit.convert.onnx.node_builder import NodeBuilder
from stnkit.convert.onnx.offsets import Axis, offsets
from stnkit.convert.options import DEFORM_CONV_OPSET, Sampler
from stnkit.convert.sampler_spots import SamplerSpot
from stnkit.models.taps import SAMPLED_MARK
from stnkit.runtime.autotune_record import SamplerForm
from stnkit.runtime.errors import ExportError

MARK_OP = "PyFunc"
"""What stands for a sampler until tf2onnx has converted the rest: an op that nothing folds."""

SamplerOp = Literal["DeformConv", "GridSample"]

# On a GPU, ONNX Runtime starts a product for each channel where a batch has several images.
_MOST_CHANNELS = 64

_TOKEN = "stnkit_sampler"


def chosen_ops(graph: FrozenGraph, sampler: Sampler, opset: int) -> Mapping[SamplerSpot, SamplerOp]:
    """Return the samplers that become an op, and which; gathers stay what the others are.

    Both ops take float32 images of known sizes. "auto" is DeformConv where the opset has it and
    there are 64 channels at most, else GridSample.

    Args:
        graph: The frozen source.
        sampler: How samplers are to be written.
        opset: The opset of the file.

    Raises:
        ExportError: If all are to become one op, and one cannot.
    """
    if sampler == "gather":
        return {}
    channels = _channels(graph)
    deformable = {
        spot
        for spot, count in channels.items()
        if opset >= DEFORM_CONV_OPSET and (count <= _MOST_CHANNELS or sampler == "deform-conv")
    }
    transformers = {tap.spec.transformer for tap in graph.taps}
    if sampler != "auto":
        found = deformable if sampler == "deform-conv" else set(channels)
        if not found or len(found) < len(transformers):
            op = "DeformConv" if sampler == "deform-conv" else "GridSample"
            raise ExportError(
                f"{op} can stand for {len(found)} of the {len(transformers)} samplers: it takes "
                'float32 images of known size, "bilinear" with "zeros" or "border"; use --sampler '
                "auto",
                format="onnx",
            )
    if sampler == "grid-sample":
        return dict.fromkeys(channels, "GridSample")
    return {spot: "DeformConv" if spot in deformable else "GridSample" for spot in channels}


def form_of(ops: Mapping[SamplerSpot, SamplerOp]) -> SamplerForm:
    """Return the word for what `chosen_ops` returned: the fastest op that it has."""
    if "DeformConv" in ops.values():
        return "deform-conv"
    return "grid-sample" if ops else "gather"


def _channels(graph: FrozenGraph) -> dict[SamplerSpot, int]:
    """Return the samplers that an op can stand for, with the channels of their images."""
    with tf.Graph().as_default() as known:
        tf.import_graph_def(graph.graph_def, name="")
    found = {}
    for spot in graph.samplers:
        tensors = [known.get_tensor_by_name(_full(name)) for name in (spot.image, spot.output)]
        open_sizes = any(None in tensor.shape[1:].as_list() for tensor in tensors)
        if tensors[0].dtype == tf.float32 and not open_sizes:
            found[spot] = int(tensors[0].shape[-1])
    return found


def with_marks(graph_def: Any, ops: Mapping[SamplerSpot, SamplerOp]) -> Any:
    """Return the graph with a mark for every sampler that `sampler_handler` converts.

    Args:
        graph_def: TensorFlow's GraphDef; it is not changed. What computed the samplers' results
            stays in it, unread.
        ops: What `chosen_ops` returned.
    """
    marked = tf.compat.v1.GraphDef()
    marked.CopyFrom(graph_def)
    with tf.Graph().as_default() as known:
        tf.import_graph_def(graph_def, name="")
    chosen = {spot.node: spot for spot in ops}
    for node in marked.node:
        spot = chosen.get(node.name)
        if spot is None:
            continue
        rows, columns = known.get_tensor_by_name(_full(spot.output)).shape.as_list()[1:3]
        node.op = MARK_OP
        del node.input[:]
        node.input.extend([spot.image, spot.grid])
        node.attr.clear()
        words = [_TOKEN, ops[spot], spot.padding_mode, spot.kind, str(rows), str(columns)]
        node.attr["token"].s = " ".join(words).encode()
        node.attr["Tin"].list.type.extend([tf.float32.as_datatype_enum] * 2)
        node.attr["Tout"].list.type.append(tf.float32.as_datatype_enum)
    return marked


def sampler_handler(ctx: Any, node: Any, name: str, _args: Any) -> None:
    """Write a mark as its op, with the image's channels moved to where it wants them."""
    token = node.get_attr_value("token")
    words = (token.decode() if isinstance(token, bytes) else str(token)).split()
    if not words or words[0] != _TOKEN:
        raise ValueError(f"{name}: PyFunc runs Python code, which has no ONNX equivalent")
    op, padding_mode, kind, rows, columns = *words[1:4], int(words[4]), int(words[5])
    image, grid = node.input
    (output,) = node.output
    batch, height, width, channels = ctx.get_shape(image)
    # Names are a third of a small file.
    build = NodeBuilder(ctx, name.replace(f"{SAMPLED_MARK}_", ""))
    if op == "DeformConv":
        axes = Axis(height, rows), Axis(width, columns)
        points = offsets(build, kind, grid, batch, axes, padding_mode)
        weights = [build.constant(np.ones((channels, 1, 1, 1)))]
        attributes = _each_channel_alone(axes, channels)
    else:
        shape = [batch, rows, columns, 2]
        points = grid_points(build, kind, grid, shape, (height, width), padding_mode)
        weights = []
        attributes = {"mode": "bilinear", "padding_mode": padding_mode, "align_corners": 0}
    there = _channels_first(build, image, [batch, channels, height, width])
    ctx.remove_node(name)
    sampled = build.op(
        op, [there, *weights, points], [batch, channels, rows, columns], attr=attributes
    )
    _channels_last(build, sampled, [batch, rows, columns, channels], output)


def _each_channel_alone(axes: tuple[Axis, Axis], channels: int) -> dict[str, Any]:
    # In groups of one channel nothing is added up: a pixel that is infinite stays in its own.
    down, across = axes
    return {
        "kernel_shape": [1, 1],
        "group": channels,
        "strides": [down.stride, across.stride],
        "pads": [0, 0, down.padding, across.padding],
    }


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
