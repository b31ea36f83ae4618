"""What thetas become on their way to points, kept finite."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from stnkit.convert.onnx.node_builder import NodeBuilder
from stnkit.models.transforms.thin_plate_spline import FAR, ThinPlateSpline

_KIND = re.compile(r"(?:spline(\d+))?(corners|edges)")

# Beyond, every point reads the same as there: 3 is outside of an image of one pixel. NaN becomes
# the lowest; a comparison with it is false in every runtime.
_LOWEST, _HIGHEST = -4e9, 1e9

# How far from 0 a line may start, and how steep it may be: what starts too far stays outside.
START, SLOPE = -_LOWEST, _HIGHEST


def parse_kind(kind: str) -> tuple[int, bool] | None:
    """Return what a kind of theta says, see `stnkit.models.sampling.pixel_grid.theta_kind`.

    Returns:
        Control points along a side, 0 for an affine theta, and `align_corners`; None for points.
    """
    found = _KIND.fullmatch(kind)
    return None if found is None else (int(found[1] or 0), found[2] == "corners")


def inner_scale(image_size: tuple[int, int], shape: list[int]) -> Any:
    """Return what turns coordinates whose 1 is a corner's centre to those whose 1 is an edge."""
    height, width = image_size
    return np.reshape([(width - 1) / width, (height - 1) / height], shape)


def lines_within_bounds(build: NodeBuilder, lines: str, shape: list[int], most: Any) -> str:
    """Return lines without NaN and infinities, for zeros outside.

    A theta that is not finite spoils slope or start, where its product with 0 is NaN. Slopes are
    kept below what starts become then, so that all points of such an axis are outside, on whichever
    side; NaN becomes the lowest.

    Args:
        build: Makes the nodes.
        lines: Name of starts and slopes.
        shape: Their shape.
        most: What they may be, `START` or `SLOPE` for each, to be broadcast.
    """
    lowest = build.constant(-np.asarray(most))
    above = build.op("Greater", [lines, lowest], shape, dtype="bool")
    kept = build.op("Where", [above, lines, lowest], shape)
    return build.op("Min", [kept, build.constant(most)], shape)


def outer_sum(
    build: NodeBuilder,
    theta: str,
    shape: list[int],
    places: tuple[Any, Any],
    middle: str | None = None,
) -> str:
    """Return the planes of affine thetas as what a row gives and what a column gives.

    Args:
        build: Makes the nodes.
        theta: Name of `[batch, 2, 3]`.
        shape: `[batch, 2, rows, columns]`, that of the result.
        places: What the second column of theta is multiplied by in each row, and the first in each
            column.
        middle: Name of what is added, `[2, 1]`; None for nothing.
    """
    batch, _, rows, columns = shape
    y, x = places
    first, second, third = build.split(theta, 2, [[batch, 2, 1]] * 3)
    if middle is not None:
        third = build.op("Add", [third, middle], [batch, 2, 1])
    line = build.op("Mul", [first, build.constant(x)], [batch, 2, columns])
    pile = build.op("Mul", [second, build.constant(y)], [batch, 2, rows])
    pile = build.op("Add", [pile, third], [batch, 2, rows])
    line = _kept(build, line, [batch, 2, columns], 1.0)
    pile = _kept(build, pile, [batch, 2, rows], 0.5)
    line = build.unsqueezed(line, 2, [batch, 2, 1, columns])
    pile = build.unsqueezed(pile, 3, [batch, 2, rows, 1])
    # Added with x and y apart, and brought together after: runtimes add long rows fast, pairs not.
    return build.op("Add", [line, pile], shape)


def _kept(build: NodeBuilder, tensor: str, shape: list[int], part: float) -> str:
    """Return a tensor without NaN and infinities; a part of the bounds applies."""
    lowest, highest = -part * _HIGHEST, part * _HIGHEST
    above = build.op("Greater", [tensor, build.constant(lowest)], shape, dtype="bool")
    kept = build.op("Where", [above, tensor, build.constant(part * _LOWEST)], shape)
    return build.op("Min", [kept, build.constant(highest)], shape)


def displacements(
    build: NodeBuilder,
    spline: ThinPlateSpline,
    theta: str,
    batch: int,
    image_size: tuple[int, int],
    corners: bool,
) -> str:
    """Return how far a spline's control points are from their places, `[batch, K * K, 2]`.

    One value that is not finite spoils the coordinate everywhere: it then reads far outside.
    """
    there = [batch, len(spline.control), 2]
    moved = build.op("Sub", [theta, build.constant(spline.control)], there)
    if corners:
        moved = build.op("Mul", [moved, build.constant(inner_scale(image_size, [1, 1, 2]))], there)
    total = build.absolute_sum(moved, 1, [batch, 1, 2])
    height, width = image_size
    far = build.constant(np.reshape([2 * FAR / width, 2 * FAR / height], [1, 1, 2]))
    sound = build.op("Less", [total, far], [batch, 1, 2], dtype="bool")
    return build.op("Where", [sound, moved, build.constant(_LOWEST)], there)
