"""Models as users save them: nested signatures, fixed batches, and what no bundle can hold."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from stnkit.convert import load_source, source_from_keras
from stnkit.convert.frozen import freeze
from stnkit.runtime.errors import ExportError, InputError

L = keras.layers


def shapes(specs):
    return {spec.name: spec.shape for spec in specs}


def batch_of(source, batch=2):
    """Return random inputs; the batch is that of the model where it has one, open sides are 5."""
    rng = np.random.default_rng(4)
    sizes = {
        spec.name: [
            size if isinstance(size, int) else (5 if axis else batch)
            for axis, size in enumerate(spec.shape)
        ]
        for spec in source.inputs
    }
    return {spec.name: rng.random(sizes[spec.name]).astype(spec.dtype) for spec in source.inputs}


def saved(model, folder, name="m.keras"):
    model.save(folder / name)
    return load_source(folder / name)


# Nested inputs and outputs.


def test_nested_outputs_have_paths(tmp_path):
    vector = keras.Input((4,), name="v")
    b, c, d, e = (L.Dense(units)(vector) for units in (2, 3, 5, 6))
    model = keras.Model(vector, {"a": {"b": b, "c": c}, "d": [d], "e": e})
    source = saved(model, tmp_path)
    wanted = {"a/b": ("batch", 2), "a/c": ("batch", 3), "d/0": ("batch", 5), "e": ("batch", 6)}
    assert shapes(source.outputs) == wanted
    inputs = batch_of(source)
    found, expected = source.run(inputs), model(inputs["v"])
    np.testing.assert_allclose(found["a/c"], expected["a"]["c"], atol=1e-6)
    np.testing.assert_allclose(found["d/0"], expected["d"][0], atol=1e-6)


def test_nested_inputs_have_paths(tmp_path):
    image, j, k = (
        keras.Input((size,), name=name) for size, name in ((6, "im"), (4, "j"), (4, "k"))
    )
    total = L.Concatenate()([image, L.Rescaling(10.0)(j), L.Rescaling(100.0)(k)])
    source = saved(keras.Model({"v": [j, k], "im": image}, total), tmp_path)
    wanted = {"im": ("batch", 6), "v/0": ("batch", 4), "v/1": ("batch", 4)}
    assert shapes(source.inputs) == wanted
    inputs = batch_of(source)
    (found,) = source.run(inputs).values()
    expected = np.concatenate([inputs["im"], 10 * inputs["v/0"], 100 * inputs["v/1"]], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_sequential_that_ends_in_a_model_with_two_outputs(tmp_path):
    vector = keras.Input((4,))
    ends = [L.Dense(2, name="left")(vector), L.Dense(3, name="right")(vector)]
    model = keras.Sequential([keras.Input((4,), name="v"), keras.Model(vector, ends)])
    for source in (source_from_keras(model), saved(model, tmp_path)):
        assert shapes(source.outputs) == {"left": ("batch", 2), "right": ("batch", 3)}
        found = source.run(batch_of(source))
        assert {name: v.shape for name, v in found.items()} == {"left": (2, 2), "right": (2, 3)}


def test_sequential_that_ends_in_a_model_keeps_the_layers_name():
    inner = keras.Sequential([keras.Input((4,)), L.Dense(2)], name="head")
    source = source_from_keras(keras.Sequential([keras.Input((4,), name="v"), inner]))
    assert shapes(source.outputs) == {"head": ("batch", 2)}


@keras.saving.register_keras_serializable(package="sources")
class Structured(keras.Model):
    """Takes a dict with a list in it; gives a tuple with a None and a dict in it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.other = L.Dense(3), L.Dense(2)

    def call(self, parts, training=None):
        first = self.dense(parts["a"])
        return first, None, {"deep": self.other(parts["b"][1]) + parts["b"][0]}


