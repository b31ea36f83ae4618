"""The state of an unfinished run: when it is used, and what being killed costs."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest

from stnkit.models.training.checkpoint import Checkpoint

IDENTITY = {"task": "toy", "recipe": {"seed": 5, "scale": (0.7, 1.2)}, "data": {"sha256": "1"}}


def compiled():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1), keras.layers.Dropout(0.5)])
    model.compile(optimizer="adam", loss=lambda target, output: (target - output) ** 2)
    return model


def marked_model(number):
    model = compiled()
    model.optimizer.build(model.trainable_variables)
    for variable in (*model.trainable_variables, *model.optimizer.variables):
        variable.assign(np.full(variable.shape, number, np.float32))
    return model


def mark_of(model):
    """Return the number that `marked_model` put into every variable."""
    marks = [*model.get_weights(), *(np.array(one) for one in model.optimizer.variables)]
    (mark,) = {float(value) for array in marks for value in array.ravel()}
    return mark


@pytest.fixture
def stored(tmp_path):
    """Return a checkpoint after epoch 2."""
    checkpoint = Checkpoint(tmp_path / "toy.keras", IDENTITY)
    checkpoint.save(marked_model(2), 2)
    return checkpoint


def test_state_is_loaded_where_everything_is_the_same(stored, tmp_path):
    found = Checkpoint(tmp_path / "toy.keras", IDENTITY).load(compiled)
    assert found is not None
    model, epochs_done = found
    assert epochs_done == 2
    assert mark_of(model) == 2


def test_dropout_goes_on_where_it_was(tmp_path):
    images, model = np.ones((8, 2), np.float32), marked_model(1)
    model(images, training=True)
    checkpoint = Checkpoint(tmp_path / "toy.keras", IDENTITY)
    checkpoint.save(model, 1)
    again, _ = checkpoint.load(compiled)
    dropped = [np.array(each(images, training=True)) for each in (model, again)]
    assert np.array_equal(*dropped)


@pytest.mark.parametrize(
    "change",
    [
        {"task": "other"},
        {"recipe": {"seed": 6, "scale": (0.7, 1.2)}},
        {"recipe": {"seed": 5, "scale": (0.7, 1.3)}},
        {"data": {"sha256": "2"}},
        {"more": 1},
    ],
    ids=str,
)
def test_state_of_another_run_is_not_used(stored, tmp_path, change):
    assert Checkpoint(tmp_path / "toy.keras", {**IDENTITY, **change}).load(compiled) is None


def test_state_of_another_output_is_not_used(stored, tmp_path):
    assert Checkpoint(tmp_path / "other.keras", IDENTITY).load(compiled) is None


def test_state_of_another_network_is_not_used(stored):
    def wider():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile(optimizer="adam", loss="mse")
        return model

    assert stored.load(wider) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"identity": 1}'], ids=repr)
def test_damaged_state_is_no_state(stored, content):
    (stored.folder / "state.json").write_text(content, "utf-8")
    assert stored.load(compiled) is None


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_truncated_weights_are_no_state(stored, keep):
    path = stored.folder / "epoch-2.weights.h5"
    path.write_bytes(path.read_bytes()[:keep])
    assert stored.load(compiled) is None


def test_changed_weights_are_no_state(stored):
    # HDF5 has no checksum of its own: such a file would load.
    path = stored.folder / "epoch-2.weights.h5"
    two, three = np.full(2, 2, "<f4").tobytes(), np.full(2, 3, "<f4").tobytes()
    content = path.read_bytes()
    assert two in content
    path.write_bytes(content.replace(two, three))
    assert stored.load(compiled) is None


def test_saving_keeps_the_latest_epoch_alone(stored):
    stored.save(marked_model(3), 3)
    names = sorted(path.name for path in stored.folder.iterdir())
    assert names == ["epoch-3.weights.h5", "state.json"]
    assert stored.load(compiled)[1] == 3
    stored.remove()
    assert not stored.folder.exists()
    stored.remove()


# Dies within the saving of epoch 2, at a moment that is named or after some time. It forks for each
# moment, because importing Keras takes seconds; the model is a stand-in that writes ready bytes.
CHILD = """
import os, pathlib, signal, sys, time
from stnkit.models.training.checkpoint import Checkpoint

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

class Ready:
    variables = ()

    def __init__(self, path, pause_s=0.0, dies=False):
        self.content, self.pause_s, self.dies = path.read_bytes(), pause_s, dies

    def save_weights(self, path):
        with path.open("wb", buffering=0) as stream:
            for start in range(0, len(self.content), 1000):
                stream.write(self.content[start : start + 1000])
                time.sleep(self.pause_s)
                if self.dies and start:
                    die()

def save_and_die(folder, moment):
    checkpoint = Checkpoint(folder / "toy.keras", {"task": "toy"})
    checkpoint.save(Ready(root / "1.weights.h5"), 1)
    second = Ready(root / "2.weights.h5", dies=moment == "writing the file")
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
            ready = Ready(root / f"{2 - number % 2}.weights.h5", pause_s=0.002)
            checkpoint.save(ready, number)
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
    "writing the file": {1},
    "before the state": {1},
    "before the rename": {1},
    "before the old one goes": {2},
    **{f"{seconds}s": range(1, 10_000) for seconds in (0.003, 0.02, 0.05, 0.1, 0.2)},
}


def without_dropout():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mse")
    return model


def test_killed_while_saving_leaves_a_state_that_loads(tmp_path):
    for number in (1, 2):
        model = without_dropout()
        model.set_weights([np.full((2, 1), number), np.full(1, number)])
        model.save_weights(tmp_path / f"{number}.weights.h5")
    finished = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), *MOMENTS],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    for moment, possible in MOMENTS.items():
        checkpoint = Checkpoint(tmp_path / moment / "toy.keras", {"task": "toy"})
        found = checkpoint.load(without_dropout)
        assert found is not None, moment
        model, epochs_done = found
        assert epochs_done in possible, moment
        assert model.get_weights()[0].tolist() == [[2 - epochs_done % 2]] * 2, moment
        # What was left lying is cleared up by the next epoch.
        checkpoint.save(model, 10_000)
        names = sorted(path.name for path in checkpoint.folder.iterdir())
        assert names == ["epoch-10000.weights.h5", "state.json"], moment
