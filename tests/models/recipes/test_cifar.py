"""Reading CIFAR-10 from a file of the user's, from Keras, and what is refused."""

from __future__ import annotations

import hashlib

import keras
import numpy as np
import pytest

from stnkit.models.recipes.cifar import CLASS_NAMES, load_cifar10
from stnkit.models.training.errors import DataError


def arrays(count=4, **changes):
    rng = np.random.default_rng(0)
    found = {
        "x_train": rng.integers(0, 256, (count, 32, 32, 3), np.uint8),
        "y_train": np.arange(count) % 10,
        "x_test": rng.integers(0, 256, (2, 32, 32, 3), np.uint8),
        "y_test": np.array([[3], [9]]),
    }
    return {key: value for key, value in {**found, **changes}.items() if value is not None}


def test_a_file(tmp_path):
    path = tmp_path / "photos.npz"
    given = arrays()
    np.savez(path, **given)
    photos = load_cifar10(path)
    np.testing.assert_array_equal(photos.train_images, given["x_train"])
    assert photos.test_labels.tolist() == [3, 9]  # a column of labels, as Keras has them
    assert photos.test_labels.dtype == np.uint8
    assert photos.source == "npz"
    assert photos.checksums == {"photos.npz": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert len(CLASS_NAMES) == 10


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"y_test": None}, "has no y_test"),
        ({"x_train": np.zeros((4, 32, 32, 3), np.float32)}, "x_train is float32"),
        ({"x_train": np.zeros((4, 28, 28, 3), np.uint8)}, r"\(4, 28, 28, 3\): expected uint8"),
        ({"x_test": np.zeros((0, 32, 32, 3), np.uint8), "y_test": np.zeros(0, int)}, "x_test"),
        ({"y_train": np.arange(3)}, "one integer for each of the 4 photos"),
        ({"y_train": np.array([0, 1, 2, 10])}, "from 0 to 10: expected classes 0 to 9"),
        ({"y_train": np.array([0.0, 1, 2, 3])}, "float64"),
        ({"y_train": np.array([{}] * 4)}, "cannot be read"),
    ],
)
def test_files_that_do_not_fit(changes, says, tmp_path):
    path = tmp_path / "photos.npz"
    np.savez(path, **arrays(**changes))
    with pytest.raises(DataError, match=says):
        load_cifar10(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"hello"])
def test_files_that_are_damaged(content, tmp_path):
    path = tmp_path / "photos.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"photos\.npz: cannot be read"):
        load_cifar10(path)


def test_a_file_that_would_grow_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr("stnkit.models.recipes.cifar._LARGEST_BYTES", 1000)
    path = tmp_path / "photos.npz"
    np.savez_compressed(path, **arrays())
    with pytest.raises(DataError, match="over 1 GB"):
        load_cifar10(path)


def test_no_file(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        load_cifar10(tmp_path / "none.npz")


def test_from_keras_and_without_a_network(monkeypatch):
    given = arrays()
    pairs = (given["x_train"], given["y_train"]), (given["x_test"], given["y_test"])
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: pairs)
    assert load_cifar10().source == "keras.datasets.cifar10"

    def fails():
        raise Exception("URL fetch failure\nand a traceback")

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", fails)
    with pytest.raises(DataError, match=r"failed \(URL fetch failure\)\. Pass --data FILE"):
        load_cifar10()
