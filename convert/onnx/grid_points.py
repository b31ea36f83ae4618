"""Points for ONNX GridSample, computed in the file: from pixels, from affine thetas, from splines.

They are normalised as `align_corners=0` has it, and finite. A matrix product is the shortest way to
them, and its left side is always what is constant: tools that quantise products take those with
constants on the right, and would round theta to 8 bits.

What a product's constant side holds for every pixel is not stored. The file has its rows and
columns apart, and computes it from them; a runtime that folds constants does that once, when it
opens the file.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from stnkit.convert.onnx.node_builder import NodeBuilder
from stnkit.models.transforms.thin_plate_spline import FAR, SCALE, TINY, ThinPlateSpline

_KIND = re.compile(r"(?:spline(\d+))?(corners|edges)")

# Beyond, every point reads the same as there: 3 is outside of an image of one pixel. NaN becomes
# the lowest; a comparison with it is false in every runtime.
_LOWEST, _HIGHEST = -4e9, 1e9

# How far from 0 a line may start, and how steep it may be: what starts too far stays outside.
START, SLOPE = -_LOWEST, _HIGHEST


def grid_points(
    build: NodeBuilder,
    kind: str,
    given: str,
    shape: list[int],
    image_size: tuple[int, int],
    padding_mode: str,
) -> str:
    """Add the nodes that compute a grid, and return its name, `[batch, rows, columns, 2]`.

    Args:
        build: Makes the nodes.
        kind: What is given, see `SamplerSpot.kind`.
        given: Name of the points in pixels, or of theta.
        shape: Shape of the grid; the batch may be -1.
        image_size: `(height, width)` of the image that is read.
        padding_mode: "zeros" or "border".
    """
    found = parse_kind(kind)
    if found is None:
        return _pairs(build, _from_pixels(build, given, shape, image_size), shape, padding_mode)
    points, corners = found
    if points:
        grid = _from_spline(build, given, shape, image_size, corners, points)
        return grid if padding_mode == "zeros" else _bounded(build, grid, shape)
    if corners:
        inner = build.constant(_inner(image_size, [2, 1]))
        given = build.op("Mul", [given, inner], [shape[0], 2, 3])
    if padding_mode == "zeros":
        return _from_theta(build, given, shape, corners)
    return _pairs(build, _from_rows(build, given, shape, corners), shape, padding_mode)


def parse_kind(kind: str) -> tuple[int, bool] | None:
    """Return what a kind of theta says, see `stnkit.models.sampling.pixel_grid.theta_kind`.

    Returns:
        Control points along a side, 0 for an affine theta, and `align_corners`; None for points.
    """
    found = _KIND.fullmatch(kind)
    return None if found is None else (int(found[1] or 0), found[2] == "corners")


def _pairs(build: NodeBuilder, points: str, shape: list[int], padding_mode: str) -> str:
    """Return `[batch, rows, columns, 2]` of `[batch, 2, rows, columns]`."""
    if padding_mode != "zeros":
        batch, rows, columns, _ = shape
        points = _bounded(build, points, [batch, 2, rows, columns])
    return build.op("Transpose", [points], shape, attr={"perm": [0, 2, 3, 1]})


def _bounded(build: NodeBuilder, points: str, shape: list[int]) -> str:
    # At a million pixels float32 has no fractions left, and the two weights of a point add up
    # to 0, not to 1. 4 is outside of an image of one pixel.
    return build.op("Clip", [points, build.constant(-4.0), build.constant(4.0)], shape)


def _inner(image_size: tuple[int, int], shape: list[int]) -> Any:
    """Return what turns coordinates whose 1 is a corner's centre to those whose 1 is an edge."""
    height, width = image_size
    return np.reshape([(width - 1) / width, (height - 1) / height], shape)


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


def _from_theta(build: NodeBuilder, theta: str, shape: list[int], corners: bool) -> str:
    """Return the normalised grid of affine thetas `[batch, 2, 3]`, for zeros outside.

    Along a row of the image a point is a line: row y is `y * slope + start`, where `slope` and
    `start` are what columns have, x and y in turns. So the grid is a product with two columns on
    one side and two rows on the other, in the order that GridSample reads.

    """
    batch, rows, columns, _ = shape
    factors = np.zeros((2, columns, 3))
    factors[0, :, 1] = 1
    factors[1, :, 0], factors[1, :, 2] = centres(columns, corners), 1
    turned = build.op("Transpose", [theta], [batch, 3, 2], attr={"perm": [0, 2, 1]})
    lines = [build.constant(factors.reshape(-1, 3)), turned]
    flat = build.op("MatMul", lines, [batch, 2 * columns, 2])
    there = [batch, 2, 2 * columns]
    found = lines_within_bounds(build, build.reshaped(flat, there), there, [[SLOPE], [START]])
    down = np.stack([centres(rows, corners), np.ones(rows)], axis=1)
    grid = build.op("MatMul", [build.constant(down), found], [batch, rows, 2 * columns])
    return build.reshaped(grid, shape)


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


