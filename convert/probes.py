"""The inputs on which an artifact is compared with its source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stnkit.runtime.signature import TensorSpec

_SEED = 20150605  # any fixed number: the probes of every conversion are the same
_OPEN_SIDE_PX = 32  # side of probes where the model leaves height and width open
_REAL_IMAGES_MAX = 8

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Probe:
    """Inputs of one comparison.

    Attributes:
        name: Short name, with the batch size at its end.
        inputs: Array for every input, by name.
    """

    name: str
    inputs: dict[str, Array]


def make_probes(
    specs: tuple[TensorSpec, ...],
    batch: int | None,
    value_range: tuple[float, float],
    real_images: Array | None = None,
) -> tuple[Probe, ...]:
    """Return probes for a model's inputs.

    Images are noise, edges, a ramp, soft blobs and a constant. The items of a batch differ, so that
    a model that mixes them up is caught. With a dynamic batch there is one of 1 and one of 5 items.

    Args:
        specs: The inputs.
        batch: Fixed batch size, or None.
        value_range: Smallest and largest value of an image.
        real_images: `[count, height, width, channels]` in the same range, for a model with one
            image input: some of them become a probe too.
    """
    plans = (
        [("noise_b1", 0, 1), ("patterns_b5", 0, 5)]
        if batch is None
        else [(f"patterns_{'abcde'[k]}_b{batch}", k * batch, batch) for k in range(_runs(batch))]
    )
    probes = [
        Probe(name, {spec.name: _items(spec, first, count, value_range) for spec in specs})
        for name, first, count in plans
    ]
    if real_images is not None and len(specs) == 1 and len(real_images) >= (batch or 1):
        count = batch or min(_REAL_IMAGES_MAX, len(real_images))
        chosen = real_images[:count].astype(specs[0].dtype)
        probes.append(Probe(f"real_b{count}", {specs[0].name: chosen}))
    return tuple(probes)


def _runs(batch: int) -> int:
    """Return how many batches of a fixed size show all five patterns."""
    return max(1, -(-len(_PATTERNS) // batch))


def _items(spec: TensorSpec, first: int, count: int, value_range: tuple[float, float]) -> Array:
    items = [_item(spec, index, value_range) for index in range(first, first + count)]
    return np.stack(items).astype(spec.dtype)


def _item(spec: TensorSpec, index: int, value_range: tuple[float, float]) -> Array:
    """Return item `index` of an endless sequence: the same whatever the batch size."""
    rng = np.random.default_rng([_SEED, index])
    image = len(spec.shape) == 4
    shape = tuple(
        size if isinstance(size, int) else (_OPEN_SIDE_PX if image else 8)
        for size in spec.shape[1:]
    )
    if spec.dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if not spec.dtype.startswith("float"):
        # What the numbers mean is not known: 0 and 1 are valid for indices, flags and pixels.
        return rng.integers(0, 2, shape)
    if not image:
        return rng.uniform(-1, 1, shape)
    low, high = value_range
    unit = _PATTERNS[index % len(_PATTERNS)](rng, shape)
    # Multiples of 1/255, as real images are: the probes then take a quarter of the space.
    return low + (high - low) * np.round(unit * 255) / 255


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
