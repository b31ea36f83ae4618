"""Ops and constants of a frozen graph, counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import tensorflow as tf

from stnkit.convert.frozen import FrozenGraph

_SILENT = ("Const", "Placeholder", "NoOp", "Identity")

# Integers that are data take more than this; shapes, axes and strides take less.
_SMALL_BYTES = 256


@dataclass(frozen=True)
class WeightsSummary:
    """What a frozen graph is made of.

    A weight is a constant of floats, or one of another dtype above 256 bytes. What is left are
    the shapes, axes and strides that ops take as constants too.

    Attributes:
        ops: Count of every op that computes something, most frequent first.
        weights_bytes: Size of the weights.
        weight_dtypes: Number of weights of each dtype.
        constants_bytes: Size of all constants, weights included.
    """

    ops: dict[str, int]
    weights_bytes: int
    weight_dtypes: dict[str, int]
    constants_bytes: int


def weights_summary(graph: FrozenGraph) -> WeightsSummary:
    """Return the ops and the constants of a graph, counted."""
    ops: Counter[str] = Counter()
    dtypes: Counter[str] = Counter()
    weights_bytes = constants_bytes = 0
    for node in graph.graph_def.node:
        if node.op == "Const":
            value = node.attr["value"].tensor
            dtype = tf.as_dtype(value.dtype)
            size = dtype.size
            for dim in value.tensor_shape.dim:
                size *= dim.size
            constants_bytes += size
            if dtype.is_floating or size > _SMALL_BYTES:
                weights_bytes += size
                dtypes[dtype.name] += 1
        elif node.op not in _SILENT:
            ops[node.op] += 1
    return WeightsSummary(
        dict(ops.most_common()), weights_bytes, dict(dtypes.most_common()), constants_bytes
    )
