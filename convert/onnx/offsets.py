"""Offsets for ONNX DeformConv, computed in the file: from pixels, from affine thetas, from splines.

An offset is how far from an output pixel's own place on the image it is read, in pixels, y before
x. The identity's are zeros, exactly. They have to be finite: ONNX Runtime reads outside of its
memory at one that is NaN.

As in `grid_points`, the constant side of a product is the left one.
"""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Axis:
    """One axis of the image, and of what is read from it.

    Convention:
        The place of output pixel i is pixel `i * stride`. The stride is the smallest that reaches
        the image's end; `padding` pixels behind it make the output as long as it is.

    Attributes:
        size: Pixels of the image.
        length: Pixels of the output.
    """

    size: int
    length: int

    @property
    def stride(self) -> int:
        """Pixels of the image from one output pixel's place to the next, at least 1."""
        if self.length == 1:
            return self.size
        return max(1, -(-(self.size - 1) // (self.length - 1)))

    @property
    def padding(self) -> int:
        """Pixels behind the image's last one."""
        return max(0, self.stride * (self.length - 1) - (self.size - 1))

    def reach(self, corners: bool) -> float:
        """Return how far 1 is from the image's middle, px."""
        return (self.size - 1 if corners else self.size) / 2

    def own(self, corners: bool) -> tuple[float, float]:
        """Return (a, b): the place of the output pixel at c is (size a c + size b + size - 1) / 2.

        c is its normalised coordinate, see `constant_sides.centres`.
        """
        steps = self.length - 1 if corners else self.length
        spare = self.stride * (self.length - 1) - (self.size - 1)
        return self.stride * steps / self.size, spare / self.size

    def rest(self, corners: bool) -> tuple[float, float]:
        """Return (a, b): from its place to where the identity reads it are a c + b px."""
        slope, start = self.own(corners)
        return self.reach(corners) - self.size / 2 * slope, -self.size / 2 * start


def offsets(
    build: NodeBuilder,
    kind: str,
    given: str,
    batch: int,
    axes: tuple[Axis, Axis],
    padding_mode: str,
) -> str:
    """Add the nodes that compute offsets, and return their name, `[batch, 2, rows, columns]`.

    DeformConv reads zeros outside. For "border" no point is outside: each is moved to the image.

    Args:
        build: Makes the nodes.
        kind: What is given, see `SamplerSpot.kind`.
        given: Name of the points in pixels, or of theta.
        batch: Batch size; -1 for an open one.
        axes: Down and across.
        padding_mode: "zeros" or "border".
    """
    down, across = axes
    shape = [batch, 2, down.length, across.length]
    found = parse_kind(kind)
    if padding_mode == "zeros" and found is not None:
        points, corners = found
        if not points:
            return _from_theta(build, given, axes, shape, corners)
        moved = _from_spline(build, given, axes, shape, corners, points)
        for plane, axis in enumerate(axes):
            slope, start = axis.rest(corners)
            if max(abs(slope), abs(start)) > 1e-9:
                rest = _linear(build, axis, corners, slope, start)
                moved = _moved(build, moved, shape, plane, rest)
        return moved
    pixels = _pixels(build, found, given, axes, shape)
    if padding_mode == "border":
        last = build.constant(np.reshape([axis.size - 1 for axis in axes], [2, 1, 1]))
        pixels = build.op("Max", [pixels, build.constant(0.0)], shape)
        pixels = build.op("Min", [pixels, last], shape)
    for plane, axis in enumerate(axes):
        pixels = _moved(build, pixels, shape, plane, _taken_places(build, axis))
    return pixels


def _pixels(
    build: NodeBuilder,
    kind: tuple[int, bool] | None,
    given: str,
    axes: tuple[Axis, Axis],
    shape: list[int],
) -> str:
    """Return the points y, x in pixels; `kind` is what `parse_kind` returned."""
    if kind is None:
        return _swapped(build, given, shape)
    points, corners = kind
    if not points:
        return _from_rows(build, given, axes, shape, corners)
    pixels = _from_spline(build, given, axes, shape, corners, points)
    for plane, axis in enumerate(axes):
        read = _linear(build, axis, corners, axis.reach(corners), (axis.size - 1) / 2)
        pixels = _moved(build, pixels, shape, plane, read)
    return pixels


def _swapped(build: NodeBuilder, tensor: str, shape: list[int]) -> str:
    """Return y before x, which axis 1 holds in turn."""
    return build.op("Gather", [tensor, build.constant([1, 0], np.int64)], shape, attr={"axis": 1})


def _linear(build: NodeBuilder, axis: Axis, corners: bool, slope: float, start: float) -> str:
    """Return `slope * c + start` at each output pixel's normalised coordinate c, `[length]`."""
    fixed, moving = np.array([start]), np.array([slope])
    return at_centres(build, axis.length, corners, fixed, moving, 0)


def _taken_places(build: NodeBuilder, axis: Axis) -> str:
    """Return where output pixels are on the image, `[length]` px, with a minus."""
    ends = [build.constant(float(-axis.stride * end)) for end in (0, axis.length, 1)]
    return build.op("Range", ends, [axis.length])


def _moved(build: NodeBuilder, offsets: str, shape: list[int], plane: int, by: str) -> str:
    """Return offsets or points with a number for each row added to y, plane 0; of columns to x."""
    along = folded_reshape(build, by, [1, shape[2], 1] if plane == 0 else [1, 1, shape[3]])
    there = [2, shape[2], 1] if plane == 0 else [2, 1, shape[3]]
    alone = build.constant(np.reshape(np.eye(2)[plane], [2, 1, 1]))
    return build.op("Add", [offsets, build.op("Mul", [along, alone], there)], shape)


def _from_rows(
    build: NodeBuilder, theta: str, axes: tuple[Axis, Axis], shape: list[int], corners: bool
) -> str:
    """Return the points of affine thetas in pixels, for any padding.

    Infinities that would cancel to NaN, and NaN, end on the low side, as in `pixel_grid`.
    """
    batch, (down, across) = shape[0], axes
    scale = [[axis.reach(corners)] for axis in axes]
    middle = build.constant(np.reshape([(axis.size - 1) / 2 for axis in axes], [2, 1]))
    scaled = _swapped(build, theta, [batch, 2, 3])
    scaled = build.op("Mul", [scaled, build.constant(scale)], [batch, 2, 3])
    places = centres(down.length, corners), centres(across.length, corners)
    return outer_sum(build, scaled, shape, places, middle)


def _from_theta(
    build: NodeBuilder, theta: str, axes: tuple[Axis, Axis], shape: list[int], corners: bool
) -> str:
    """Return the offsets of affine thetas, for zeros outside.

    What is left of theta without the map to each pixel's own place is affine too. Along a row of
    the image an offset is a line, as in `grid_points`: the product's constant side takes start and
    slope of either axis, and gives them in the order that DeformConv reads.
    """
    batch, (down, across) = shape[0], axes
    if corners:
        inner = build.constant(inner_scale((down.size, across.size), [2, 1]))
        theta = build.op("Mul", [theta, inner], [batch, 2, 3])
    (x_slope, x_start), (y_slope, y_start) = across.own(corners), down.own(corners)
    own = build.constant([[x_slope, 0, x_start], [0, y_slope, y_start]])
    moved = build.op("Sub", [theta, own], [batch, 2, 3])
    turned = build.op("Transpose", [moved], [batch, 3, 2], attr={"perm": [0, 2, 1]})
    # Start and slope of each column. As many axes on the left as on the right: an image alone is
    # then one product, not two.
    fixed, moving = np.zeros((1, 1, 2, 3)), np.zeros((1, 1, 2, 3))
    fixed[..., 0, 2] = fixed[..., 1, 1] = moving[..., 0, 0] = 1
    factors = at_centres(build, across.length, corners, fixed, moving, 1)
    factors = folded_reshape(build, factors, [1, 2 * across.length, 3])
    flat = build.op("MatMul", [factors, turned], [batch, 2 * across.length, 2])
    there = [batch, 1, across.length, 4]
    found = build.reshaped(flat, there)
    lines = lines_within_bounds(build, found, there, np.repeat([START, SLOPE], 2))
    there = [batch, 1, 4, across.length]
    lines = build.op("Transpose", [lines], there, attr={"perm": [0, 1, 3, 2]})
    fixed, moving = np.zeros((1, 2, 1, 4)), np.zeros((1, 2, 1, 4))
    for plane, (axis, start) in enumerate(((down, 1), (across, 0))):
        fixed[0, plane, 0, start] = moving[0, plane, 0, start + 2] = axis.size / 2
    take = at_centres(build, down.length, corners, fixed, moving, 2)
    return build.op("MatMul", [take, lines], shape)


def _from_spline(
    build: NodeBuilder,
    theta: str,
    axes: tuple[Axis, Axis],
    shape: list[int],
    corners: bool,
    points: int,
) -> str:
    """Return how far from the identity thin plate splines read: their displacements add up to it.

    Each axis has its own product by a column: runtimes take half as long for two of them as for one
    by both columns, and x and y come out apart.
    """
    batch, (down, across) = shape[0], axes
    spline, size = ThinPlateSpline(points), (down.size, across.size)
    output = down.length, across.length
    count, pixels = len(spline.control), down.length * across.length
    moved = displacements(build, spline, theta, batch, size, corners)
    by_x, by_y = build.split(moved, 2, [[batch, count, 1]] * 2)
    basis = {
        length: spline_basis(build, spline, output, corners, weight=length / 2)
        for length in sorted(set(size))
    }
    planes = [
        build.op("MatMul", [basis[axis.size], column], [batch, pixels, 1])
        for axis, column in ((down, by_y), (across, by_x))
    ]
    flat = build.op("Concat", planes, [batch, 2 * pixels, 1], attr={"axis": 1})
    return build.reshaped(flat, shape)
