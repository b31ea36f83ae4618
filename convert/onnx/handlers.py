"""Conversions of single ops where those of tf2onnx change the meaning, or do not exist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def _select(ctx: Any, node: Any, _name: str, _args: Any) -> None:
    """Write Select as Where.

    tf2onnx 1.17 writes float selections as `mask * x + (1 - mask) * y`, which is NaN wherever the
    value that is *not* selected is NaN or infinite. The sampler selects exactly to get rid of such
    coordinates; with the product they would become indices far outside of the image.
    """
    from tf2onnx.onnx_opset.controlflow import Select

    node.set_attr("handles_nan", 1)
    Select.version_9(ctx, node)


def _erfc(ctx: Any, node: Any, name: str, _args: Any) -> None:
    """Write Erfc, which tf2onnx 1.17 does not know, as `1 - Erf(x)`: Keras's exact gelu has it.

    The difference is absolute, one float32 step of 1; the relative one is large where Erfc is
    nearly 0, and so is every product with it there.
    """
    from tf2onnx.utils import map_onnx_to_numpy_type

    dtype = ctx.get_dtype(node.input[0])
    shape = ctx.get_shape(node.input[0])
    outputs = list(node.output)
    erf = ctx.make_node("Erf", [node.input[0]], dtypes=[dtype], shapes=[shape])
    one = ctx.make_const(f"{name}/one", np.ones((), map_onnx_to_numpy_type(dtype)))
    ctx.remove_node(name)
    ctx.make_node(
        "Sub",
        [one.output[0], erf.output[0]],
        outputs=outputs,
        name=name,
        dtypes=[dtype],
        shapes=[shape],
    )


def _reverse(ctx: Any, node: Any, name: str, _args: Any) -> None:
    """Write ReverseV2 as one Slice with negative steps, in place of a chain of transpositions."""
    if not node.inputs[1].is_const():
        raise ValueError(f"{name}: reverses axes that are known only at run time")
    rank = len(ctx.get_shape(node.input[0]))
    axes = sorted(int(axis) % rank for axis in node.inputs[1].get_tensor_value(as_list=True))
    dtype, shape = ctx.get_dtype(node.input[0]), ctx.get_shape(node.input[0])
    outputs = list(node.output)
    values = {
        "starts": [-1] * len(axes),
        "ends": [np.iinfo(np.int64).min] * len(axes),
        "axes": axes,
        "steps": [-1] * len(axes),
    }
    parts = [
        ctx.make_const(f"{name}/{part}", np.array(numbers, np.int64)).output[0]
        for part, numbers in values.items()
    ]
    image = node.input[0]
    ctx.remove_node(name)
    ctx.make_node(
        "Slice", [image, *parts], outputs=outputs, name=name, shapes=[shape], dtypes=[dtype]
    )


HANDLERS: Mapping[str, tuple[Any, list[str]]] = {
    "Erfc": (_erfc, []),
    "ReverseV2": (_reverse, []),
    "Select": (_select, []),
    "SelectV2": (_select, []),
}
"""TensorFlow op to (handler, arguments), as tf2onnx's `custom_op_handlers` takes them."""
