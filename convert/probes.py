"""The inputs on which an artifact is compared with its source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stnkit.runtime.signature import TensorSpec

_SEED = 20150605  # any fixed number: the probes of every conversion are the same
# Height and width of probes where the model leaves them open: once even and square, then odd and
# not square, because wrong padding and a mix-up of the two show only there.
_OPEN_SIZES_PX = ((32, 32), (33, 24))
_OPEN_LENGTH = 8
_REAL_IMAGES_MAX = 8
_WIDE_INTEGER = 12  # largest number of a probe with signed integers

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Probe:
    """Inputs of one comparison.

    Attributes:
        name: Short name, with the batch size at its end.
        inputs: Array for every input, by name.
        optional: Whether the model may be unable to take it: it is then left out.
    """

    name: str
    inputs: dict[str, Array]
    optional: bool = False


def make_probes(
    specs: tuple[TensorSpec, ...], batch: int | None, value_range: tuple[float, float]
) -> tuple[Probe, ...]:
    """Return probes for a model's inputs.

    Images are noise, edges, a ramp, soft blobs and a constant. The items of a batch differ, so that
    a model that mixes them up is caught. With a dynamic batch there is one of 1 and one of 5 items.
    Other floats lie in [-1, 1]. Other integers are 0 or 1, which any table of embeddings has; an
    optional probe has signed ones, on which the division of integers differs between libraries.

    Args:
        specs: The inputs.
        batch: Fixed batch size, or None.
        value_range: Smallest and largest value of a float image.
    """
    plans = (
        [("noise_b1", 0, 1), ("patterns_b5", 0, 5)]
        if batch is None
        else [(f"patterns_{'abcde'[k]}_b{batch}", k * batch, batch) for k in range(_runs(batch))]
    )
    probes = []
    for number, (name, first, count) in enumerate(plans):
        size = _OPEN_SIZES_PX[number % len(_OPEN_SIZES_PX)]
        inputs = {spec.name: _items(spec, first, count, value_range, size) for spec in specs}
        probes.append(Probe(name, inputs))
    if any(_is_number(spec) for spec in specs):
        wide = dict(probes[-1].inputs)
        for spec in specs:
            if _is_number(spec):
                shape = wide[spec.name].shape
                rng = np.random.default_rng([_SEED, 1])
                low = 0 if spec.dtype.startswith("u") else -_WIDE_INTEGER
                wide[spec.name] = rng.integers(low, _WIDE_INTEGER + 1, shape).astype(spec.dtype)
        probes.append(Probe(f"wide_integers_b{plans[-1][2]}", wide, optional=True))
    return tuple(probes)


def real_probe(spec: TensorSpec, batch: int | None, images: Array) -> Probe | None:
    """Return a probe of real images, or None where there are fewer than a batch takes.

    Args:
        spec: The model's only input.
        batch: Fixed batch size, or None.
        images: `[count, height, width, channels]` as the model takes them.
    """
    count = batch or min(_REAL_IMAGES_MAX, len(images))
    if len(images) < count:
        return None
    return Probe(f"real_b{count}", {spec.name: images[:count].astype(spec.dtype)})


def _is_number(spec: TensorSpec) -> bool:
    """Return whether an input holds integers that are not pixels."""
    return "int" in spec.dtype and not _is_image(spec)


def _is_image(spec: TensorSpec) -> bool:
    return len(spec.shape) == 4 and spec.dtype != "bool"


def _runs(batch: int) -> int:
    """Return how many batches of a fixed size show all five patterns."""
    return max(1, -(-len(_PATTERNS) // batch))


def _items(
    spec: TensorSpec,
    first: int,
    count: int,
    value_range: tuple[float, float],
    open_size: tuple[int, int],
) -> Array:
    if spec.dtype == "uint8":
        value_range = (0, 255)
    elif spec.dtype == "int8":
        value_range = (-128, 127)
    items = [_item(spec, index, value_range, open_size) for index in range(first, first + count)]
    return np.stack(items).astype(spec.dtype)


def _item(
    spec: TensorSpec, index: int, value_range: tuple[float, float], open_size: tuple[int, int]
) -> Array:
    """Return item `index` of an endless sequence: the same whatever the batch size."""
    rng = np.random.default_rng([_SEED, index])
    image = _is_image(spec)
    fallback = (*open_size, 3) if image else (_OPEN_LENGTH,) * len(spec.shape)
    shape = tuple(
        size if isinstance(size, int) else fallback[axis]
        for axis, size in enumerate(spec.shape[1:])
    )
    if _is_number(spec) or spec.dtype == "bool":
        return rng.integers(0, 2, shape)
    if not image:
        return rng.uniform(-1, 1, shape)
    low, high = value_range
    unit = _PATTERNS[index % len(_PATTERNS)](rng, shape)
    # Multiples of 1/255, as real images are: the probes then take a quarter of the space.
    return np.asarray(low + (high - low) * np.round(unit * 255) / 255)


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.random(shape)


def _checkerboard(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    rows, columns = np.indices(shape[:2])
    cell = max(1, min(shape[:2]) // 8)
    board = ((rows // cell + columns // cell) % 2).astype(np.float64)
    return board[..., np.newaxis] * rng.uniform(0.5, 1, shape[2])


def _ramp(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    rows, columns = np.indices(shape[:2])
    plane = (rows / max(1, shape[0] - 1) + 2 * columns / max(1, shape[1] - 1)) / 3
    return plane[..., np.newaxis] * rng.uniform(0.5, 1, shape[2])


def _blobs(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    rows, columns = np.indices(shape[:2])
    image = np.zeros(shape)
    for _ in range(4):
        row, column = rng.uniform(0.2, 0.8, 2) * shape[:2]
        radius = rng.uniform(0.08, 0.2) * min(shape[:2]) + 1
        blob = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * radius**2))
        image += blob[..., np.newaxis] * rng.uniform(0.3, 1, shape[2])
    return np.clip(image, 0, 1)


def _constant(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(rng.uniform(0.3, 1, shape[2]), shape)


_PATTERNS: tuple[Callable[[np.random.Generator, tuple[int, ...]], Array], ...] = (
    _noise,
    _checkerboard,
    _ramp,
    _blobs,
    _constant,
)
