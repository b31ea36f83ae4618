"""What holds for every network of the zoo."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module

import keras
import numpy as np
import pytest
import tensorflow as tf

from stnkit.models import SpatialTransformer, read_transformers, zoo
from stnkit.models.zoo import ENTRIES, backbone_network, entry, make

NAMES = [found.name for found in ENTRIES]
WITHOUT = ("paper-fcn", "paper-cnn")
STAGES = {
    "tutorial": ["spatial_transformer"],
    "digits": ["spatial_transformer"],
    "paper-fcn": [],
    "paper-cnn": [],
    "paper-st-fcn": ["spatial_transformer"],
    "paper-st-cnn": ["spatial_transformer"],
    "vgg16": ["spatial_transformer_1", "spatial_transformer_2"],
    "backbone": ["spatial_transformer"],
    "parallel": ["crop_1", "crop_2"],
    "segmentation": ["spatial_transformer", "paste_back"],
    "registration": ["affine_stage", "flow_stage"],
}
every_name = pytest.mark.parametrize("name", NAMES)


def outputs(model, inputs):
    found = model(inputs, training=False)
    return (
        {key: value.numpy() for key, value in found.items()}
        if isinstance(found, dict)
        else {"": found.numpy()}
    )


def parts(variables, word):
    return {variable.path: variable.numpy() for variable in variables if word in variable.path}


# ---- the list ----


@every_name
def test_number_of_parameters_and_the_interface(name):
    """Of the network with all defaults, as `stnkit models list` and the documents show it."""
    model = make(name)
    assert model.count_params() == entry(name).parameters
    names = [tensor.name for tensor in model.inputs]
    assert sorted(names) == (["fixed", "moving"] if name == "registration" else ["image"])
    assert all(tensor.dtype == "float32" for tensor in model.inputs)
    if name == "registration":
        assert set(model.output) == {"warped", "flow"}
    else:
        assert model.layers[-1].name == "probabilities"


@every_name
def test_options_are_arguments_of_the_function(name):
    found = entry(name)
    module, _, function = found.function.partition(":")
    signature = inspect.signature(getattr(import_module(module), function))
    known = set(signature.parameters)
    if "options" in known:  # vgg16 hands them on
        known |= set(inspect.signature(backbone_network).parameters)
    assert set(found.options) | set(found.fixed) <= known
    assert not set(found.options) & set(found.fixed)
    assert len(set(found.options)) == len(found.options)


def test_names_are_unique_and_summaries_one_line():
    assert len(set(NAMES)) == len(NAMES)
    for found in ENTRIES:
        assert found.summary
        assert "\n" not in found.summary
        assert len(found.summary) < 80


def test_listing_imports_no_tensorflow():
    code = (
        "import sys\nfrom stnkit.models.zoo import ENTRIES\nassert len(ENTRIES) > 5\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_are_where_the_package_says():
    assert zoo.__all__ == sorted(zoo.__all__)
    for name in zoo.__all__:
        assert getattr(zoo, name) is not None
    assert set(zoo.__all__) <= set(dir(zoo))
    with pytest.raises(AttributeError, match="no attribute 'resnet'"):
        zoo.resnet  # noqa: B018


def test_unknown_names_and_options():
    with pytest.raises(ValueError, match=r"no model is called 'vgg': there is tutorial, digits, "):
        make("vgg")
    with pytest.raises(ValueError, match="'paper-cnn' has no option 'transform': it takes input_s"):
        make("paper-cnn", transform="affine")
    with pytest.raises(ValueError, match="'digits' has no option 'classes': it takes none"):
        make("digits", classes=3)
    with pytest.raises(ValueError, match="'paper-fcn' has no option 'kind'"):
        make("paper-fcn", kind="cnn")


# ---- every network ----


@every_name
def test_saved_loaded_and_cloned(name, small, draw, disturb, tmp_path, assert_close, tolerances):
    model = small(name)
    inputs = draw(model)
    untouched = outputs(model, inputs)
    disturb(model, 0.02)
    expected = outputs(model, inputs)
    assert max(np.abs(expected[key] - untouched[key]).max() for key in expected) > 1e-4
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    clone = keras.models.clone_model(model)
    assert not {id(w) for w in clone.weights} & {id(w) for w in model.weights}
    clone.set_weights(model.get_weights())
    for again in (loaded, clone):
        received = outputs(again, inputs)
        assert received.keys() == expected.keys()
        for key in expected:
            assert_close(received[key], expected[key], tolerances.sample)
        assert again.count_params() == model.count_params()
        assert [v.shape for v in again.trainable_variables] == [
            v.shape for v in model.trainable_variables
        ]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "registration"])
def test_probabilities_add_up_to_one(name, small, draw, disturb):
    model = disturb(small(name), 0.02)
    received = outputs(model, draw(model, 3))[""]
    assert received.shape[0] == 3
    assert received.dtype == np.float32
    assert (received >= 0).all()
    assert np.abs(received.sum(-1) - 1).max() < 1e-5


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITHOUT])
def test_untrained_transformers_are_the_identity(name, small, draw, assert_close, tolerances):
    model = small(name)
    images = draw(model)
    seen = read_transformers(model, images)
    # Keras calls branches that do not depend on each other in an order of its own.
    assert sorted(found.layer for found in seen) == sorted(STAGES[name])
    if name == "parallel":
        return  # its crops are tiles: see test_parallel.py
    image = images["moving"] if name == "registration" else images
    for found in seen:
        theta = model.get_layer(found.layer).transform.identity()
        assert_close(found.theta, np.broadcast_to(theta, found.theta.shape), tolerances.exact)
        if found.warped.shape == image.shape:
            assert_close(found.warped, image, tolerances.sample)
    assert name == "segmentation" or seen[-1].warped.shape == image.shape


@pytest.mark.parametrize("name", WITHOUT)
def test_networks_to_compare_with_have_no_transformer(name, small, draw):
    model = small(name)
    with pytest.raises(ValueError, match="has no SpatialTransformer inside"):
        read_transformers(model, draw(model))


@every_name
def test_one_step_of_training_moves_theta_and_leaves_every_number_finite(name, small, fit_once):
    model = small(name)
    before = parts(model.trainable_variables, "theta")
    history = fit_once(model).history
    assert all(np.isfinite(values).all() for values in history.values())
    assert all(np.isfinite(variable).all() for variable in model.variables)
    after = parts(model.trainable_variables, "theta")
    assert (not before) == (name in WITHOUT)
    for path, value in before.items():
        assert np.abs(after[path] - value).max() > 0, path


def test_training_in_mixed_precision_keeps_probabilities_and_coordinates(draw, fit_once):
    """Half precision adds probabilities up to 0.998, and rounds coordinates to whole pixels."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        models = [
            make("paper-st-cnn", input_shape=(28, 28, 1)),
            make("segmentation", input_shape=(32, 32, 1), frame_size=(16, 16)),
            make("vgg16", input_shape=(32, 32, 3), transformers=2),
            make("registration", input_shape=(32, 32, 1)),
        ]
    finally:
        keras.config.set_dtype_policy("float32")
    for model in models:
        inputs = draw(model)
        found = model(inputs)
        for transformation in read_transformers(model, inputs):
            assert transformation.theta.dtype == np.float32
        if isinstance(found, dict):
            assert found["flow"].dtype == tf.float32
        elif model.name != "paper_st_cnn":
            assert found.dtype == tf.float32
            assert np.abs(found.numpy().sum(-1) - 1).max() < 1e-5
    assert np.isfinite(fit_once(models[1]).history["loss"]).all()


def test_the_tutorial_is_sequential_with_the_layer_as_its_first_stage():
    model = make("tutorial", transform="projective")
    assert isinstance(model, keras.Sequential)
    assert isinstance(model.layers[0], SpatialTransformer)
    assert model.layers[0].transform.name == "projective"
    assert model.layers[0].localization_net is not None
    assert model.input_shape == (None, 28, 28, 1)
    assert model.output_shape == (None, 10)
    with pytest.raises(ValueError, match="classes is 0: expected an integer of at least 1"):
        make("tutorial", classes=0)
    with pytest.raises(ValueError, match="transform is 'bend'"):
        make("tutorial", transform="bend")
