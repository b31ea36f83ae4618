"""The inputs on which an artifact is compared with its source."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stnkit.runtime.errors import InputError
from stnkit.runtime.signature import TensorSpec

__all__ = ["REAL_PREFIX", "SEED", "Probe", "make_probes", "real_probe"]

SEED = 20150605
"""Seed of the probes of every conversion: any fixed number."""

REAL_PREFIX = "real_"
"""How the names of probes of real inputs begin."""

# Height and width of probes where the model leaves them open: once even and square, then odd and
# not square, because wrong padding and a mix-up of the two show only there.
_OPEN_SIZES_PX = ((32, 32), (33, 24))
_OPEN_LENGTH = 8
_REAL_IMAGES_MAX = 8
_PROBE_BYTES_MAX = 512 * 2**20  # of one input: float64 while it is made
_WIDE_INTEGER = 12  # largest number of a probe with signed integers

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Probe:
    """Inputs of one comparison.

    Attributes:
        name: Short name, with the batch size at its end.
        inputs: Array for every input, by name.
        optional: Whether the model may be unable to take it: it is then left out.
        drives: Theta for every transformer whose own is not computed, by the tap's name.
        given: Theta for every transformer that takes an input as its own and is to be looked at for
            what it does with these, by the tap's name; `inputs` holds them.
        seed: Seed of what is random in it; None for real data.
        only: Names of the tensors that mean the same in every model under it; None for all.
    """

    name: str
    inputs: dict[str, Array]
    optional: bool = False
    drives: dict[str, Array] = field(default_factory=dict)
    seed: int | None = None
    only: tuple[str, ...] | None = None
    given: dict[str, Array] = field(default_factory=dict)

    @property
    def thetas(self) -> dict[str, Array]:
        """The thetas that it gives to transformers in whichever way, by the tap's name."""
        return {**self.given, **self.drives}

    @property
    def batch(self) -> int:
        """Number of items."""
        return int(next(iter(self.inputs.values())).shape[0])


def make_probes(
    specs: tuple[TensorSpec, ...],
    batch: int | None,
    value_range: tuple[float, float],
    seed: int = SEED,
) -> tuple[Probe, ...]:
    """Return probes for a model's inputs.

    Images are noise, a checkerboard, edges, a ramp, soft blobs, a constant and strokes. The items
    of a batch differ, so that a model that mixes them up is caught. An open batch is tried with 1,
    2 and 7. Other floats lie in [-1, 1]. Other integers are 0 or 1, which any table of embeddings
    has; an optional probe has signed ones, on which the division of integers differs between
    libraries.

    Args:
        specs: The inputs.
        batch: Fixed batch size, or None.
        value_range: Smallest and largest value of a float image.
        seed: What everything random is drawn from.

    Raises:
        InputError: If the inputs of one probe would take more than 512 MiB.
    """
    plans = (
        [("noise_b1", 0, 1), ("edges_b2", 1, 2), ("patterns_b7", 0, 7)]
        if batch is None
        else [(f"patterns_{'abcdefg'[k]}_b{batch}", k * batch, batch) for k in range(_runs(batch))]
    )
    probes = []
    for number, (name, first, count) in enumerate(plans):
        size = _OPEN_SIZES_PX[number % len(_OPEN_SIZES_PX)]
        _check_size(specs, count, size)
        inputs = {spec.name: _items(spec, first, count, value_range, size, seed) for spec in specs}
        probes.append(Probe(name, inputs, seed=seed))
    if any(_is_number(spec) for spec in specs):
        wide = dict(probes[-1].inputs)
        for spec in specs:
            if _is_number(spec):
                shape = wide[spec.name].shape
                rng = np.random.default_rng([seed, 1])
                low = 0 if spec.dtype.startswith("u") else -_WIDE_INTEGER
                wide[spec.name] = rng.integers(low, _WIDE_INTEGER + 1, shape).astype(spec.dtype)
        probes.append(Probe(f"wide_integers_b{plans[-1][2]}", wide, optional=True, seed=seed))
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
    return Probe(f"{REAL_PREFIX}b{count}", {spec.name: images[:count].astype(spec.dtype)})


