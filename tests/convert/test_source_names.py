"""How names of layers, tensors and files are carried, and what a failing model is quoted with."""

from __future__ import annotations

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from stnkit.convert import load_source, source_from_keras
from stnkit.convert.frozen import freeze
from stnkit.convert.model_path import file_kind, find_model
from stnkit.convert.source.foreign_error import cause
from stnkit.convert.source.tensor_names import unique
from stnkit.models import SpatialTransformer, localization_cnn
from stnkit.runtime.errors import InputError
from stnkit.runtime.json_reader import JsonNode
from stnkit.runtime.manifest import Source

L = keras.layers


# What the model itself raises.


def test_model_that_cannot_be_called():
    class Broken(keras.Model):
        def call(self, x):
            return {"a": x}["b"]

    model = Broken()
    model.built, model._build_shapes_dict = True, {"input_shape": (None, 4)}
    with pytest.raises(InputError, match=r"cannot be called on x \[batch, 4\] \(KeyError: b\)"):
        source_from_keras(model)


def test_methods_of_the_model_that_fail():
    class Broken(keras.Model):
        def get_build_config(self):
            raise AttributeError("no such shape")

    model = Broken()
    model.built = True
    with pytest.raises(InputError, match=r"cannot be found \(AttributeError: no such shape\)"):
        source_from_keras(model)


def test_run_that_fails_is_an_input_error():
    @tf.function
    def flatten_two(x):
        return tf.reshape(x, [2, 4, 2])

    class Two(L.Layer):
        def call(self, x):
            return flatten_two(x)

        def compute_output_shape(self, shape):
            return (None, 4, 2)

    vector = keras.Input((8,), name="v")
    source = source_from_keras(keras.Model(vector, Two()(vector)))
    with pytest.raises(InputError) as caught:
        source.run({"v": np.ones((3, 8), "f")})
    message = str(caught.value)
    assert message.startswith("the model failed on v [3, 8] (Input to reshape is a tensor with 24")
    assert message.endswith("fix that: --batch N")
    assert "node" not in message
    assert "\n" not in message
    with pytest.raises(InputError, match="KeyError: 'v'"):
        source.run({"w": np.ones((3, 8), "f")})


def test_causes():
    keras_text = (
        "Exception encountered when calling Dense.call().\n\n\x1b[1mbad shape (2, 3)\x1b[0m\n\n"
        "Arguments received by Dense.call():\n  • inputs=tf.Tensor(shape=(2, 3))"
    )
    graph_text = (
        "Graph execution error:\n\nDetected at node Reshape defined at (most recent call last):\n"
        "<stack traces unavailable>\nToo many values\n\t [[{{node Reshape}}]] [Op:__inference_9]"
    )
    traced_text = 'in user code:\n\n    File "a.py", line 2, in call\n\n    TypeError: no b\n'
    assert cause(ValueError(keras_text)) == "bad shape (2, 3)"
    assert cause(tf.errors.InvalidArgumentError(None, None, graph_text)) == "Too many values"
    assert cause(TypeError(traced_text)) == "TypeError: no b"
    assert cause(KeyError("b")) == "KeyError: 'b'"
    assert cause(KeyError(keras_text)) == "KeyError: bad shape (2, 3)"
    assert cause(RuntimeError()) == "RuntimeError"


# Names of layers and files.


def test_names_get_numbers_that_no_other_has():
    assert unique(["y", "y", "y_1", "y"]) == ["y", "y_2", "y_1", "y_3"]


def test_names_that_tensorflow_graphs_refuse(tmp_path):
    image = keras.Input((12, 12, 1), name="my image: é|ü")
    inner = keras.Sequential([L.Dense(4, name="in né r")], name="_stage")
    warped = SpatialTransformer(localization_cnn((2,), units=4), name="trans former é")(image)
    model = keras.Model(image, L.Dense(3, name="out put (1)*[x]")(inner(L.Flatten()(warped))))
    model.save(tmp_path / "m.keras")
    source = load_source(tmp_path / "m.keras")
    photo = np.random.default_rng(4).random((2, 12, 12, 1)).astype("float32")
    found = source.run({"my image: é|ü": photo})["out put (1)*[x]"]
    np.testing.assert_allclose(found, model(photo), atol=1e-6)
    graph = freeze(source, None)
    assert [tap.spec.name for tap in graph.taps] == [
        "trans_former__/theta",
        "trans_former__/warped",
    ]
    # The layers have their own names back, also after a failure.
    assert {layer.name for layer in source.owner.layers} >= {"trans former é", "_stage"}
    with pytest.raises(InputError):
        source.run({source.inputs[0].name: np.ones((1, 5, 5, 1), "f")})
    assert source.owner.layers[-1].name == "out put (1)*[x]"


