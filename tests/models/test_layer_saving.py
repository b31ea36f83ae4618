"""`SpatialTransformer` saved, loaded, cloned and exported."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from stnkit.models import SpatialTransformer, localization_cnn

SHAPE = (9, 7, 3)


@pytest.fixture
def image():
    return np.random.default_rng(5).uniform(0, 1, (2, *SHAPE)).astype(np.float32)


def sequential():
    return keras.Sequential(
        [
            keras.Input(SHAPE, name="image"),
            SpatialTransformer(
                localization_cnn((2, 3), 4),
                output_size=(6, 5),
                interpolation="bilinear",
                padding_mode="reflection",
                align_corners=True,
                name="look",
            ),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax", name="scores"),
        ]
    )


def functional():
    """Two transformers, one of them in a submodel, and theta from outside for a third."""
    image, theta = keras.Input(SHAPE, name="image"), keras.Input((6,), name="theta")
    inner_image = keras.Input(SHAPE)
    look = SpatialTransformer(localization_cnn((2,), 3), padding_mode="border", name="look")
    inner = keras.Model(inner_image, look(inner_image), name="inner")
    net = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(6)])
    free = SpatialTransformer(net, theta_head=False, name="free")
    given = SpatialTransformer(interpolation="nearest", name="given")
    return keras.Model([image, theta], [free(inner(image)), given([image, theta])])


def disturb(model):
    """Give every variable a random part, so that nothing is at its initial value."""
    rng = np.random.default_rng(6)
    for variable in model.variables:
        if "float" in variable.dtype:
            variable.assign_add(rng.uniform(-0.2, 0.2, variable.shape))


def feed(model, image):
    if len(model.inputs) == 1:
        return image
    theta = np.random.default_rng(7).uniform(-1, 1, (len(image), 6)).astype(np.float32)
    return [image, theta]


def outputs(model, image):
    return [part.numpy() for part in tf.nest.flatten(model(feed(model, image)))]


def assert_same(received, expected, assert_close, atol):
    assert len(received) == len(expected) > 0
    for got, want in zip(received, expected, strict=True):
        assert_close(got, want, atol)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("make", [sequential, functional])
def test_saved_and_loaded(image, make, suffix, tmp_path, assert_close, tolerances):
    model = make()
    initial = outputs(model, image)
    disturb(model)
    expected = outputs(model, image)
    assert max(np.abs(a - b).max() for a, b in zip(initial, expected, strict=True)) > 0.02
    path = tmp_path / f"model{suffix}"
    model.save(path)
    loaded = keras.saving.load_model(path)
    assert_same(outputs(loaded, image), expected, assert_close, tolerances.exact)
    assert [w.shape for w in loaded.weights] == [w.shape for w in model.weights]


def test_weights_alone(image, tmp_path, assert_close, tolerances):
    model, other = functional(), functional()
    disturb(model)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    assert_same(outputs(other, image), outputs(model, image), assert_close, tolerances.exact)


@pytest.mark.parametrize("make", [sequential, functional])
def test_clone_has_its_own_weights(image, make, assert_close, tolerances):
    model = make()
    disturb(model)
    clone = keras.models.clone_model(model)
    assert not {id(w) for w in clone.weights} & {id(w) for w in model.weights}
    clone.set_weights(model.get_weights())
    expected = outputs(model, image)
    assert_same(outputs(clone, image), expected, assert_close, tolerances.exact)
    disturb(clone)
    assert_same(outputs(model, image), expected, assert_close, tolerances.exact)


def test_config_round_trip():
    layer = sequential().get_layer("look")
    config = layer.get_config()
    again = SpatialTransformer.from_config(config)
    assert again.get_config() == config
    assert (again.name, again.output_size) == ("look", (6, 5))
    assert (again.padding_mode, again.interpolation) == ("reflection", "bilinear")
    assert again.align_corners is True
    assert again.theta_head is not None
    assert again.localization_net is not layer.localization_net
    assert [type(part) for part in again.localization_net.layers] == [
        type(part) for part in layer.localization_net.layers
    ]


def test_config_round_trip_of_a_layer_without_net():
    layer = SpatialTransformer(padding_mode="border", trainable=False, dtype="mixed_float16")
    again = SpatialTransformer.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.localization_net is None
    assert again.theta_head is None
    assert again.output_size is None
    assert again.trainable is False
    assert again.compute_dtype == "float16"


def test_theta_head_false_survives_the_config():
    layer = SpatialTransformer(keras.layers.Flatten(), theta_head=False)
    assert SpatialTransformer.from_config(layer.get_config()).theta_head is None


def test_config_is_read_and_not_emptied():
    config = SpatialTransformer(keras.layers.Flatten()).get_config()
    before = dict(config)
    SpatialTransformer.from_config(config)
    assert config == before


def test_exported_saved_model_keeps_the_marks(image, tmp_path, assert_close, tolerances):
    model = functional()
    disturb(model)
    model.export(tmp_path / "exported", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "exported")
    signature = loaded.signatures["serving_default"]
    graph = signature.graph.as_graph_def()
    nodes = [*graph.node, *(node for part in graph.library.function for node in part.node_def)]
    marks = {
        tuple(re.sub(r"_\d+$", "", part) for part in node.name.split("/")[-2:])
        for node in nodes
        if node.op == "Identity" and node.name.split("/")[-1].startswith("stnkit_")
    }
    kinds = ("stnkit_theta", "stnkit_warped")
    assert marks == {(layer, kind) for layer in ("free", "given", "look") for kind in kinds}
    theta = feed(model, image)[1]
    received = loaded.serve([image, theta])
    assert_same(
        [part.numpy() for part in received], outputs(model, image), assert_close, tolerances.sample
    )
