"""Everything that is known to go wrong between theta and the warped image, as data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from stnkit.runtime.equivalence.diagnosis.theta_changes import THETA_CHANGES
from stnkit.runtime.equivalence.diagnosis.warping import Change, Convention, Size

__all__ = ["changes_of"]

_LATTICES = (255, 256, 254, 127, 128, 510, 512, 1023, 1024, 65535, 65536)
_INTERPOLATIONS = ("bilinear", "nearest", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")


def changes_of(convention: Convention) -> Iterator[Change]:
    """Yield every change of how a reference reads, the likeliest first."""
    yield from _modes(convention)
    yield from _grids()
    for change in THETA_CHANGES:
        yield Change(
            change.cause,
            f"reads with {change.what}, behind a theta that is right",
            change.advice,
            theta=change.apply,
        )
    yield from _shifts()
    yield from _borders(convention)
    yield from _cells()
    yield from _coarse()
    yield from _mixed_modes(convention)


def _modes(convention: Convention) -> Iterator[Change]:
    flipped, grid = not convention.align_corners, not convention.grid_align_corners
    advice = f"export it with align_corners={convention.align_corners}, as the source has it"
    both = {"align_corners": flipped, "grid_align_corners": grid}
    yield Change("align_corners", f"reads with align_corners={flipped}", advice, both)
    yield Change(
        "align_corners",
        f"has a sampler with align_corners={flipped} behind a grid that was made without",
        advice,
        {"align_corners": flipped},
    )
    yield Change(
        "align_corners",
        f"has a grid made with align_corners={grid} before a sampler that is right",
        advice,
        {"grid_align_corners": grid},
    )
    for mode in _INTERPOLATIONS:
        if mode != convention.interpolation:
            yield Change(
                "interpolation",
                f"reads {mode} instead of {convention.interpolation}",
                f"export its sampler with interpolation={convention.interpolation!r}",
                {"interpolation": mode},
            )
    for padding in _PADDINGS:
        if padding != convention.padding_mode:
            yield Change(
                "padding_mode",
                f"pads with {padding} instead of {convention.padding_mode}",
                f"export its sampler with padding_mode={convention.padding_mode!r}",
                {"padding_mode": padding},
            )


def _mixed_modes(convention: Convention) -> Iterator[Change]:
    """Yield two modes changed at once, which exporters with fixed modes of their own do."""
    for mode in _INTERPOLATIONS:
        for padding in _PADDINGS:
            for flip in (False, True):
                corners = convention.align_corners != flip
                different = [
                    mode != convention.interpolation,
                    padding != convention.padding_mode,
                    flip,
                ]
                if sum(different) < 2:
                    continue
                how = Convention(mode, padding, corners, convention.grid_align_corners != flip)
                yield Change(
                    "sampler_modes",
                    f"reads {how} instead of {convention}",
                    "export its sampler with the modes of the source",
                    {
                        "interpolation": mode,
                        "padding_mode": padding,
                        "align_corners": corners,
                        "grid_align_corners": how.grid_align_corners,
                    },
                )


def _grids() -> Iterator[Change]:
    order = "write the grid's last axis as (x, y), in that order, before its sampler"
    yield Change("xy_swapped", "swaps x and y of the grid", order, grid=lambda g: g[:, ::-1])
    for name, sign in (("x", (-1, 1)), ("y", (1, -1)), ("x and y", (-1, -1))):
        yield Change(
            "flipped",
            f"reads with {name} running the other way",
            "let y grow downwards and x to the right, with -1 at the first pixel",
            grid=partial(_times, factor=sign),
        )


def _shifts() -> Iterator[Change]:
    advice = (
        "compare how both turn normalised coordinates into pixels: pixel centres lie at whole "
        "numbers, and -1 half a pixel before the first (or on it, with align_corners)"
    )
    names = {(1, 1): "in x and y", (1, 0): "in x", (0, 1): "in y", (1, -1): "in x, and back in y"}
    for size, cause in ((0.5, "half_pixel"), (1.0, "one_pixel"), (0.25, "half_pixel")):
        for axes, name in names.items():
            for sign in (1, -1):
                shift = sign * size * np.asarray(axes, np.float64)
                yield Change(
                    cause,
                    f"reads {sign * size:+g} px beside the right place {name}",
                    advice,
                    pixels=partial(_shifted, shift=shift),
                )
    for name, factor in (
        ("size / (size - 1)", lambda s: s / (s - 1)),
        ("(size - 1) / size", lambda s: (s - 1) / s),
    ):
        yield Change(
            "off_by_one",
            f"stretches its coordinates by {name}: a side is counted by one too many or too few",
            advice,
            pixels=partial(_stretched, factor=factor),
        )


def _times(grid: Any, factor: tuple[int, int]) -> Any:
    return grid * np.asarray(factor, grid.dtype)


def _shifted(pixels: Any, _: Size, shift: Any) -> Any:
    return pixels + shift.astype(pixels.dtype)


def _stretched(pixels: Any, size: Size, factor: Callable[[Any], Any]) -> Any:
    return pixels * factor(np.maximum(np.asarray([size[1], size[0]], np.float64), 2))


def _reversed(rows: Any, columns: Any, size: Size, flip: tuple[bool, bool]) -> tuple[Any, Any]:
    return (
        size[0] - 1 - rows if flip[0] else rows,
        size[1] - 1 - columns if flip[1] else columns,
    )


def _last(size: Size) -> Any:
    return np.asarray([size[1] - 1, size[0] - 1], np.float64)


def _borders(convention: Convention) -> Iterator[Change]:
    advice = "clip its indices to 0 … size - 1, and no further inside"
    yield Change(
        "off_by_one_border",
        "never reads the last row and column of the image",
        advice,
        pixels=lambda p, size: np.minimum(p, _last(size) - 1),
    )
    yield Change(
        "off_by_one_border",
        "never reads the first row and column of the image",
        advice,
        pixels=lambda p, _: np.maximum(p, 1),
    )
    yield Change(
        "off_by_one_border",
        "takes the last row and column of the image for outside",
        advice,
        pixels=lambda p, size: np.where((p > _last(size) - 1).any(1, keepdims=True), -9e5, p),
    )
    if convention.padding_mode == "zeros":
        yield Change(
            "padding_edge",
            "cuts off at the centre of the border pixels, where it should fade to zero",
            "mask each of the four pixels by itself and not the point: see ONNX GridSample",
            pixels=lambda p, size: np.where(
                ((p < 0) | (p > _last(size))).any(1, keepdims=True), -9e5, p
            ),
        )


def _cells() -> Iterator[Change]:
    whole = "look at how its output is put together: a slice or a loop ends one too early"

    def without(values: Any, index: Any, size: int) -> Any:
        return np.where((index == size - 1)[:, np.newaxis], 0.0, values)

    yield Change(
        "last_row_dropped",
        "leaves the last row of the warped image zero",
        whole,
        values=lambda v, rows, columns, size: without(v, rows, size[0]),
    )
    yield Change(
        "last_row_dropped",
        "leaves the last column of the warped image zero",
        whole,
        values=lambda v, rows, columns, size: without(v, columns, size[1]),
    )
    yield Change(
        "last_row_repeated",
        "repeats the last row but one of the warped image",
        whole,
        cells=lambda rows, columns, size: (np.minimum(rows, size[0] - 2), columns),
    )
    yield Change(
        "last_row_repeated",
        "repeats the last column but one of the warped image",
        whole,
        cells=lambda rows, columns, size: (rows, np.minimum(columns, size[1] - 2)),
    )
    layout = "transpose nothing on the way, or transpose back"
    yield Change(
        "layout",
        "swaps height and width of the warped image",
        layout,
        cells=lambda rows, columns, size: (
            columns * size[0] // size[1],
            rows * size[1] // size[0],
        ),
    )
    for name, flip in (("rows", (True, False)), ("columns", (False, True))):
        yield Change(
            "flipped",
            f"gives the {name} of the warped image in reverse order",
            "reverse nothing on the way",
            cells=partial(_reversed, flip=flip),
        )
    yield Change(
        "channels",
        "gives the channels of the warped image in reverse order",
        "keep RGB or BGR as the source has it",
        values=lambda v, rows, columns, size: v[:, ::-1],
    )


def _coarse() -> Iterator[Change]:
    advice = "keep the grid and everything that computes it in float32"
    yield Change(
        "grid_precision",
        "computes its grid in float16",
        advice,
        grid=lambda g: g.astype(np.float16).astype(g.dtype),
    )
    yield Change(
        "grid_precision",
        "computes its pixel coordinates in float16",
        advice,
        pixels=lambda p, _: p.astype(np.float16).astype(p.dtype),
    )
    yield Change(
        "grid_precision",
        "computes its grid in bfloat16",
        advice,
        grid=lambda g: _bfloat16(g).astype(g.dtype),
    )
    yield Change(
        "grid_precision",
        "rounds its pixel coordinates to whole numbers first",
        "compute coordinates in floats until the weights are known",
        pixels=lambda p, _: np.floor(p),
    )
    for steps in _LATTICES:
        for reach, origin in ((1.0, 0.0), (1.0, -1.0), (2.0, 0.0), (None, 0.0)):
            yield Change(
                "quantised_grid",
                f"has its grid on a lattice of {steps} steps",
                "leave the grid out of the quantisation: one int8 step is a large part of a pixel",
                grid=partial(_lattice, steps=steps, reach=reach, origin=origin),
            )


def _bfloat16(values: Any) -> Any:
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)


def _lattice(grid: Any, steps: int, reach: float | None, origin: float) -> Any:
    """Return a grid on a lattice of `steps` steps over [-reach, reach]; None is its own reach."""
    if reach is None:
        reach = max(float(np.abs(grid[np.isfinite(grid)]).max(initial=0.0)), 1e-6)
    step = 2 * reach / steps
    return np.round((grid - origin) / step) * step + origin
