"""Conversions of single ops where those of tf2onnx change the meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def _select(ctx: Any, node: Any, _name: str, _args: Any) -> None:
    """Write Select as Where.

    tf2onnx 1.17 writes float selections as `mask * x + (1 - mask) * y`, which is NaN wherever the
    value that is *not* selected is NaN or infinite. The sampler selects exactly to get rid of such
    coordinates; with the product they would become indices far outside of the image.
    """
    from tf2onnx.onnx_opset.controlflow import Select

    node.set_attr("handles_nan", 1)
    Select.version_9(ctx, node)


HANDLERS: Mapping[str, tuple[Any, list[str]]] = {
    "Select": (_select, []),
    "SelectV2": (_select, []),
}
"""TensorFlow op to (handler, arguments), as tf2onnx's `custom_op_handlers` takes them."""
