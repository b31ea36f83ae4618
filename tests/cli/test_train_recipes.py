"""`stnkit train registration` and `segmentation` on little data."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import keras
import numpy as np
import pytest

from stnkit.models import pretrained
from stnkit.models.training.recipe import TrainingResult

STEMS = ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"]
PARTS = ("train", "test")


@pytest.fixture
def data(scratch):
    """Return a function that writes IDX files of some shipped digits into "mnist"."""
    shipped = pretrained.samples("digits")

    def write(count):
        folder = scratch / "mnist"
        folder.mkdir()
        arrays = [shipped.images[:count, ..., 0], shipped.labels[:count]] * 2
        for stem, array in zip(STEMS, arrays, strict=True):
            header = struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape)
            content = header + array.astype(np.uint8).tobytes()
            (folder / f"{stem}-ubyte").write_bytes(content)

    return write


@pytest.mark.parametrize(
    ("recipe", "options", "figures", "says"),
    [
        (
            "registration",
            ["--flow", "dense"],
            ["dice_before", "dice_affine", "dice_flow", "mse_flow", "folded_pixels"],
            {"flow": "dense"},
        ),
        (
            "segmentation",
            ["--without-transformer"],
            ["iou", "dice", "pixel_accuracy"],
            {"transformer": False},
        ),
    ],
)
def test_training_writes_a_model_that_converts(
    recipe, options, figures, says, data, stnkit, scratch
):
    data(32)
    arguments = ["train", recipe, "--data", "mnist", "-o", "mine.keras", *options]
    result = stnkit(*arguments, "--epochs", 1, "--seed", 5, "--batch-size", 16, "--json")
    document = json.loads(result.stdout)
    assert document["test_count"] == 32
    assert all(0 <= document[name] <= 1 for name in figures)
    provenance = json.loads((scratch / document["provenance"]).read_text())
    assert provenance["recipe"].items() >= says.items()
    command = f"stnkit train {recipe} --data DIR --output mine.keras --epochs 1 --seed 5"
    assert provenance["command"] == f"{command} --batch-size 16 {' '.join(options)}"
    assert keras.saving.load_model("mine.keras").name == recipe
    stnkit("convert", "mine.keras", "-o", "mine.bundle", "--to", "onnx")


REGISTERED = {"dice_before": 0.35, "dice_affine": 0.5694, "dice_flow": 0.9, "folded_pixels": 0.008}
SEGMENTED = {"iou": 0.8, "dice": 0.8889, "pixel_accuracy": 0.98765}


@pytest.mark.parametrize(
    ("recipe", "figures", "says"),
    [
        (
            "registration",
            REGISTERED,
            "Dice of 16 test pairs 0.350 before, 0.569 after the affine map, 0.900 after the flow, "
            "which folds at 0.80% of the pixels",
        ),
        (
            "segmentation",
            SEGMENTED,
            "IoU 0.800 and Dice 0.889 of the digits in 16 test scenes, 98.77% of the pixels "
            "correct",
        ),
    ],
)
def test_people_are_told_the_figures(recipe, figures, says, data, stnkit, monkeypatch):
    def trained(task, output, **options):
        assert task.name == recipe
        return TrainingResult(output, Path("x.provenance.json"), figures, 16, 0, 1.0)

    data(16)
    monkeypatch.setattr("stnkit.models.training.loop.train", trained)
    text = stnkit("train", recipe, "--data", "mnist", "-o", "x.keras").stdout
    assert text == f"x.keras: {says}. How it was made: x.provenance.json\n"


@pytest.mark.parametrize("recipe", ["registration", "segmentation"])
def test_no_data_folder(recipe, refused):
    arguments = ["train", recipe, "-o", "x.keras", "--data", "nowhere"]
    refused(*arguments, says=["nowhere", "--data", "MNIST"])


def test_too_few_digits(data, refused):
    data(1)
    arguments = ["train", "segmentation", "-o", "x.keras", "--data", "mnist"]
    refused(*arguments, says=["1 digit", "two at least"])


def test_an_unknown_flow(refused):
    arguments = ["train", "registration", "-o", "x.keras", "--flow", "sideways"]
    refused(*arguments, says=["--flow", "sideways", "diffeomorphic", "dense"])


def test_photos(stnkit, scratch):
    rng = np.random.default_rng(0)
    arrays = {f"x_{part}": rng.integers(0, 256, (8, 32, 32, 3), np.uint8) for part in PARTS}
    np.savez("photos.npz", **arrays, **{f"y_{part}": np.arange(8) for part in PARTS})
    arguments = ["train", "photos", "--data", "photos.npz", "-o", "mine.keras", "--epochs", 1]
    own = ["--weights", "none", "--trainable", "block5", "--without-transformer"]
    result = stnkit(*arguments, *own, "--batch-size", 4, "--json")
    document = json.loads(result.stdout)
    assert document["test_count"] == 8
    provenance = json.loads((scratch / document["provenance"]).read_text())
    assert provenance["command"].endswith(" ".join(own))
    assert provenance["recipe"]["trainable"] == "block5"
    assert keras.saving.load_model("mine.keras").name == "photos"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--data", "nowhere.npz"], "nowhere.npz: no such file"),
        (["--data", "photos.npz", "--weights", "nowhere.h5"], "no such file"),
    ],
)
def test_photos_that_cannot_be_had(options, says, refused):
    np.savez(
        "photos.npz",
        **{f"x_{part}": np.zeros((2, 32, 32, 3), np.uint8) for part in PARTS},
        **{f"y_{part}": np.zeros(2, int) for part in PARTS},
    )
    assert says in refused("train", "photos", "-o", "x.keras", *options)


def test_another_network_for_digits(data, stnkit, scratch):
    data(32)
    arguments = ["train", "digits", "--data", "mnist", "-o", "mine.keras", "--epochs", 1]
    own = ["--network", "paper-st-fcn", "--transform", "projective"]
    document = json.loads(stnkit(*arguments, "--batch-size", 16, *own, "--json").stdout)
    provenance = json.loads((scratch / document["provenance"]).read_text())
    assert provenance["recipe"]["network"] == "paper-st-fcn"
    assert provenance["recipe"]["transform"] == "projective"
    model = keras.saving.load_model("mine.keras")
    assert model.input_shape == (None, 28, 28, 1)
    assert model.get_layer("spatial_transformer").transform.name == "projective"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--network", "vgg16"], "network is 'vgg16': expected one of 'digits', 'tutorial'"),
        (["--network", "paper-fcn", "--transform", "affine"], "has no option 'transform'"),
        (["--network", "tutorial", "--transform", "bend"], "transform is 'bend'"),
    ],
)
def test_networks_that_digits_are_not_for(options, says, data, refused):
    data(16)
    assert says in refused("train", "digits", "--data", "mnist", "-o", "x.keras", *options)
