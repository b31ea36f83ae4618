"""Points for ONNX GridSample, computed in the file: from pixels, from affine thetas, from splines.

They are normalised as `align_corners=0` has it, and finite. A matrix product is the shortest way to
them, and its left side is always what is constant: tools that quantise products take those with
constants on the right, and would round theta to 8 bits.
"""

from __future__ import annotations

import numpy as np

from stnkit.convert.onnx.constant_sides import (
    at_centres,
    centres,
    folded_reshape,
    spline_basis,
)
from stnkit.convert.onnx.node_builder import NodeBuilder
from stnkit.convert.onnx.theta_parts import (
    SLOPE,
    START,
    displacements,
    inner_scale,
    lines_within_bounds,
    outer_sum,
    parse_kind,
)
from stnkit.models.transforms.thin_plate_spline import ThinPlateSpline


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
        inner = build.constant(inner_scale(image_size, [2, 1]))
        given = build.op("Mul", [given, inner], [shape[0], 2, 3])
    if padding_mode == "zeros":
        return _from_theta(build, given, shape, corners)
    return _pairs(build, _from_rows(build, given, shape, corners), shape, padding_mode)


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
    turned = build.op("Transpose", [theta], [batch, 3, 2], attr={"perm": [0, 2, 1]})
    # Slopes of all columns, then their starts.
    fixed, moving = np.zeros((2, 1, 3)), np.zeros((2, 1, 3))
    fixed[0, 0, 1] = fixed[1, 0, 2] = moving[1, 0, 0] = 1
    factors = at_centres(build, columns, corners, fixed, moving, 1)
    factors = folded_reshape(build, factors, [2 * columns, 3])
    flat = build.op("MatMul", [factors, turned], [batch, 2 * columns, 2])
    there = [batch, 2, 2 * columns]
    found = lines_within_bounds(build, build.reshaped(flat, there), there, [[SLOPE], [START]])
    down = at_centres(build, rows, corners, np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]]), 0)
    grid = build.op("MatMul", [down, found], [batch, rows, 2 * columns])
    return build.reshaped(grid, shape)


def _from_rows(build: NodeBuilder, theta: str, shape: list[int], corners: bool) -> str:
    """Return the normalised grid `[batch, 2, rows, columns]` of affine thetas, for any padding.

    Infinities that would cancel to NaN, and NaN, end on the low side, as in `pixel_grid`.
    """
    batch, rows, columns, _ = shape
    there = [batch, 2, rows, columns]
    return outer_sum(build, theta, there, (centres(rows, corners), centres(columns, corners)))


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
        own = own * inner_scale(image_size, [1, 1, 2])
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
