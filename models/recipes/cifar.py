"""CIFAR-10 photos, from a file of the user's or from Keras."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stnkit.models.training.errors import DataError

CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_KEYS = ("x_train", "y_train", "x_test", "y_test")
_SIDE_PX = 32
_LARGEST_BYTES = 1 << 30  # of one array: bounds what a compressed file may grow into


@dataclass(frozen=True)
class Photos:
    """Small photos with their classes.

    Attributes:
        train_images: `[count, 32, 32, 3]` uint8.
        train_labels: `[count]` uint8, indices into `CLASS_NAMES`.
        test_images: As `train_images`, other photos.
        test_labels: As `train_labels`.
        source: "npz" or "keras.datasets.cifar10".
        checksums: SHA-256 of the file by its name, or of each array.
    """

    train_images: np.ndarray[Any, np.dtype[np.uint8]]
    train_labels: np.ndarray[Any, np.dtype[np.uint8]]
    test_images: np.ndarray[Any, np.dtype[np.uint8]]
    test_labels: np.ndarray[Any, np.dtype[np.uint8]]
    source: str
    checksums: dict[str, str]


def load_cifar10(path: Path | None = None) -> Photos:
    """Return CIFAR-10, or a part of it.

    Args:
        path: A `.npz` file with `x_train`, `y_train`, `x_test`, `y_test`; None asks Keras.

    Raises:
        DataError: If the file is missing, damaged or of another kind, or Keras cannot get the data.
    """
    if path is None:
        arrays, checksums = _from_keras()
        source = "keras.datasets.cifar10"
    else:
        arrays = _from_file(path)
        checksums, source = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}, "npz"
    found: dict[str, Any] = {}
    for part in ("train", "test"):
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"].reshape(-1)
        if (
            images.dtype != np.uint8
            or images.shape[1:] != (_SIDE_PX, _SIDE_PX, 3)
            or not len(images)
        ):
            raise DataError(
                f"x_{part} is {images.dtype} {images.shape}: expected uint8 [count, 32, 32, 3]"
            )
        if len(labels) != len(images) or not np.issubdtype(labels.dtype, np.integer):
            raise DataError(
                f"y_{part} is {labels.dtype} {labels.shape}: expected one integer for each of the "
                f"{len(images)} photos"
            )
        if labels.min() < 0 or labels.max() >= len(CLASS_NAMES):
            raise DataError(
                f"y_{part} goes from {labels.min()} to {labels.max()}: expected classes 0 to 9"
            )
        found[f"{part}_images"], found[f"{part}_labels"] = images, labels.astype(np.uint8)
    return Photos(**found, source=source, checksums=checksums)


def _from_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"{path}: no such file: expected a .npz with {', '.join(_KEYS)}")
    try:
        with zipfile.ZipFile(path) as members:
            sizes = {member.filename: member.file_size for member in members.infolist()}
        missing = [key for key in _KEYS if f"{key}.npy" not in sizes]
        if missing:
            raise DataError(f"{path}: has no {missing[0]}: expected {', '.join(_KEYS)}")
        if max(sizes.values()) > _LARGEST_BYTES:
            raise DataError(f"{path}: holds an array of over 1 GB: CIFAR-10 takes 154 MB")
        with np.load(path, allow_pickle=False) as data:
            return {key: data[key] for key in _KEYS}
    except DataError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as exc:
        raise DataError(f"{path}: cannot be read ({exc}): expected a .npz file") from exc


def _from_keras() -> tuple[dict[str, Any], dict[str, str]]:
    import keras

    try:
        (x_train, y_train), (x_test, y_test) = keras.datasets.cifar10.load_data()
    except Exception as exc:  # keras raises a bare Exception when the download fails
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        raise DataError(
            f"CIFAR-10 is not at hand: keras.datasets.cifar10 failed ({reason}). Pass --data FILE, "
            f"a .npz with {', '.join(_KEYS)}"
        ) from exc
    arrays = dict(zip(_KEYS, (x_train, y_train, x_test, y_test), strict=True))
    return arrays, {
        key: hashlib.sha256(value.tobytes()).hexdigest() for key, value in arrays.items()
    }
