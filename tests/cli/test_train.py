"""`stnkit train digits` on little data: files, streams and refusals."""

from __future__ import annotations

import gzip
import json
import struct

import keras
import numpy as np
import pytest

from stnkit.models import pretrained

STEMS = ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"]


def idx(array):
    header = struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def data(scratch):
    """Return a folder with IDX files of the shipped digits, half of them gzip."""
    shipped = pretrained.samples("digits")
    folder = scratch / "mnist"
    folder.mkdir()
    images, labels = shipped.images[..., 0], shipped.labels
    for number, (stem, array) in enumerate(zip(STEMS, [images, labels] * 2, strict=True)):
        content = idx(array)
        if number % 2:
            (folder / f"{stem}-ubyte.gz").write_bytes(gzip.compress(content))
        else:
            (folder / f"{stem}-ubyte").write_bytes(content)
    return folder


def test_training_writes_a_model_that_converts(data, stnkit, scratch):
    arguments = ["train", "digits", "--data", "mnist", "--output", "mine.keras"]
    result = stnkit(*arguments, "--epochs", 2, "--seed", 5, "--batch-size", 50, "--json")
    document = json.loads(result.stdout)
    assert document["model"] == "mine.keras"
    assert document["test_count"] == 200
    assert document["resumed_from_epoch"] == 0
    lines = result.stderr.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    provenance = json.loads((scratch / document["provenance"]).read_text())
    assert "--seed 5" in json.dumps(provenance)
    assert keras.saving.load_model("mine.keras", compile=False).input_shape == (None, 28, 28, 1)
    left = {path.name for path in scratch.iterdir()}
    assert left == {"mnist", "mine.keras", document["provenance"]}
    stnkit("convert", "mine.keras", "-o", "mine.bundle", "--to", "tflite")


def train(*options):
    return ["train", "digits", "-o", "x.keras", "--epochs", "1", *options]


def test_the_output_exists(scratch, refused):
    (scratch / "x.keras").write_text("precious")
    refused(*train("--data", "mnist"), says=["x.keras exists", "--force"])


def test_no_data_folder(refused):
    refused(*train("--data", "nowhere"), says=["nowhere", "--data", "MNIST"])


def test_a_file_is_missing(data, refused):
    (data / "t10k-labels-idx1-ubyte.gz").unlink()
    refused(*train("--data", "mnist"), says=["mnist", "t10k-labels-idx1-ubyte"])


@pytest.mark.parametrize("size", [0, 3, 12, 1000])
def test_a_file_is_truncated(size, data, refused):
    path = data / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:size])
    refused(*train("--data", "mnist"), says=[path.name])


def test_a_gzip_file_is_truncated(data, refused):
    path = data / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-10])
    refused(*train("--data", "mnist"), says=[path.name])


def test_images_and_labels_disagree(data, refused):
    (data / "train-labels-idx1-ubyte.gz").write_bytes(idx(np.zeros(7, np.uint8)))
    refused(*train("--data", "mnist"), says=["200", "7"])


def test_without_data_and_without_a_network(refused, monkeypatch):
    def offline():
        raise Exception("URL fetch failure on https://example.invalid: None -- unreachable")

    monkeypatch.setattr("keras.datasets.mnist.load_data", offline)
    says = ["MNIST", "URL fetch failure", "--data DIR", "train-images-idx3-ubyte.gz"]
    refused(*train(), says=says)
