"""`stnkit samples`: the shipped images as files."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from stnkit.models import pretrained


def test_files_are_the_shipped_images(stnkit, scratch):
    out = stnkit("samples", "digits", "--output", "new/samples").stdout
    assert out == "200 images and labels.csv written to new/samples\n"
    folder = scratch / "new/samples"
    shipped = pretrained.samples("digits")
    with (folder / "labels.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == len(shipped.images) == 200
    assert {path.name for path in folder.iterdir()} == {
        "labels.csv",
        *(row["file"] for row in rows),
    }
    for row, image, label in zip(rows, shipped.images, shipped.labels, strict=True):
        assert row["label"] == shipped.class_names[label]
        assert row["file"].endswith(f"_{row['label']}.png")
        with Image.open(folder / row["file"]) as opened:
            assert (opened.format, opened.mode) == ("PNG", "L")
            assert np.array_equal(np.asarray(opened), image[..., 0])


def test_shipped_images_are_real_and_varied():
    shipped = pretrained.samples("digits")
    assert shipped.images.shape == (200, 28, 28, 1)
    assert set(shipped.labels.tolist()) == set(range(10))
    assert len(np.unique(shipped.images, axis=0)) == 200


def test_json(stnkit):
    document = json.loads(stnkit("samples", "digits", "-o", "here", "--json").stdout)
    assert document["folder"] == "here"
    assert len(document["files"]) == 200


def test_a_folder_with_files_needs_force(scratch, stnkit, refused):
    (scratch / "mine").mkdir()
    stnkit("samples", "digits", "-o", "mine")
    (scratch / "mine" / "000_7.png").write_text("mine")
    (scratch / "mine" / "keep.txt").write_text("mine")
    refused("samples", "digits", "-o", "mine", says=["mine", "--force"])
    stnkit("samples", "digits", "-o", "mine", "--force")
    assert (scratch / "mine" / "keep.txt").read_text() == "mine"
    with Image.open(scratch / "mine" / "000_7.png") as restored:
        restored.load()


def test_a_file_in_the_way(scratch, refused):
    (scratch / "file").write_text("precious")
    refused("samples", "digits", "-o", "file", says=["file"])
    refused("samples", "digits", "-o", "file/below", "--force", says=["file/below"])


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_needs_no_tensorflow(option, process, scratch):
    missing = "tensorflow,keras,tf2onnx,onnx,onnxruntime,ai_edge_litert"
    result = process("samples", "digits", "-o", "here", *option, missing=missing)
    assert (result.returncode, result.stderr) == (0, "")
    assert len(list((scratch / "here").glob("*.png"))) == 200