def test_subclassed_with_structures(tmp_path):
    model = Structured()
    model({"a": np.ones((1, 4), "f"), "b": [np.ones((1, 2), "f"), np.ones((1, 5), "f")]})
    source = saved(model, tmp_path)
    assert shapes(source.inputs) == {"a": ("batch", 4), "b/0": ("batch", 2), "b/1": ("batch", 5)}
    assert shapes(source.outputs) == {"output_0": ("batch", 3), "output_2/deep": ("batch", 2)}
    inputs = batch_of(source)
    first, _, last = model({"a": inputs["a"], "b": [inputs["b/0"], inputs["b/1"]]})
    found = source.run(inputs)
    np.testing.assert_allclose(found["output_0"], first, atol=1e-6)
    np.testing.assert_allclose(found["output_2/deep"], last["deep"], atol=1e-6)


@keras.saving.register_keras_serializable(package="sources")
class TwoArguments(keras.Model):
    """Keras keeps the shape of the first argument alone."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = L.Dense(3), L.Dense(3)

    def call(self, a, b):
        return self.first(a) - self.second(b)


def test_argument_whose_shape_was_not_kept():
    model = TwoArguments()
    model(np.ones((2, 4), "f"), np.ones((2, 5), "f"))
    with pytest.raises(
        InputError, match=r"takes \['a', 'b'\], .* shape of a alone: .*export.*input_signature"
    ):
        source_from_keras(model)


@keras.saving.register_keras_serializable(package="sources")
class TwoBuilt(TwoArguments):
    """Says in `build` what it takes, in another order than `call`."""

    def build(self, b_shape, a_shape):
        self.first.build(a_shape)
        self.second.build(b_shape)


def test_arguments_are_bound_by_their_names(tmp_path):
    model = TwoBuilt()
    model(np.ones((2, 4), "f"), np.ones((2, 5), "f"))
    source = saved(model, tmp_path)
    assert shapes(source.inputs) == {"a": ("batch", 4), "b": ("batch", 5)}
    inputs = batch_of(source)
    (found,) = source.run(inputs).values()
    np.testing.assert_allclose(found, model(inputs["a"], inputs["b"]), atol=1e-6)


@keras.saving.register_keras_serializable(package="sources")
class BuildsNothing(keras.Model):
    """Its `build` leaves the layers to the first call: Keras then loads none of their weights."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = L.Dense(3)

    def build(self, input_shape):
        self.built = True

    def call(self, x):
        return self.dense(x)


def test_weights_that_the_file_did_not_fill(tmp_path):
    model = BuildsNothing()
    model(np.ones((2, 4), "f"))
    (kept,) = source_from_keras(model).run({"x": np.ones((2, 4), "f")}).values()
    np.testing.assert_allclose(kept, model(np.ones((2, 4), "f")), atol=1e-6)
    with pytest.raises(InputError, match=r"kernel' only when it is called.*random"):
        saved(model, tmp_path)


@pytest.mark.parametrize("result", [None, (None, None), {}])
def test_no_output(result):
    class Silent(keras.Model):
        def call(self, x):
            return result

    model = Silent()
    model.build((None, 4))
    with pytest.raises(InputError, match="gives no output"):
        source_from_keras(model)


def test_output_that_is_no_dense_tensor():
    class Ragged(keras.Model):
        def call(self, x):
            return tf.RaggedTensor.from_tensor(x, lengths=tf.ones_like(x[:, 0], tf.int64))

    model = Ragged()
    model.built, model._build_shapes_dict = True, {"input_shape": (None, 4)}
    with pytest.raises(InputError, match=r"'output_0' is a RaggedTensor.*: expected a tensor"):
        source_from_keras(model)


# Open and fixed sizes.


def test_open_sizes_of_two_inputs_need_not_be_equal():
    image, words = keras.Input((None, None, 3), name="image"), keras.Input((None, 4), name="seq")
    ends = [L.GlobalMaxPooling2D()(image), L.GlobalMaxPooling1D()(words)]
    source = source_from_keras(keras.Model([image, words], L.Concatenate()(ends)))
    assert shapes(source.inputs) == {
        "image": ("batch", "image_dim_1", "image_dim_2", 3),
        "seq": ("batch", "seq_dim_1", 4),
    }
    sizes = {"image": np.ones((2, 7, 9, 3), "f"), "seq": np.ones((2, 4, 4), "f")}
    assert [value.shape for value in source.run(sizes).values()] == [(2, 7)]


