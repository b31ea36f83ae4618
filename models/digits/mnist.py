"""The MNIST digits, from IDX files of the user's or from Keras."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stnkit.models.training.errors import DataError

_SIDE_PX = 28
_MAGIC = {1: 0x0801, 3: 0x0803}  # unsigned bytes, by number of axes
_LARGEST_BYTES = 16 + 100_000 * _SIDE_PX * _SIDE_PX  # bounds what a gzip file may grow into
_STEMS = {
    "train_images": "train-images",
    "train_labels": "train-labels",
    "test_images": "t10k-images",
    "test_labels": "t10k-labels",
}


@dataclass(frozen=True)
class Mnist:
    """Handwritten digits.

    Attributes:
        train_images: `[count, 28, 28]` uint8, 0 is the background.
        train_labels: `[count]` uint8 in 0..9.
        test_images: As `train_images`, of other writers.
        test_labels: As `train_labels`.
        source: "idx" or "keras.datasets.mnist".
        checksums: SHA-256 of every file read, by file name.
    """

    train_images: np.ndarray[Any, np.dtype[np.uint8]]
    train_labels: np.ndarray[Any, np.dtype[np.uint8]]
    test_images: np.ndarray[Any, np.dtype[np.uint8]]
    test_labels: np.ndarray[Any, np.dtype[np.uint8]]
    source: str
    checksums: dict[str, str]


def read_idx(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the array in an IDX file of unsigned bytes, gzip or not.

    Returns:
        uint8, `[count]` for labels and `[count, height, width]` for images.

    Raises:
        DataError: If the file cannot be read, is not IDX, or is shorter or longer than it says.

    Source:
        The IDX format, as described with the MNIST database.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            with gzip.open(path) as stream:
                content = stream.read(_LARGEST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as exc:
        raise DataError(f"{path}: cannot be read ({exc}): expected an MNIST IDX file") from exc
    axes = content[3] if len(content) >= 4 else 0
    if axes not in _MAGIC or struct.unpack(">I", content[:4])[0] != _MAGIC[axes]:
        raise DataError(
            f"{path}: starts with {content[:4].hex() or 'nothing'}: expected an IDX file of "
            "unsigned bytes, 00000803 for images or 00000801 for labels"
        )
    header = 4 + 4 * axes
    if len(content) < header:
        raise DataError(f"{path}: has {len(content)} bytes: the IDX header alone takes {header}")
    shape = struct.unpack(f">{axes}I", content[4:header])
    expected = header
    size = 1
    for length in shape:
        size *= length
    expected += size
    if len(content) != expected:
        raise DataError(
            f"{path}: holds {len(content)} bytes, its header promises {expected}: the file is "
            "truncated or not MNIST; fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _find(folder: Path, stem: str, axes: int) -> Path:
    names = [f"{stem}{dash}idx{axes}-ubyte{end}" for end in ("", ".gz") for dash in ("-", ".")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(
        f"{folder}: has no {names[0]} nor {names[2]}: expected the four IDX files of MNIST, gzip "
        "or not"
    )


def _from_folder(folder: Path) -> Mnist:
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder: --data takes one with the IDX files of MNIST")
    arrays, checksums = {}, {}
    for key, stem in _STEMS.items():
        path = _find(folder, stem, 3 if key.endswith("images") else 1)
        arrays[key] = read_idx(path)
        checksums[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return Mnist(**arrays, source="idx", checksums=checksums)


def _from_keras() -> Mnist:
    import keras

    try:
        (train_images, train_labels), (test_images, test_labels) = keras.datasets.mnist.load_data()
    except Exception as exc:  # keras raises a bare Exception when the download fails
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        raise DataError(
            f"MNIST is not at hand: keras.datasets.mnist failed ({reason}). Pass --data DIR, a "
            "folder with train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, "
            "t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz"
        ) from exc
    arrays = {
        "train_images": train_images,
        "train_labels": train_labels,
        "test_images": test_images,
        "test_labels": test_labels,
    }
    sums = {key: hashlib.sha256(array.tobytes()).hexdigest() for key, array in arrays.items()}
    return Mnist(**arrays, source="keras.datasets.mnist", checksums=sums)


def load_mnist(folder: Path | None = None) -> Mnist:
    """Return MNIST from the IDX files in `folder`, else from `keras.datasets.mnist`.

    Args:
        folder: Folder with the four IDX files under their usual names, gzip or not; or None.

    Raises:
        DataError: If the files are missing or damaged, or Keras cannot get the data.
    """
    mnist = _from_keras() if folder is None else _from_folder(folder)
    for part in ("train", "test"):
        images, labels = getattr(mnist, f"{part}_images"), getattr(mnist, f"{part}_labels")
        if images.ndim != 3 or images.shape[1:] != (_SIDE_PX, _SIDE_PX) or not len(images):
            raise DataError(f"the {part} images have shape {images.shape}: expected [n, 28, 28]")
        if labels.shape != images.shape[:1]:
            raise DataError(
                f"{len(images)} {part} images come with labels of shape {labels.shape}: expected "
                "one label for each image"
            )
        if labels.max() > 9:
            raise DataError(f"the {part} labels reach {labels.max()}: expected digits 0 to 9")
    return mnist
