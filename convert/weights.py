"""Ops and weights of a frozen graph, counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import tensorflow as tf

from stnkit.convert.frozen import FrozenGraph

_SILENT = ("Const", "Placeholder", "NoOp", "Identity")


@dataclass(frozen=True)
class WeightsSummary:
    """What a frozen graph is made of.

    Attributes:
        ops: Count of every op that computes something, most frequent first.
        bytes: Size of all constants.
        dtypes: Number of constants of each dtype.
    """

    ops: dict[str, int]
    bytes: int
    dtypes: dict[str, int]


def weights_summary(graph: FrozenGraph) -> WeightsSummary:
    """Return the ops and the constants of a graph, counted."""
    ops: Counter[str] = Counter()
    dtypes: Counter[str] = Counter()
    size = 0
    for node in graph.graph_def.node:
        if node.op == "Const":
            value = node.attr["value"].tensor
            dtype = tf.as_dtype(value.dtype)
            count = 1
            for dim in value.tensor_shape.dim:
                count *= dim.size
            size += count * dtype.size
            dtypes[dtype.name] += 1
        elif node.op not in _SILENT:
            ops[node.op] += 1
    return WeightsSummary(dict(ops.most_common()), size, dict(dtypes.most_common()))
