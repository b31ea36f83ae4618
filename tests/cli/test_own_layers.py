"""Models with layers of the user's own: unknown, with code inside, or with ops nobody exports."""

from __future__ import annotations

import importlib
import json
import shutil
import sys

import keras
import pytest

from stnkit.models import SpatialTransformer, localization_cnn
from stnkit.runtime import open_bundle

LAYERS = """
import keras
import tensorflow as tf


class Doubler(keras.layers.Layer):
    def call(self, inputs):
        return inputs * 2.0


class Shear(keras.layers.Layer):
    def call(self, images):
        count = tf.shape(images)[0]
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=images,
            transforms=tf.tile([[1.0, 0.2, 0, 0, 1, 0, 0, 0]], [count, 1]),
            output_shape=[8, 8],
            fill_value=0.0,
            interpolation="BILINEAR",
        )


class Inverse(keras.layers.Layer):
    def call(self, images):
        return tf.linalg.inv(images[..., 0] + tf.eye(8) * 9)[..., tf.newaxis]
"""


def a_model(*layers):
    first = keras.Input((8, 8, 1), name="photo")
    rest = [keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax", name="scores")]
    return keras.Sequential([first, *layers, *rest])


@pytest.fixture
def forgotten(scratch, monkeypatch):
    """Return `forgotten(class_name, file)`: save a model whose layer's module is then unknown."""

    def save(class_name, file, functional=False):
        (scratch / "my_layers.py").write_text(LAYERS)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(scratch)
            importlib.invalidate_caches()
            module = importlib.import_module("my_layers")
            transformer = SpatialTransformer(localization_cnn((2,), units=4), name="stn")
            layer = getattr(module, class_name)(name="culprit")
            model = a_model(transformer, layer)
            model = keras.Model(model.inputs, model.outputs) if functional else model
            model.save(file)
        del sys.modules["my_layers"]
        shutil.rmtree(scratch / "__pycache__", ignore_errors=True)

    yield save
    sys.modules.pop("my_layers", None)


@pytest.fixture(autouse=True)
def no_bytecode(monkeypatch):
    """Keep Python from writing __pycache__ beside the user's module, which is no leftover."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("functional", [False, True])
@pytest.mark.parametrize("file", ["own.keras", "own.h5"])
def test_an_unknown_layer_is_named_with_what_to_do(file, functional, forgotten, refused):
    forgotten("Doubler", file, functional)
    line = refused(
        *["convert", file, "-o", "x.bundle"],
        says=[file, "'culprit'", "Doubler", "--custom-objects", ":Doubler"],
    )
    if file.endswith(".keras"):
        assert "--custom-objects my_layers:Doubler" in line


def test_a_layer_from_the_working_directory_in_a_process(forgotten, process, scratch):
    forgotten("Doubler", "own.keras")
    arguments = ["convert", "own.keras", "-o", "x.bundle", "--to", "tflite", "--json"]
    result = process(*arguments, "--custom-objects", "my_layers:Doubler")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["transformers"] == ["stn"]
    # Neither TensorFlow nor LiteRT may add a word to the progress.
    assert result.stderr.splitlines() == [
        "starting TensorFlow",
        "loading own.keras",
        "freezing the model",
        "running the model on the probes",
        "exporting to TFLite",
        "comparing model.fp32.tflite with the model",
        "publishing the bundle",
    ]
    assert open_bundle("x.bundle").manifest.source.file == "own.keras"


def test_inspect_takes_own_layers_too(forgotten, stnkit, refused):
    forgotten("Doubler", "own.keras")
    refused("inspect", "own.keras", says=["'culprit'", "--custom-objects my_layers:Doubler"])
    arguments = ["inspect", "own.keras", "--custom-objects", "my_layers:Doubler", "--json"]
    assert json.loads(stnkit(*arguments).stdout)["transformers"][0]["name"] == "stn"


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("file", ["code.keras", "code.h5"])
def test_code_in_a_file_runs_only_when_trusted(file, scratch, refused, stnkit):
    double = keras.layers.Lambda(lambda inputs: inputs * 2.0, name="sneaky")
    a_model(double).save(file)
    for command in (["convert", file, "-o", "x.bundle"], ["inspect", file]):
        refused(*command, says=[file, "'sneaky'", "Lambda", "--trusted"])
    stnkit("convert", file, "-o", "x.bundle", "--to", "tflite", "--trusted")
    assert open_bundle("x.bundle").manifest.source.file == file


def test_code_hidden_in_a_layer_of_another_kind_is_refused(scratch, refused):
    inner = keras.Sequential([keras.layers.Lambda(lambda x: x + 1.0, name="deep")], name="inner")
    a_model(keras.layers.TimeDistributed(inner)).save("code.keras")
    refused("convert", "code.keras", "-o", "x.bundle", says=["'deep'", "--trusted"])


@pytest.mark.parametrize("format", ["tflite", "onnx"])
@pytest.mark.parametrize(
    ("class_name", "op"), [("Shear", "ImageProjectiveTransformV3"), ("Inverse", "MatrixInverse")]
)
def test_an_op_that_cannot_be_exported_is_named_with_its_layer(
    class_name, op, format, forgotten, refused
):
    forgotten(class_name, "own.keras")
    custom = ["--custom-objects", f"my_layers:{class_name}"]
    arguments = ["convert", "own.keras", "-o", "x.bundle", "--to", format, *custom]
    refused(*arguments, says=[op, "'culprit'"])