def _from_rows(build: NodeBuilder, theta: str, shape: list[int], corners: bool) -> str:
    """Return the normalised grid `[batch, 2, rows, columns]` of affine thetas, for any padding.

    Infinities that would cancel to NaN, and NaN, end on the low side, as in `pixel_grid`.
    """
    batch, rows, columns, _ = shape
    there = [batch, 2, rows, columns]
    return outer_sum(build, theta, there, (centres(rows, corners), centres(columns, corners)))


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


def _from_spline(
    build: NodeBuilder,
    theta: str,
    shape: list[int],
    image_size: tuple[int, int],
    corners: bool,
    points: int,
) -> str:
    """Return the normalised grid of thin plate splines, theta `[batch, K * K, 2]`.

    A point is the sum of what each control point's displacement adds there, and of the pixel's own
    place: rows of the product's constant side.
    """
    spline = ThinPlateSpline(points)
    batch, rows, columns, _ = shape
    count, own = len(spline.control), np.eye(2)[np.newaxis]
    moved = displacements(build, spline, theta, batch, image_size, corners)
    if corners:
        own = own * _inner(image_size, [1, 1, 2])
    there = [batch, count + 2, 2]
    if batch > 0:
        places = build.constant(np.repeat(own, batch, axis=0))
        terms = build.op("Concat", [moved, places], there, attr={"axis": 1})
    else:
        pads = build.constant([0, 0, 0, 0, 2, 0], np.int64)
        own = np.concatenate([np.zeros((1, count, 2)), own], axis=1)
        terms = build.op("Add", [build.op("Pad", [moved, pads], there), build.constant(own)], there)
    basis = spline_basis(build, spline, (rows, columns), corners, places=True)
    return build.reshaped(build.op("MatMul", [basis, terms], [batch, rows * columns, 2]), shape)


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
        moved = build.op("Mul", [moved, build.constant(_inner(image_size, [1, 1, 2]))], there)
    total = build.absolute_sum(moved, 1, [batch, 1, 2])
    height, width = image_size
    far = build.constant(np.reshape([2 * FAR / width, 2 * FAR / height], [1, 1, 2]))
    sound = build.op("Less", [total, far], [batch, 1, 2], dtype="bool")
    return build.op("Where", [sound, moved, build.constant(_LOWEST)], there)


def spline_basis(
    build: NodeBuilder,
    spline: ThinPlateSpline,
    output: tuple[int, int],
    corners: bool,
    weight: float = 1.0,
    places: bool = False,
) -> str:
    """Return what a pixel takes of each control point: `[1, pixels, K * K]`.

    None of it depends on an input. tf2onnx folds sums and products of constants, but no Expand, so
    that all behind one stays computed.

    Args:
        build: Makes the nodes.
        spline: The spline.
        output: Its rows and columns.
        corners: Whether -1 and 1 are centres of its pixels.
        weight: All of it is multiplied by this.
        places: Whether x and y of the pixel follow: `[1, pixels, K * K + 2]`.
    """
    count, (rows, columns) = len(spline.control), output
    one, many = [1, rows, columns], [count, rows, columns]
    size = build.constant(one, np.int64)
    x, y, unit = (
        build.op("Expand", [build.constant(values), size], one)
        for values in (
            centres(columns, corners).reshape(1, 1, -1),
            centres(rows, corners).reshape(1, -1, 1),
            np.ones((1, 1, 1)),
        )
    )
    scale, squares = build.constant(SCALE), []
    for axis, place in enumerate((x, y)):
        control = build.constant(SCALE * spline.control[:, axis].reshape(-1, 1, 1))
        gap = build.op("Sub", [build.op("Mul", [place, scale], one), control], many)
        squares.append(build.op("Mul", [gap, gap], many))
    squared = build.op("Add", squares, many)
    logarithm = build.op("Log", [build.op("Max", [squared, build.constant(TINY)], many)], many)
    radial = build.op("Mul", [squared, logarithm], many)
    terms = build.op("Concat", [radial, unit, x, y], [count + 3, rows, columns], attr={"axis": 0})
    factors, pixels = spline.solver.T, rows * columns
    if places:
        factors = np.concatenate([factors, np.eye(2, count + 3, count + 1)])
    there = [1, count + 3, pixels]
    flat = build.op("Reshape", [terms, build.constant(there, np.int64)], there)
    # As many axes as what it is multiplied by has: an image alone is then one plain product.
    found = build.op("MatMul", [build.constant(weight * factors), flat], [1, len(factors), pixels])
    there = [1, pixels, len(factors)]
    return build.op("Transpose", [found], there, attr={"perm": [0, 2, 1]})


def centres(size: int, align_corners: bool) -> Any:
    """Return the normalised coordinates of pixel centres; see `models.grids.pixelcentres`."""
    index = np.arange(size)
    if not align_corners:
        return (2 * index + 1) / size - 1
    return 2 * index / (size - 1) - 1 if size > 1 else np.zeros(1)
