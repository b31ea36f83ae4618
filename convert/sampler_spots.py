"""Finding the samplers of a graph by the marks that they left; see `stnkit.models.taps`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from stnkit.models.taps import SAMPLED_MARK

_MARK = re.compile(rf"{SAMPLED_MARK}_([a-z]+)_([a-z0-9]+)(_\d+)?")


@dataclass(frozen=True)
class SamplerSpot:
    """A bilinear sampler in a graph, which one op can stand for.

    Attributes:
        node: The node whose output is the sampled image, an Identity.
        image: Tensor that is read, `[batch, height, width, channels]`.
        grid: Tensor that says where it is read.
        kind: What that is: `"points"` for `[batch, 2, height, width]` in pixels, else the kind of a
            theta, see `stnkit.models.sampling.pixel_grid.theta_kind`.
        padding_mode: `"zeros"` or `"border"`.
    """

    node: str
    image: str
    grid: str
    kind: str
    padding_mode: str

    @property
    def output(self) -> str:
        """Tensor that holds the sampled image."""
        return f"{self.node}:0"


def take_marks(graph_def: Any) -> tuple[SamplerSpot, ...]:
    """Turn every mark of a graph into an Identity, and return what the marks said.

    Args:
        graph_def: TensorFlow's GraphDef, flat; it is changed.
    """
    spots = []
    for node in graph_def.node:
        match = _MARK.fullmatch(node.name.rsplit("/", 1)[-1])
        if node.op != "IdentityN" or match is None:
            continue
        data = [name for name in node.input if not name.startswith("^")]
        control = [name for name in node.input if name.startswith("^")]
        spots.append(SamplerSpot(node.name, data[1], data[2], match[2], match[1]))
        dtype = node.attr["T"].list.type[0]
        node.op = "Identity"
        del node.input[:]
        node.input.extend([data[0], *control])
        node.attr.clear()
        node.attr["T"].type = dtype
    return tuple(spots)