def test_batch_that_the_input_fixes(tmp_path):
    image = keras.Input(batch_shape=(2, 4, 4, 3), name="image")
    model = keras.Model(image, [L.Flatten(name="flat")(image), L.ReLU(name="same")(image)])
    source = saved(model, tmp_path)
    assert shapes(source.inputs) == {"image": (2, 4, 4, 3)}
    assert shapes(source.outputs) == {"flat": (2, 48), "same": (2, 4, 4, 3)}


def test_batch_of_the_call_that_built_a_model_is_open(build):
    source = source_from_keras(build("subclassed"))
    assert shapes(source.inputs) == {"photo": ("batch", 20, 20, 1)}
    assert shapes(source.outputs) == {"output_0": ("batch", 4)}


def test_stateful_layer_is_known_by_what_it_does():
    words = keras.Input(batch_shape=(1, 8, 4), name="s")
    source = source_from_keras(keras.Model(words, L.LSTM(3, stateful=True, name="memory")(words)))
    assert shapes(source.inputs) == {"s": (1, 8, 4)}
    with pytest.raises(ExportError, match="'memory' changes a variable while it infers"):
        freeze(source, None)


# SavedModels.


def saved_model(folder, function, *specs, signature="serving_default"):
    module = tf.Module()
    module.weight = tf.Variable(tf.random.stateless_normal([48, 3], [1, 2]))
    named = tf.function(lambda *tensors: function(module, *tensors), input_signature=specs)
    signatures = {signature: named} if isinstance(signature, str) else signature(named)
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return folder


def scores(module, image):
    return {"scores": tf.reshape(image, [1, 48]) @ module.weight}


def any_scores(module, image):
    return {"scores": tf.reshape(image, [-1, 48]) @ module.weight}


ONE = tf.TensorSpec([1, 4, 4, 3], name="image")
ANY = tf.TensorSpec([None, 4, 4, 3], name="image")


def test_saved_model_with_a_fixed_batch(tmp_path):
    source = load_source(saved_model(tmp_path / "m", scores, ONE))
    assert shapes(source.inputs) == {"image": (1, 4, 4, 3)}
    assert shapes(source.outputs) == {"scores": (1, 3)}
    assert source.run(batch_of(source))["scores"].shape == (1, 3)


def test_only_signature_has_another_name(tmp_path):
    source = load_source(saved_model(tmp_path / "m", any_scores, ANY, signature="classify"))
    assert source.run(batch_of(source, 3))["scores"].shape == (3, 3)


def test_two_signatures_and_neither_is_the_serving_one(tmp_path):
    folder = saved_model(tmp_path / "m", any_scores, ANY, signature=lambda f: {"p": f, "q": f})
    with pytest.raises(InputError, match=r"no signature 'serving_default', but \['p', 'q'\]"):
        load_source(folder)


@pytest.mark.parametrize(
    ("function", "specs", "message"),
    [
        (lambda m, a, t: {"y": a * t}, [ANY, tf.TensorSpec([], name="t")], "input 't' is a scalar"),
        (lambda m: {"y": tf.ones([2, 3])}, [], "takes no input"),
        (lambda m, a: {"y": tf.reduce_mean(a)}, [ANY], "output 'y' is a scalar"),
        (lambda m, a: {"y": a}, [tf.TensorSpec(None, name="a")], "'a' has no fixed rank"),
        (
            lambda m, a: {"y": tf.reshape(a, tf.cast(tf.reshape(a, [-1])[:2], tf.int32))},
            [ANY],
            "output 'y' has no fixed rank",
        ),
        (
            lambda m, a: {"y": tf.strings.length(a)},
            [tf.TensorSpec([None], tf.string, name="a")],
            "input 'a' has dtype string",
        ),
    ],
)
def test_saved_models_that_no_bundle_can_hold(function, specs, message, tmp_path):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        load_source(saved_model(tmp_path / "m", function, *specs))
    assert "\n" not in str(caught.value)
