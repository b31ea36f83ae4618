"""Training of the digits network: what it writes, and what an interruption costs."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version

import keras
import numpy as np
import pytest

from stnkit.models.digits.mnist import Mnist
from stnkit.models.digits.training import (
    Recipe,
    _Checkpoint,
    distorted_test_digits,
    train_digits,
)
from stnkit.models.pretrained import samples

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


@pytest.fixture
def stored(data, tmp_path):
    """Return a checkpoint after epoch 2, and its model."""
    model = marked_model(2)
    checkpoint = _Checkpoint(tmp_path / "digits.keras", RECIPE, data)
    checkpoint.save(model, 2)
    return checkpoint


def marked_model(number):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.set_weights([np.full((2, 1), number, np.float32), np.zeros(1, np.float32)])
    return model


def test_checkpoint_is_loaded_where_recipe_and_data_are_the_same(stored, data, tmp_path):
    found = _Checkpoint(tmp_path / "digits.keras", RECIPE, data).load()
    assert found is not None
    model, epochs_done = found
    assert epochs_done == 2
    assert model.get_weights()[0].tolist() == [[2], [2]]


@pytest.mark.parametrize("change", [{"seed": 6}, {"epochs": 4}, {"batch_size": 51}], ids=str)
def test_checkpoint_of_another_recipe_is_not_used(stored, data, tmp_path, change):
    other = _Checkpoint(tmp_path / "digits.keras", replace(RECIPE, **change), data)
    assert other.load() is None


def test_checkpoint_of_other_data_is_not_used(stored, data, tmp_path):
    other = replace(data, checksums={"train": "0" * 64})
    assert _Checkpoint(tmp_path / "digits.keras", RECIPE, other).load() is None


def test_checkpoint_of_another_output_is_not_used(stored, data, tmp_path):
    assert _Checkpoint(tmp_path / "other.keras", RECIPE, data).load() is None


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"recipe": 1}'], ids=repr)
def test_damaged_state_is_no_state(stored, content):
    (stored.folder / "state.json").write_text(content, "utf-8")
    assert stored.load() is None


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_damaged_model_is_no_state(stored, keep):
    path = stored.folder / "epoch-2.keras"
    content = path.read_bytes()
    path.write_bytes(content[:keep])
    assert stored.load() is None


def test_saving_keeps_the_latest_epoch_alone(stored):
    stored.save(marked_model(3), 3)
    names = sorted(path.name for path in stored.folder.iterdir())
    assert names == ["epoch-3.keras", "state.json"]
    assert stored.load()[1] == 3
    stored.remove()
    assert not stored.folder.exists()
    stored.remove()


# Dies within the saving of epoch 2, at a moment that is named or after some time. It forks for each
# moment, because importing Keras takes seconds; the model is a stand-in that writes ready bytes.
CHILD = """
import os, pathlib, signal, sys, time
import numpy as np
from stnkit.models.digits import training
from stnkit.models.digits.mnist import Mnist

none = np.zeros((1, 28, 28), np.uint8)
data = Mnist(none, none[:, 0, 0], none, none[:, 0, 0], "idx", {"a": "b"})

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

class Ready:
    variables = ()

    def __init__(self, path, pause_s=0.0, dies=False):
        self.content, self.pause_s, self.dies = path.read_bytes(), pause_s, dies

    def save(self, path):
        with path.open("wb", buffering=0) as stream:
            for start in range(0, len(self.content), 1000):
                stream.write(self.content[start : start + 1000])
                time.sleep(self.pause_s)
                if self.dies and start:
                    die()

def save_and_die(folder, moment):
    checkpoint = training._Checkpoint(folder / "digits.keras", training.Recipe(), data)
    checkpoint.save(Ready(root / "1.keras"), 1)
    second = Ready(root / "2.keras", dies=moment == "writing the model")
    if moment == "before the state":
        pathlib.Path.write_text = die
    elif moment == "before the rename":
        pathlib.Path.replace = die
    elif moment == "before the old one goes":
        pathlib.Path.unlink = die
    elif moment.endswith("s"):
        if os.fork() == 0:
            time.sleep(float(moment[:-1]))
            os.kill(os.getppid(), signal.SIGKILL)
            os._exit(0)
        for number in range(2, 10_000):
            checkpoint.save(Ready(root / f"{2 - number % 2}.keras", pause_s=0.002), number)
    checkpoint.save(second, 2)

root = pathlib.Path(sys.argv[1])
for moment in sys.argv[2:]:
    (root / moment).mkdir()
    child = os.fork()
    if child == 0:
        save_and_die(root / moment, moment)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, moment
"""
MOMENTS = {
    "writing the model": {1},
    "before the state": {1},
    "before the rename": {1},
    "before the old one goes": {2},
    **{f"{seconds}s": range(1, 10_000) for seconds in (0.003, 0.02, 0.05, 0.1, 0.2)},
}


def test_killed_while_saving_leaves_a_state_that_loads(tmp_path):
    for number in (1, 2):
        marked_model(number).save(tmp_path / f"{number}.keras")
    finished = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), *MOMENTS],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    none = np.zeros((1, 28, 28), np.uint8)
    data = Mnist(none, none[:, 0, 0], none, none[:, 0, 0], "idx", {"a": "b"})
    for moment, possible in MOMENTS.items():
        checkpoint = _Checkpoint(tmp_path / moment / "digits.keras", Recipe(), data)
        found = checkpoint.load()
        assert found is not None, moment
        model, epochs_done = found
        assert epochs_done in possible, moment
        assert model.get_weights()[0].tolist() == [[2 - epochs_done % 2]] * 2, moment
        # What was left lying is cleared up by the next epoch.
        checkpoint.save(marked_model(3), 10_000)
        names = sorted(path.name for path in checkpoint.folder.iterdir())
        assert names == ["epoch-10000.keras", "state.json"], moment
