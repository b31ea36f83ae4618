"""Real inputs for a comparison, from a folder of images or from NumPy files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stnkit.runtime.equivalence.probes import REAL_PREFIX, Probe
from stnkit.runtime.errors import InputError, one_line
from stnkit.runtime.signature import TensorSpec, shape_problem

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["real_probes"]

_ITEMS_MAX = 8
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_FILE_BYTES_MAX = 2**30


def real_probes(
    data: Path | None, specs: Sequence[TensorSpec], batch: int | None
) -> tuple[Probe, ...]:
    """Return a probe of real inputs; none where `data` is None.

    Args:
        data: a folder of images (for a model with one float image of known size as its input), a
            `.npy` file with that input's array, or a `.npz` file with an array for each input by
            its name. Pixels of image files become values in [0, 1].
        specs: the inputs.
        batch: fixed batch size, or None; at most 8 items are taken.

    Raises:
        InputError: there is no such file, it does not fit the inputs, or holds too few items.
    """
    if data is None:
        return ()
    if data.is_dir():
        arrays = _from_images(data, specs)
    elif data.suffix == ".npz":
        arrays = _from_npz(data, specs)
    elif data.suffix == ".npy":
        if len(specs) != 1:
            raise InputError(f"{data}: the model has {len(specs)} inputs: expected a .npz file")
        arrays = {specs[0].name: _load(data)}
    else:
        raise InputError(f"{data}: expected a folder of images, a .npy or a .npz file")
    counts = {len(array) if array.ndim else 0 for array in arrays.values()}
    count = batch or min(_ITEMS_MAX, *counts, _ITEMS_MAX)
    if not count or min(counts) < count:
        raise InputError(f"{data}: holds {min(counts)} items: expected {batch or 1} at least")
    inputs = {spec.name: _fitting(data, spec, arrays[spec.name][:count]) for spec in specs}
    return (Probe(f"{REAL_PREFIX}b{count}", inputs),)


def _fitting(data: Path, spec: TensorSpec, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    import numpy as np

    expected = shape_problem(spec.shape, array.shape)
    if expected is not None:
        raise InputError(
            f"{data}: {spec.name!r} has shape {list(array.shape)}: expected {expected}"
        )
    if array.dtype.kind not in "fiub" or array.dtype.kind == "f" != np.dtype(spec.dtype).kind:
        raise InputError(f"{data}: {spec.name!r} is {array.dtype}: expected {spec.dtype}")
    if spec.dtype.startswith("float") and array.dtype == np.uint8:
        array = array / np.float32(255)
    return np.ascontiguousarray(array.astype(spec.dtype))


def _load(path: Path) -> Any:
    import numpy as np

    try:
        if path.stat().st_size > _FILE_BYTES_MAX:
            raise InputError(f"{path}: is larger than 1 GiB: keep the first {_ITEMS_MAX} items")
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as exc:
        raise InputError(f"{path}: cannot be read as a NumPy file ({one_line(exc)})") from exc


def _from_npz(path: Path, specs: Sequence[TensorSpec]) -> dict[str, Any]:
    import zipfile
    import zlib

    try:
        archive = _load(path)
        names = list(archive.files)
        missing = [spec.name for spec in specs if spec.name not in names]
        if len(specs) == 1 and len(names) == 1:
            return {specs[0].name: archive[names[0]]}
        if missing:
            raise InputError(f"{path}: has {', '.join(names)}: expected {missing[0]!r} as well")
        return {spec.name: archive[spec.name] for spec in specs}
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, MemoryError) as exc:
        raise InputError(f"{path}: cannot be read as a .npz file ({one_line(exc)})") from exc


def _from_images(folder: Path, specs: Sequence[TensorSpec]) -> dict[str, Any]:
    import numpy as np
    from PIL import Image

    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _IMAGE_SUFFIXES)[
        :_ITEMS_MAX
    ]
    if not files:
        raise InputError(f"{folder}: has no images: expected some of {', '.join(_IMAGE_SUFFIXES)}")
    shape = specs[0].shape
    if len(specs) != 1 or len(shape) != 4 or shape[3] not in (1, 3):
        raise InputError(
            f"{folder}: a folder of images is for models with one image of 1 or 3 channels as the "
            "only input: expected a .npz file with an array for each input"
        )
    height, width = (size if isinstance(size, int) else None for size in shape[1:3])
    found = []
    for path in files:
        try:
            with Image.open(path) as image:
                picture = image.convert("L" if shape[3] == 1 else "RGB")
                side = (width or 64, height or 64)
                found.append(np.asarray(picture.resize(side), np.float32))
        except (OSError, ValueError, Image.DecompressionBombError) as exc:
            raise InputError(f"{path}: cannot be read as an image ({one_line(exc)})") from exc
    stacked = np.stack(found).reshape(len(found), *found[0].shape[:2], shape[3])
    scale = 255 if specs[0].dtype.startswith("float") else 1
    return {specs[0].name: stacked / np.float32(scale)}
