"""What a transformer does between theta and warped image, with one step of it changed at will."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from stnkit.runtime.equivalence.diagnosis.sampler import pixel_centres, read, to_pixels
from stnkit.runtime.equivalence.thetas import grid_points

__all__ = ["NOTHING", "Change", "Convention", "Scene", "predict"]

Size = tuple[int, int]


@dataclass(frozen=True)
class Convention:
    """How a transformer reads.

    Attributes:
        interpolation: "bilinear", "nearest" or "bicubic".
        padding_mode: "zeros", "border" or "reflection".
        align_corners: of the sampler.
        grid_align_corners: of the grid generator.
        scale: factor between the image that is known and the one that is read.
    """

    interpolation: str
    padding_mode: str
    align_corners: bool
    grid_align_corners: bool
    scale: float = 1.0

    def __str__(self) -> str:
        corners = f"align_corners={self.align_corners}"
        if self.grid_align_corners != self.align_corners:
            corners = f"{corners} and the grid's {self.grid_align_corners}"
        return f"{self.interpolation}, {self.padding_mode}, {corners}"


@dataclass(frozen=True)
class Change:
    """One thing done otherwise; a step that is None is done as by the reference.

    Attributes:
        cause: short name of it.
        what: what the candidate does, to stand after "it".
        advice: what to do.
        modes: fields of `Convention` that are others.
        theta: on one theta.
        cells: on the (row, column) of output pixels, with the output's size.
        grid: on normalised coordinates `[n, 2]`.
        pixels: on pixel coordinates `[n, 2]` (x, y), with the input's size.
        values: on values `[n, channels]`, with the (row, column) they are at and the output's size.
    """

    cause: str
    what: str
    advice: str
    modes: Mapping[str, Any] = field(default_factory=dict)
    theta: Callable[[Any], Any] | None = None
    cells: Callable[[Any, Any, Size], tuple[Any, Any]] | None = None
    grid: Callable[[Any], Any] | None = None
    pixels: Callable[[Any, Size], Any] | None = None
    values: Callable[[Any, Any, Any, Size], Any] | None = None


NOTHING = Change("none", "does the same", "")


@dataclass(frozen=True)
class Scene:
    """One warped image, and what it was made of.

    Attributes:
        image: `[height, width, channels]` that was read.
        theta: one theta.
        rows: `[n]` rows of the output pixels that are looked at.
        columns: `[n]` their columns.
        size_px: `(height, width)` of the whole output, px.
        reference: `[n, channels]` what the reference made there.
        candidate: `[n, channels]` what the candidate made there.
    """

    image: Any
    theta: Any
    rows: Any
    columns: Any
    size_px: Size
    reference: Any
    candidate: Any


def predict(scene: Scene, convention: Convention, change: Change = NOTHING) -> Any:
    """Return what a transformer makes of a scene, `[n, channels]`.

    None where it is not known what theta means.
    """
    how = replace(convention, **change.modes)
    theta = scene.theta if change.theta is None else change.theta(scene.theta)
    rows, columns = scene.rows, scene.columns
    if change.cells is not None:
        rows, columns = change.cells(rows, columns, scene.size_px)
    points = np.stack(
        [
            pixel_centres(columns, scene.size_px[1], how.grid_align_corners),
            pixel_centres(rows, scene.size_px[0], how.grid_align_corners),
        ],
        axis=1,
    )
    grid = grid_points(theta, points)
    if grid is None:
        return None
    if change.grid is not None:
        grid = change.grid(grid)
    size_px = (scene.image.shape[0], scene.image.shape[1])
    if how.interpolation == "nearest":
        grid = grid.astype(np.float32)  # ties fall as they do in the models
    pixels = to_pixels(grid, size_px, how.align_corners)
    if change.pixels is not None:
        pixels = change.pixels(pixels, size_px)
    values = how.scale * read(
        scene.image, pixels, how.interpolation, how.padding_mode, how.align_corners
    )
    if change.values is not None:
        values = change.values(values, scene.rows, scene.columns, scene.size_px)
    return values
