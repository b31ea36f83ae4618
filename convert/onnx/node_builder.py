"""Adding nodes to a graph of tf2onnx."""

from __future__ import annotations

from typing import Any

import numpy as np

_TYPES = {"float32": 1, "bool": 9}  # onnx.TensorProto.DataType


class NodeBuilder:
    """Makes nodes in place of one.

    Args:
        ctx: tf2onnx's graph.
        name: Name of that node; the names of the new ones start with it.
    """

    def __init__(self, ctx: Any, name: str) -> None:
        self._ctx, self._name, self._count = ctx, name, 0

    def op(
        self,
        kind: str,
        inputs: list[str],
        shape: list[int],
        *,
        attr: dict[str, Any] | None = None,
        output: str | None = None,
        dtype: str = "float32",
    ) -> str:
        """Add a node with one output and return the output's name."""
        made = self._ctx.make_node(
            kind,
            inputs,
            attr=attr or {},
            outputs=None if output is None else [output],
            name=self._next(kind),
            shapes=[shape],
            dtypes=[_TYPES[dtype]],
        )
        return str(made.output[0])

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """Add a constant and return its name."""
        made = self._ctx.make_const(self._next("constant"), np.asarray(values, dtype))
        return str(made.output[0])

    def reshaped(self, tensor: str, shape: list[int], output: str | None = None) -> str:
        """Return a tensor in another shape, of which the first size may be -1 for open."""
        sizes = self.constant([-1, *shape[1:]], np.int64)
        return self.op("Reshape", [tensor, sizes], shape, output=output)

    def unsqueezed(self, tensor: str, axis: int, shape: list[int]) -> str:
        """Return a tensor with one axis more."""
        return self.op("Unsqueeze", [tensor, self.constant([axis], np.int64)], shape)

    def absolute_sum(self, tensor: str, axis: int, shape: list[int]) -> str:
        """Return the sums of absolute values along an axis, which stays as one of size 1."""
        if self._ctx.opset < 18:  # the axes became an input
            return self.op("ReduceL1", [tensor], shape, attr={"axes": [axis], "keepdims": 1})
        axes = self.constant([axis], np.int64)
        return self.op("ReduceL1", [tensor, axes], shape, attr={"keepdims": 1})

    def split(self, tensor: str, axis: int, shapes: list[list[int]]) -> list[str]:
        """Return the parts of a tensor along an axis."""
        sizes = self.constant([shape[axis] for shape in shapes], np.int64)
        made = self._ctx.make_node(
            "Split",
            [tensor, sizes],
            attr={"axis": axis},
            output_count=len(shapes),
            name=self._next("Split"),
            shapes=shapes,
            dtypes=[_TYPES["float32"]] * len(shapes),
        )
        return [str(output) for output in made.output]

    def _next(self, kind: str) -> str:
        self._count += 1
        return f"{self._name}/{kind}_{self._count}"
