"""`stnkit run`: classes, scores, warped images."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

ARTIFACTS = ["model.fp32.tflite", "model.fp32.onnx"]


@pytest.fixture(scope="module")
def labelled(samples):
    """Return the first hundred sample images and their labels."""
    with (samples / "labels.csv").open() as table:
        rows = list(csv.DictReader(table))[:100]
    return [samples / row["file"] for row in rows], [row["label"] for row in rows]


@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_classes_are_right(artifact, labelled, digits_bundle, stnkit):
    images, labels = labelled
    result = stnkit("run", digits_bundle, *images, "--artifact", artifact, "--json")
    assert result.stderr == ""
    document = json.loads(result.stdout)
    assert document["artifact"] == artifact
    found = document["predictions"]
    assert [it["image"] for it in found] == [str(image) for image in images]
    right = [it["class"] == label for it, label in zip(found, labels, strict=True)]
    assert sum(right) >= 95
    for item in found:
        scores = item["scores"]
        assert len(scores) == 10
        assert sum(scores) == pytest.approx(1, abs=1e-5)
        assert item["score"] == max(scores) == scores[item["index"]]
        assert item["class"] == str(item["index"])
        assert item["warped"] is None


def test_artifacts_agree(labelled, digits_bundle, stnkit):
    images = labelled[0][:20]
    scores = []
    for artifact in ("tflite", "onnx"):
        result = stnkit("run", digits_bundle, *images, "--artifact", artifact, "--json")
        scores.append([it["scores"] for it in json.loads(result.stdout)["predictions"]])
    np.testing.assert_allclose(scores[0], scores[1], atol=2e-5)


def test_table(labelled, digits_bundle, stnkit):
    image = labelled[0][0]
    result = stnkit("run", digits_bundle, image, "--threads", 2)
    heading, row = result.stdout.splitlines()
    assert heading.split() == ["image", "class", "probability"]
    cells = re.split(r"\s{2,}", row)
    assert cells[:2] == [str(image), labelled[1][0]]
    assert re.fullmatch(r"\d+\.\d\d%", cells[2])
    assert result.stderr == "Ran on model.fp32.tflite.\n"


def test_explain(labelled, digits_bundle, stnkit):
    image = labelled[0][0]
    result = stnkit("run", digits_bundle, image, "--explain", "--device", "cpu")
    assert len(result.stdout.splitlines()) == 2
    first, *lines = result.stderr.splitlines()
    assert first == "Ran on model.fp32.tflite."
    assert lines[0] == "device     cpu: asked for"
    assert "model.fp32.onnx (onnxruntime): model.fp32.tflite is the first" in lines[2]
    result = stnkit("run", digits_bundle, image, "--explain", "--device", "cpu", "--json")
    found = json.loads(result.stdout)["explanation"]
    assert (found["device"], found["artifact"]) == ("cpu", "model.fp32.tflite")


@pytest.mark.parametrize(
    ("device", "says"),
    [
        ("tpu", ['no device "tpu"', "expected auto, cpu, cuda or cuda:N"]),
        ("cuda:9", ["device cuda:9 cannot be used"]),
    ],
)
def test_a_device_that_is_not_there(device, says, labelled, digits_bundle, refused):
    refused("run", digits_bundle, labelled[0][0], "--device", device, says=says)


@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_save_warp(artifact, labelled, digits_bundle, stnkit, scratch):
    images = labelled[0][:12]
    arguments = ["run", digits_bundle, *images, "--artifact", artifact]
    result = stnkit(*arguments, "--save-warp", "seen/here", "--json")
    found = json.loads(result.stdout)["predictions"]
    written = sorted(path.name for path in (scratch / "seen/here").iterdir())
    assert written == sorted(f"{image.stem}.warped.png" for image in images)
    moved = []
    for item, image in zip(found, images, strict=True):
        assert item["warped"] == f"seen/here/{image.stem}.warped.png"
        with Image.open(scratch / item["warped"]) as opened:
            assert (opened.format, opened.mode, opened.size) == ("PNG", "L", (28, 28))
            warped = np.asarray(opened, np.int16)
        assert warped.max() > 100, "nothing of the digit is left"
        moved.append(np.abs(warped - np.asarray(Image.open(image), np.int16)).max())
    assert min(moved) > 50, "the transformer did nothing"


def test_an_image_of_another_size_is_resized(labelled, digits_bundle, stnkit, scratch):
    images, labels = labelled
    for index in range(10):
        with Image.open(images[index]) as small:
            small.resize((84, 84), Image.Resampling.BICUBIC).save(scratch / f"{index}.png")
    result = stnkit("run", digits_bundle, *(f"{i}.png" for i in range(10)), "--json")
    found = [it["class"] for it in json.loads(result.stdout)["predictions"]]
    assert sum(a == b for a, b in zip(found, labels, strict=False)) >= 9


def test_other_file_formats(labelled, digits_bundle, stnkit, scratch):
    with Image.open(labelled[0][0]) as digit:
        for suffix in ("bmp", "jpg", "webp.png", "tiff"):
            digit.save(scratch / f"x.{suffix}", format="WEBP" if "webp" in suffix else None)
    with Image.open(scratch / "x.webp.png") as stored:
        names = ["x.bmp", "x.jpg", "x.tiff"] + (["x.webp.png"] if stored.mode == "L" else [])
    result = stnkit("run", digits_bundle, *names, "--json")
    assert {it["class"] for it in json.loads(result.stdout)["predictions"]} == {labelled[1][0]}
