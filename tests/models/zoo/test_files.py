"""Networks of the zoo as files."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from stnkit.models.zoo import entry
from stnkit.models.zoo.files import write_new


def test_what_is_said_of_a_file_is_so(tmp_path):
    path = tmp_path / "new.keras"
    record = write_new(entry("tutorial"), {"classes": 4}, path, seed=3)
    assert json.loads(json.dumps(record)) == {
        "model": str(path),
        "name": "tutorial",
        "parameters": 27_054,
        "trainable": 27_054,
        "inputs": {"image": [None, 28, 28, 1]},
        "outputs": {"probabilities": [None, 4]},
    }
    assert keras.saving.load_model(path).count_params() == 27_054
    assert list(tmp_path.iterdir()) == [path]


def test_frozen_parameters_and_several_outputs(tmp_path):
    record = write_new(
        entry("registration"), {"input_shape": (16, 16, 1)}, tmp_path / "pair.keras", seed=0
    )
    assert record["inputs"] == {"moving": [None, 16, 16, 1], "fixed": [None, 16, 16, 1]}
    assert record["outputs"] == {"warped": [None, 16, 16, 1], "flow": [None, 16, 16, 2]}
    assert 0 < record["trainable"] < record["parameters"]  # batch normalisation keeps statistics


def test_the_seed_decides_the_weights(tmp_path):
    weights = []
    for number, seed in enumerate((5, 5, 6)):
        path = tmp_path / f"{number}.keras"
        write_new(entry("paper-st-fcn"), {}, path, seed)
        weights.append(keras.saving.load_model(path).get_weights())
    assert all(np.array_equal(a, b) for a, b in zip(weights[0], weights[1], strict=True))
    assert any(np.any(a != b) for a, b in zip(weights[0], weights[2], strict=True))


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    path = tmp_path / "new.keras"
    path.write_text("former")
    original = keras.Model.save

    def full(self, target, *arguments, **options):
        original(self, target, *arguments, **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Sequential, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write_new(entry("tutorial"), {}, path, seed=0)
    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [
        ("new.keras", "former")
    ]
