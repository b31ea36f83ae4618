"""The models that are shipped: whole, as good as they say, and readable without TensorFlow."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from stnkit.models.pretrained import NAMES, model_file, provenance, samples

LARGEST_BYTES = 1_500_000
WITHOUT_TENSORFLOW = """
import json, sys
from stnkit.models.pretrained import NAMES, model_file, provenance, samples
for name in NAMES:
    images = samples(name).images
    print(json.dumps([name, model_file(name).name, provenance(name)["model"], images.shape[0]]))
heavy = {"tensorflow", "keras", "tf2onnx", "onnx", "torch", "jax"}
sys.exit(", ".join(heavy & {module.split(".")[0] for module in sys.modules}) or None)
"""


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def test_digits_is_shipped():
    assert "digits" in NAMES


def test_the_model_is_the_one_its_provenance_describes(name):
    record, file = provenance(name), model_file(name)
    assert record["model"] == file.name
    assert record["model_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert file.stat().st_size < LARGEST_BYTES


def test_the_whole_of_mnist_made_digits():
    record = provenance("digits")
    assert record["data"]["train_count"] == 60_000
    assert len(record["data"]["sha256"]) == 4
    assert all(len(bytes.fromhex(digest)) == 32 for digest in record["data"]["sha256"].values())
    assert record["accuracy"]["count"] == 10_000
    assert 0.985 <= record["accuracy"]["distorted_test_digits"] <= 1
    command = record["command"].split()
    assert command[:3] == ["stnkit", "train", "digits"]
    for option, value in [
        ("--epochs", "epochs"),
        ("--seed", "seed"),
        ("--batch-size", "batch_size"),
    ]:
        assert command[command.index(option) + 1] == str(record["recipe"][value])
    assert command[command.index("--samples") + 1] == "200"
    assert record["recipe"]["distortion"] == {
        "rotation_degrees": 45.0,
        "scale": [0.7, 1.2],
        "shift_px": 3.0,
    }
    assert {"python", "stnkit", "tensorflow", "keras", "numpy"} <= set(record["versions"])


def test_two_hundred_samples_of_every_digit():
    shipped = samples("digits")
    assert shipped.images.shape == (200, 28, 28, 1)
    assert shipped.images.dtype == np.uint8
    assert shipped.labels.shape == (200,)
    assert shipped.class_names == tuple("0123456789")
    assert set(shipped.labels.tolist()) == set(range(10))
    assert np.unique(shipped.images, axis=0).shape[0] == 200
    # Light digits on black, none of them empty.
    assert shipped.images[:, 0, 0].mean() < 5
    assert (shipped.images.reshape(200, -1).max(axis=1) > 150).all()


def test_keras_loads_the_model_and_it_knows_the_samples():
    import keras

    import stnkit.models
    from stnkit.models.layer import SpatialTransformer

    shipped = samples("digits")
    model = keras.saving.load_model(model_file("digits"))
    assert model.count_params() == provenance("digits")["parameters"]
    assert model.input_shape == (None, 28, 28, 1)
    assert [type(part) for part in model.layers].count(SpatialTransformer) == 1
    image = shipped.images.astype(np.float32) / 255
    scores = model.predict(image, batch_size=200, verbose=0)
    assert scores.shape == (200, 10)
    assert np.abs(scores.sum(axis=1) - 1).max() < 1e-5
    assert (scores.argmax(axis=1) == shipped.labels).mean() >= 0.97
    # It was trained to look: the transformer does something, and not the same for every digit.
    layer = model.get_layer("spatial_transformer")
    assert isinstance(layer, stnkit.models.SpatialTransformer)
    theta = layer.theta_head(layer.localization_net(image)).numpy().reshape(200, 6)
    assert theta.std(axis=0).max() > 0.1


def test_the_folder_holds_no_more_than_is_listed():
    folder = model_file("digits").parent
    names = {path.name for path in folder.iterdir() if path.suffix not in (".py", "")}
    kinds = (".keras", ".provenance.json", ".samples.npz")
    assert names == {f"{name}{kind}" for name in NAMES for kind in kinds}


@pytest.mark.parametrize("function", [model_file, provenance, samples])
@pytest.mark.parametrize("unknown", ["letters", "", "../digits", "digits.keras"])
def test_unknown_name(function, unknown):
    with pytest.raises(ValueError, match="no shipped model is called") as caught:
        function(unknown)
    assert repr(unknown) in str(caught.value)
    assert "digits" in str(caught.value)


def test_readable_without_tensorflow():
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_TENSORFLOW],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert [json.loads(line) for line in finished.stdout.splitlines()] == [
        [name, f"{name}.keras", f"{name}.keras", 200] for name in NAMES
    ]
