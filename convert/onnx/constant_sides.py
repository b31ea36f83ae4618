"""The constant sides of products with theta, computed in the file.

A file may not grow with the image, and these have values for every row, column or pixel. So it
holds what they are computed from, by ops that a runtime folds when it opens the file.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stnkit.convert.onnx.node_builder import NodeBuilder
from stnkit.models.transforms.thin_plate_spline import SCALE, TINY, ThinPlateSpline


def centres(size: int, align_corners: bool) -> Any:
    """Return the normalised coordinates of pixel centres; see `models.grids.pixel_centres`."""
    index = np.arange(size)
    if not align_corners:
        return (2 * index + 1) / size - 1
    return 2 * index / (size - 1) - 1 if size > 1 else np.zeros(1)


def computed_centres(build: NodeBuilder, size: int, align_corners: bool) -> str:
    """Return the name of `centres`, computed in the file by ops that are folded when it is opened.

    Their numerators are whole, so that the quotients are as near as those that could be stored.
    """
    ends = [build.constant(value) for value in (1.0 - size, float(size), 2.0)]
    steps = build.op("Range", ends, [size])
    count = max(1, size - 1) if align_corners else size
    return build.op("Div", [steps, build.constant(float(count))], [size])


def at_centres(
    build: NodeBuilder, size: int, align_corners: bool, fixed: Any, moving: Any, axis: int
) -> str:
    """Return `fixed + moving * c` for the normalised coordinate c of each pixel along an axis.

    It is computed in the file and folded when it is opened, as a file may not grow with the image.

    Args:
        build: Makes the nodes.
        size: Pixels.
        align_corners: What -1 and 1 stand for.
        fixed: Values, with a 1 where the pixels are to be.
        moving: Values of the same shape.
        axis: Where that 1 is.
    """
    shape = [1] * fixed.ndim
    shape[axis] = size
    place = folded_reshape(build, computed_centres(build, size, align_corners), shape)
    there = list(fixed.shape)
    there[axis] = size
    moved = build.op("Mul", [place, build.constant(moving)], there)
    return build.op("Add", [moved, build.constant(fixed)], there)


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
        build.op("Expand", [values, size], one)
        for values in (
            folded_reshape(build, computed_centres(build, columns, corners), [1, 1, columns]),
            folded_reshape(build, computed_centres(build, rows, corners), [1, rows, 1]),
            build.constant(np.ones((1, 1, 1))),
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
    flat = folded_reshape(build, terms, [1, count + 3, pixels])
    # As many axes as what it is multiplied by has: an image alone is then one plain product.
    found = build.op("MatMul", [build.constant(weight * factors), flat], [1, len(factors), pixels])
    there = [1, pixels, len(factors)]
    return build.op("Transpose", [found], there, attr={"perm": [0, 2, 1]})


def folded_reshape(build: NodeBuilder, tensor: str, shape: list[int]) -> str:
    """Return a tensor that depends on no input in another shape, of which all sizes are known."""
    return build.op("Reshape", [tensor, build.constant(shape, np.int64)], shape)
