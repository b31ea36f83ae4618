"""Training of the digits network: what it writes, and what an interruption costs."""

from __future__ import annotations

import hashlib
import json
import sys
from importlib.metadata import version

import keras
import numpy as np
import pytest

from stnkit.models.digits.mnist import Mnist
from stnkit.models.digits.training import distorted_test_digits, train_digits
from stnkit.models.pretrained import samples
from stnkit.models.training.recipe import Recipe

RECIPE = Recipe(epochs=3, seed=5, batch_size=50)
# Measured 0. Threads may add up the gradients of a convolution in an order of their own elsewhere;
# a run that sees other digits, or drops other features, is off by 1e-3 and more.
RESUMED_ATOL = 1e-5


@pytest.fixture(scope="module")
def data():
    """Return 120 training and 60 test digits, cut from the sample images that are shipped."""
    shipped = samples("digits")
    images, labels = shipped.images[..., 0], shipped.labels
    sums = {"train": hashlib.sha256(images.tobytes()).hexdigest()}
    return Mnist(images[:120], labels[:120], images[120:180], labels[120:180], "idx", sums)


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    """Return the result of a whole run, with every call of its progress function."""
    calls = []
    output = tmp_path_factory.mktemp("whole") / "digits.keras"
    result = train_digits(
        data,
        output,
        RECIPE,
        command="stnkit train digits --of the tests",
        sample_count=20,
        progress=lambda *call: calls.append(call),
    )
    return result, calls


def interrupted_at(epoch, step):
    def progress(now_epoch, now_step, figures):
        if (now_epoch, now_step) == (epoch, step):
            raise KeyboardInterrupt

    return progress


def weights_of(path):
    return keras.saving.load_model(path).get_weights()


def assert_same_weights(received, expected, assert_close):
    assert len(received) == len(expected) > 10
    for got, want in zip(received, expected, strict=True):
        if np.issubdtype(want.dtype, np.floating):
            assert_close(got, want, RESUMED_ATOL)
        else:
            assert np.array_equal(got, want)


def test_files_and_result(uninterrupted):
    result, _ = uninterrupted
    folder = result.model.parent
    assert sorted(path.name for path in folder.iterdir()) == [
        "digits.keras",
        "digits.provenance.json",
        "digits.samples.npz",
    ]
    assert result.provenance == folder / "digits.provenance.json"
    assert (result.test_count, result.resumed_from_epoch) == (60, 0)
    assert 0 < result.seconds < 600


def test_every_field_of_the_provenance(uninterrupted, data):
    result, _ = uninterrupted
    record = json.loads(result.provenance.read_text("utf-8"))
    seconds = record.pop("training_seconds_of_last_process")
    assert seconds == pytest.approx(result.seconds, abs=0.06)
    machine, versions = record.pop("machine"), record.pop("versions")
    assert machine["cores"] >= 1
    assert machine["architecture"]
    assert versions.pop("python") == ".".join(map(str, sys.version_info[:3]))
    assert versions == {name: version(name) for name in ("stnkit", "tensorflow", "keras", "numpy")}
    assert record == {
        "model": "digits.keras",
        "model_sha256": hashlib.sha256(result.model.read_bytes()).hexdigest(),
        "parameters": keras.saving.load_model(result.model).count_params(),
        "command": "stnkit train digits --of the tests",
        "recipe": {
            "epochs": 3,
            "seed": 5,
            "batch_size": 50,
            "network": "digits",
            "distortion": {"rotation_degrees": 45.0, "scale": [0.7, 1.2], "shift_px": 3.0},
        },
        "data": {"source": "idx", "sha256": data.checksums, "train_count": 120},
        "accuracy": {
            "distorted_test_digits": result.accuracy,
            "count": 60,
            "distortion_seed": 2015,
        },
        "resumed_from_epoch": 0,
    }


def test_accuracy_and_samples_are_those_of_the_saved_model(uninterrupted, data):
    result, _ = uninterrupted
    images, labels = distorted_test_digits(data)
    model = keras.saving.load_model(result.model)
    assert getattr(model, "optimizer", None) is None  # its slots would triple the file
    predicted = model.predict(images, verbose=0).argmax(axis=1)
    assert result.accuracy == pytest.approx((predicted == labels).mean())
    with np.load(result.provenance.with_name("digits.samples.npz")) as stored:
        assert stored["images"].dtype == np.uint8
        assert np.abs(stored["images"] / 255 - images[:20]).max() <= 0.5 / 255 + 1e-6
        assert np.array_equal(stored["labels"], labels[:20])
        assert stored["class_names"].tolist() == list("0123456789")


def test_distorted_test_digits_are_the_same_each_time(data):
    first, labels = distorted_test_digits(data)
    again, _ = distorted_test_digits(data)
    assert first.shape == (60, 28, 28, 1)
    assert np.array_equal(first, again)
    assert np.array_equal(labels, data.test_labels)
    assert np.abs(first[..., 0] - data.test_images / 255).mean() > 0.05


def test_progress_is_called_after_every_step(uninterrupted):
    _, calls = uninterrupted
    steps = [(epoch, step) for epoch, step, _ in calls]
    assert steps == [(epoch, step) for epoch in range(3) for step in (1, 2, 3)]
    assert all({"loss", "accuracy"} <= set(figures) for _, _, figures in calls)


def test_interrupted_and_resumed_gives_the_same_model(uninterrupted, data, tmp_path, assert_close):
    output = tmp_path / "digits.keras"
    with pytest.raises(KeyboardInterrupt):
        train_digits(data, output, RECIPE, command="", progress=interrupted_at(1, 2))
    assert [path.name for path in tmp_path.iterdir()] == ["digits.keras.checkpoint"]
    result = train_digits(data, output, RECIPE, command="")
    assert result.resumed_from_epoch == 1
    assert json.loads(result.provenance.read_text("utf-8"))["resumed_from_epoch"] == 1
    assert not (tmp_path / "digits.keras.checkpoint").exists()
    assert_same_weights(weights_of(output), weights_of(uninterrupted[0].model), assert_close)
