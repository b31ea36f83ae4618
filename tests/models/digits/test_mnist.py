"""MNIST from IDX files of every usual kind, and what is said about files that are not."""

from __future__ import annotations

import gzip
import hashlib
import re
import struct
import tracemalloc

import keras
import numpy as np
import pytest

from stnkit.models.digits.mnist import load_mnist, read_idx
from stnkit.models.training.errors import DataError

STEMS = ("train-images", "train-labels", "t10k-images", "t10k-labels")


def idx(array):
    """Return an array as the bytes of an IDX file, by the format's own description."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def digits(train=7, test=3):
    rng = np.random.default_rng(train)
    return {
        "train-images": rng.integers(0, 256, (train, 28, 28), dtype=np.uint8),
        "train-labels": rng.integers(0, 10, train, dtype=np.uint8),
        "t10k-images": rng.integers(0, 256, (test, 28, 28), dtype=np.uint8),
        "t10k-labels": rng.integers(0, 10, test, dtype=np.uint8),
    }


def file_name(stem, dash="-", end=""):
    return f"{stem}{dash}idx{3 if 'images' in stem else 1}-ubyte{end}"


def write(folder, arrays, dash="-", end=""):
    for stem, array in arrays.items():
        content = idx(array)
        path = folder / file_name(stem, dash, end)
        path.write_bytes(gzip.compress(content) if end else content)


def refused(*parts):
    return pytest.raises(DataError, match="(?s)" + ".*".join(re.escape(part) for part in parts))


@pytest.mark.parametrize("dash", ["-", "."])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_every_usual_kind_of_file(tmp_path, dash, end):
    arrays = digits()
    write(tmp_path, arrays, dash, end)
    mnist = load_mnist(tmp_path)
    parts = (mnist.train_images, mnist.train_labels, mnist.test_images, mnist.test_labels)
    for received, expected in zip(parts, arrays.values(), strict=True):
        assert received.dtype == np.uint8
        assert np.array_equal(received, expected)
    assert mnist.source == "idx"
    assert mnist.checksums == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.iterdir()
    }
    assert len(mnist.checksums) == 4


def test_kinds_may_be_mixed_and_gzip_goes_by_content(tmp_path):
    arrays = digits()
    write(tmp_path, arrays)
    (tmp_path / file_name("t10k-images")).write_bytes(gzip.compress(idx(arrays["t10k-images"])))
    labels = tmp_path / file_name("train-labels")
    labels.rename(tmp_path / file_name("train-labels", ".", ".gz"))  # plain, whatever the name says
    mnist = load_mnist(tmp_path)
    assert np.array_equal(mnist.test_images, arrays["t10k-images"])
    assert np.array_equal(mnist.train_labels, arrays["train-labels"])


@pytest.mark.parametrize("stem", STEMS)
def test_missing_file(tmp_path, stem):
    write(tmp_path, digits())
    (tmp_path / file_name(stem)).unlink()
    with refused(str(tmp_path), file_name(stem), file_name(stem, end=".gz"), "four IDX files"):
        load_mnist(tmp_path)


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_folder_that_is_none(tmp_path, name):
    (tmp_path / "file").write_bytes(b"")
    with refused(str(tmp_path / name), "is not a folder", "--data"):
        load_mnist(tmp_path / name)


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("cut", [1, 20, 0.5])
def test_truncated_gzip(tmp_path, stem, cut):
    write(tmp_path, digits(), end=".gz")
    path = tmp_path / file_name(stem, end=".gz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - (cut if cut >= 1 else int(len(whole) * cut))])
    with refused(path.name, "cannot be read", "expected an MNIST IDX file"):
        load_mnist(tmp_path)


def test_gzip_with_one_byte_changed(tmp_path):
    write(tmp_path, digits(), end=".gz")
    path = tmp_path / file_name("train-images", end=".gz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)
    with refused(path.name, "cannot be read"):
        load_mnist(tmp_path)


@pytest.mark.parametrize("change", [-1, -700, 1, 784])
def test_idx_of_another_length_than_it_says(tmp_path, change):
    content = idx(digits()["train-images"])
    path = tmp_path / "digits"
    path.write_bytes(content[:change] if change < 0 else content + bytes(change))
    with refused(str(path), f"holds {len(content) + change} bytes", f"promises {len(content)}"):
        read_idx(path)


@pytest.mark.parametrize("length", [4, 7, 15])
def test_idx_cut_within_its_header(tmp_path, length):
    path = tmp_path / "digits"
    path.write_bytes(idx(digits()["train-images"])[:length])
    with refused(f"has {length} bytes", "header alone takes 16"):
        read_idx(path)


@pytest.mark.parametrize(
    ("start", "shown"),
    [
        (b"", "nothing"),
        (b"\0\0", "0000"),
        (b"\x89PNG", "89504e47"),
        (b"\0\0\x0d\x03", "00000d03"),  # float32 values
        (b"\0\0\x08\x02", "00000802"),  # two axes
        (b"\1\0\x08\x03", "01000803"),
        (b"\3\x08\0\0", "03080000"),  # the other byte order
    ],
    ids=repr,
)
def test_wrong_magic(tmp_path, start, shown):
    path = tmp_path / "digits"
    path.write_bytes(start + bytes(60 if len(start) == 4 else 0))
    with refused(str(path), f"starts with {shown}", "00000803 for images", "00000801 for labels"):
        read_idx(path)


def test_a_header_of_huge_sizes_allocates_nothing(tmp_path):
    path = tmp_path / "digits"
    path.write_bytes(b"\0\0\x08\x03" + b"\xff" * 12 + bytes(100))
    with refused("holds 116 bytes", f"promises {16 + (2**32 - 1) ** 3}"):
        read_idx(path)


def test_a_gzip_bomb_is_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr("stnkit.models.digits.mnist._LARGEST_BYTES", 1_000_000)
    path = tmp_path / "digits.gz"
    path.write_bytes(gzip.compress(idx(np.zeros((40_000, 28, 28)))))
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    try:
        with refused("holds 1000001 bytes", "promises 31360016"):
            read_idx(path)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 5_000_000


def test_the_whole_of_mnist_is_within_the_bound():
    from stnkit.models.digits.mnist import _LARGEST_BYTES

    assert 16 + 60_000 * 28 * 28 < _LARGEST_BYTES < 200_000_000


def test_unreadable_file(tmp_path):
    with refused(str(tmp_path), "cannot be read"):
        read_idx(tmp_path)  # a folder: also root may not read it


@pytest.mark.parametrize("part", ["train", "t10k"])
def test_label_that_is_no_digit(tmp_path, part):
    arrays = digits()
    arrays[f"{part}-labels"][1] = 10
    write(tmp_path, arrays)
    with refused(f"the {part.replace('t10k', 'test')} labels reach 10", "digits 0 to 9"):
        load_mnist(tmp_path)


@pytest.mark.parametrize("part", ["train", "t10k"])
def test_fewer_labels_than_images(tmp_path, part):
    arrays = digits(train=7, test=7)
    arrays[f"{part}-labels"] = arrays[f"{part}-labels"][:-1]
    write(tmp_path, arrays)
    with refused("7", part.replace("t10k", "test"), "(6,)", "one label for each image"):
        load_mnist(tmp_path)


@pytest.mark.parametrize("shape", [(7, 32, 32), (7, 28, 1), (0, 28, 28)], ids=str)
def test_images_of_another_shape(tmp_path, shape):
    arrays = {**digits(), "train-images": np.zeros(shape, np.uint8)}
    arrays["train-labels"] = arrays["train-labels"][: shape[0]]
    write(tmp_path, arrays)
    with refused(f"train images have shape {shape}", "expected [n, 28, 28]"):
        load_mnist(tmp_path)


def test_images_and_labels_swapped(tmp_path):
    arrays = digits()
    write(tmp_path, {**arrays, "train-images": arrays["train-labels"]})
    with refused("train images have shape (7,)", "expected [n, 28, 28]"):
        load_mnist(tmp_path)


def test_without_a_folder_keras_is_asked(monkeypatch):
    arrays = digits()
    pairs = [(arrays[f"{part}-images"], arrays[f"{part}-labels"]) for part in ("train", "t10k")]
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: tuple(pairs))
    mnist = load_mnist()
    assert mnist.source == "keras.datasets.mnist"
    assert np.array_equal(mnist.test_labels, arrays["t10k-labels"])
    expected = hashlib.sha256(arrays["train-images"].tobytes()).hexdigest()
    assert mnist.checksums["train_images"] == expected


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (Exception("URL fetch failure on https://x: None -- no route\nmore"), "no route"),
        (OSError(), "OSError"),
        (ValueError("Incomplete or corrupted file detected"), "corrupted"),
    ],
    ids=repr,
)
def test_neither_folder_nor_keras_says_what_to_do(monkeypatch, error, shown):
    def fail():
        raise error

    monkeypatch.setattr(keras.datasets.mnist, "load_data", fail)
    with refused("keras.datasets.mnist failed", shown, "Pass --data DIR") as caught:
        load_mnist()
    assert caught.value.__cause__ is error
    assert "\n" not in str(caught.value)
    assert all(file_name(stem, end=".gz") in str(caught.value) for stem in STEMS)