def _is_number(spec: TensorSpec) -> bool:
    """Return whether an input holds integers that are not pixels."""
    return "int" in spec.dtype and not _is_image(spec)


def _is_image(spec: TensorSpec) -> bool:
    return len(spec.shape) == 4 and spec.dtype != "bool"


def _runs(batch: int) -> int:
    """Return how many batches of a fixed size show all patterns."""
    return max(1, -(-len(_PATTERNS) // batch))


def _items(
    spec: TensorSpec,
    first: int,
    count: int,
    value_range: tuple[float, float],
    open_size: tuple[int, int],
    seed: int,
) -> Array:
    if spec.dtype == "uint8":
        value_range = (0, 255)
    elif spec.dtype == "int8":
        value_range = (-128, 127)
    items = [
        _item(spec, index, value_range, open_size, seed) for index in range(first, first + count)
    ]
    return np.stack(items).astype(spec.dtype)


def _shape(spec: TensorSpec, open_size: tuple[int, int]) -> tuple[int, ...]:
    """Return the shape of one item."""
    fallback = (*open_size, 3) if _is_image(spec) else (_OPEN_LENGTH,) * len(spec.shape)
    return tuple(
        size if isinstance(size, int) else fallback[axis]
        for axis, size in enumerate(spec.shape[1:])
    )


def _check_size(specs: tuple[TensorSpec, ...], count: int, open_size: tuple[int, int]) -> None:
    # What a file declares is not to be believed: shapes are checked before anything is allocated.
    for spec in specs:
        size = 8 * count * math.prod(_shape(spec, open_size))
        if size > _PROBE_BYTES_MAX:
            raise InputError(
                f"the input {spec.name!r} of shape {list(spec.shape)} takes {size >> 20} MiB for "
                f"{count} items: expected at most {_PROBE_BYTES_MAX >> 20}"
            )


def _item(
    spec: TensorSpec,
    index: int,
    value_range: tuple[float, float],
    open_size: tuple[int, int],
    seed: int,
) -> Array:
    """Return item `index` of an endless sequence: the same whatever the batch size."""
    rng = np.random.default_rng([seed, index])
    shape = _shape(spec, open_size)
    if _is_number(spec) or spec.dtype == "bool":
        return rng.integers(0, 2, shape)
    if not _is_image(spec):
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


def _edges(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return a bright corner, a thin line and a lit last row: what is off by one shows here."""
    image = np.zeros(shape)
    rows, columns = shape[:2]
    image[rows // 3 :, columns // 2 + 1 :] = 0.6
    image[:, columns // 4] = 1
    image[-1] = 1
    return image * rng.uniform(0.5, 1, shape[2])


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


def _scribble(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return bright strokes on a dark ground: filters for strokes stay silent on all the others."""
    rows, columns = np.indices(shape[:2])
    side = min(shape[:2])
    width = max(0.6, rng.uniform(0.03, 0.06) * side)
    image = np.zeros(shape[:2])
    start = rng.uniform(0.15, 0.85, 2) * shape[:2]
    for _ in range(6):
        end = np.clip(start + rng.normal(0, 0.25, 2) * shape[:2], 0.1 * side, 0.9 * side)
        way = end - start
        along = (rows - start[0]) * way[0] + (columns - start[1]) * way[1]
        part = np.clip(along / max(float(way @ way), 1e-9), 0, 1)
        away = np.hypot(rows - start[0] - part * way[0], columns - start[1] - part * way[1])
        image = np.maximum(image, np.clip(1.5 - away / width, 0, 1))
        start = end
    return image[..., np.newaxis] * rng.uniform(0.5, 1, shape[2])


_PATTERNS: tuple[Callable[[np.random.Generator, tuple[int, ...]], Array], ...] = (
    _noise,
    _checkerboard,
    _edges,
    _ramp,
    _blobs,
    _constant,
    _scribble,
)