def test_layers_in_lists_and_dicts_are_known():
    class Blocks(L.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.blocks = [L.Dense(4, name="first_one"), {"x": L.Dense(3, name="second_one")}]

        def call(self, x):
            return self.blocks[1]["x"](self.blocks[0](x))

    vector = keras.Input((4,), name="v")
    source = source_from_keras(keras.Model(vector, Blocks(name="blocks")(vector)))
    assert source.layers >= {"blocks", "first_one", "second_one"}
    assert source.layer_types >= {"Blocks", "Dense", "InputLayer"}


@pytest.mark.parametrize("name", ["bad\nname", "x" * 513])
def test_tensor_names_that_no_bundle_can_hold(name):
    vector = keras.Input((4,), name=name)
    with pytest.raises(InputError, match="expected 1 to 512 characters"):
        source_from_keras(keras.Model(vector, L.Dense(2)(vector)))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Return a folder with one model in both file formats."""
    folder = tmp_path_factory.mktemp("tiny")
    vector = keras.Input((4,), name="v")
    model = keras.Model(vector, L.Dense(3, name="y")(vector))
    model.save(folder / "m.keras")
    model.save(folder / "m.h5")
    return folder


def readable(origin):
    """Return the origin as the manifest's reader reads it."""
    return Source.from_node(JsonNode(origin.to_json(), name="manifest.json"))


@pytest.mark.parametrize(
    ("file", "clean"),
    [
        ("new\nline.keras", "new_line.keras"),
        ("back\\slash.keras", "back_slash.keras"),
        ("latin-\udce9.keras", "latin-_.keras"),
        ("é ü.keras", "é ü.keras"),
    ],
)
def test_file_names_that_a_manifest_refuses(file, clean, tiny, tmp_path):
    shutil.copyfile(tiny / "m.keras", tmp_path / file)
    source = load_source(tmp_path / file)
    assert readable(source.origin).file == clean
    assert source.name == clean.removesuffix(".keras")


@pytest.mark.parametrize(
    ("name", "clean"), [("a/b", "a_b"), ("..", "_"), ("n" * 300, "n" * 255), ("\x00", "_")]
)
def test_given_names_that_a_manifest_refuses(name, clean, tiny):
    model = keras.saving.load_model(tiny / "m.keras")
    source = source_from_keras(model, name=name)
    assert source.name == name
    assert readable(source.origin).file == clean


@pytest.mark.parametrize(
    ("content", "name", "kind"),
    [
        ("m.keras", "m.h5", "keras"),
        ("m.h5", "m.keras", "h5"),
        ("m.keras", "M.KERAS", "keras"),
        ("m.h5", "m.HDF5", "h5"),
    ],
)
def test_file_is_read_as_what_it_is(content, name, kind, tiny, tmp_path):
    shutil.copyfile(tiny / content, tmp_path / name)
    assert file_kind(tmp_path / name) == kind
    source = load_source(tmp_path / name)
    assert (source.origin.kind, source.origin.file) == (kind, name)
    inputs, wanted = {"v": np.ones((2, 4), "f")}, load_source(tiny / content)
    assert wanted.origin.sha256 == source.origin.sha256
    np.testing.assert_array_equal(source.run(inputs)["y"], wanted.run(inputs)["y"])


def test_file_that_is_neither(tmp_path):
    for name, words in (("m.keras", "not a readable .keras"), ("m.H5", "not a readable HDF5")):
        (tmp_path / name).write_bytes(b"PK or so")
        with pytest.raises(InputError, match=words):
            load_source(tmp_path / name)
    (tmp_path / "m.onnx").write_bytes((tmp_path / "m.keras").read_bytes())
    with pytest.raises(InputError, match="not a Keras model by its name"):
        find_model(tmp_path / "m.onnx")
