"""Transformers in front of `keras.applications`: weights, freezing, and what it sees."""

from __future__ import annotations

import h5py
import keras
import numpy as np
import pytest

from stnkit.models.zoo import backbone_network, vgg16_network
from stnkit.models.zoo.backbone import _load, make_backbone, set_trainable

SHAPE = (32, 32, 3)


@pytest.fixture(scope="module")
def vgg16():
    """Return VGG16 without top, its biases no zeros; not to be changed."""
    keras.utils.set_random_seed(1)
    network = keras.applications.VGG16(weights=None, include_top=False, input_shape=SHAPE)
    for index, variable in enumerate(network.weights):
        variable.assign_add(np.full(variable.shape, 0.001 * index, np.float32))
    return network


@pytest.fixture(scope="module")
def weights(vgg16, tmp_path_factory):
    """Return what `save_weights` wrote of it; not to be written."""
    path = tmp_path_factory.mktemp("weights") / "vgg16.weights.h5"
    vgg16.save_weights(path)
    return path


@pytest.fixture(scope="module")
def mobilenet():
    """Return MobileNetV2 with a transformer in front, frozen; not to be changed."""
    return backbone_network("MobileNetV2", SHAPE, 3, trainable=False)


def assert_same_weights(network, other):
    assert len(network.weights) == len(other.weights) > 0
    for got, want in zip(network.weights, other.weights, strict=True):
        assert np.array_equal(got, want), want.path


def trained(network):
    return [layer.name for layer in network.layers if layer.trainable_variables]


# ---- weights ----


def test_a_weights_file_is_loaded_and_freezes_the_backbone(vgg16, weights):
    model = vgg16_network(SHAPE, 3, weights=weights, transformers=2)
    inner = model.get_layer("vgg16")
    assert_same_weights(inner, vgg16)
    assert inner.trainable_variables == []
    assert {variable.path.split("/")[0] for variable in model.trainable_variables} == {
        *("localization_1", "localization_2", "theta_head_1", "theta_head_2"),
        *("features_norm", "hidden", "probabilities"),
    }


def test_weights_fit_images_of_another_size_and_may_be_trained(vgg16, weights):
    model = vgg16_network((40, 48, 3), 3, weights=str(weights), trainable=True)
    assert_same_weights(model.get_layer("vgg16"), vgg16)
    assert len(model.get_layer("vgg16").trainable_variables) == 26


def test_random_weights_are_trained(vgg16):
    model = vgg16_network(SHAPE, 3)
    assert len(model.get_layer("vgg16").trainable_variables) == 26
    with pytest.raises(AssertionError):
        assert_same_weights(model.get_layer("vgg16"), vgg16)


def test_a_legacy_file_is_loaded(vgg16, tmp_path):
    vgg16.save(tmp_path / "vgg16.h5")
    network, _ = make_backbone("VGG16", SHAPE, tmp_path / "vgg16.h5")
    assert_same_weights(network, vgg16)


def test_weights_and_flags_survive_saving(weights, tmp_path):
    model = vgg16_network(SHAPE, 3, weights=weights, trainable="block5")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_same_weights(loaded, model)
    names = ["block5_conv1", "block5_conv2", "block5_conv3"]
    assert trained(loaded.get_layer("vgg16")) == names == trained(model.get_layer("vgg16"))


@pytest.mark.parametrize("content", [None, b"", b"no weights at all", "empty", "foreign"])
def test_files_that_are_no_weights_of_it(content, tmp_path):
    path = tmp_path / "file.weights.h5"
    says = f"{path}: cannot be loaded as weights of VGG16 without its top"
    if content is None:
        says = f"weights is '{path}': no such file; expected a weights file"
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "empty":
        h5py.File(path, "w").close()
    else:
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save_weights(path)
    with pytest.raises(ValueError) as caught:
        vgg16_network(SHAPE, 3, weights=path)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network(weights):
    for name in ("VGG19", "MobileNetV2"):
        with pytest.raises(ValueError, match=f"cannot be loaded as weights of {name} without its"):
            make_backbone(name, SHAPE, weights)


def test_a_file_under_another_name(weights, tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be loaded as weights of VGG16"):
        make_backbone("VGG16", SHAPE, path)


def test_a_file_that_changes_nothing_is_told(vgg16, weights):
    with pytest.raises(ValueError, match="holds no weights of VGG16: nothing in the network chan"):
        _load(vgg16, weights, "VGG16")


# ---- the weights that Keras downloads ----


def test_imagenet_weights_are_those_that_keras_has(vgg16, weights, monkeypatch):
    def downloaded(name, origin, **options):
        assert "vgg16_weights_tf_dim_ordering_tf_kernels_notop" in origin
        return str(weights)

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", downloaded)
    network, _ = make_backbone("VGG16", SHAPE, "imagenet")
    assert_same_weights(network, vgg16)
    assert network.trainable_variables == []


def test_imagenet_weights_without_a_network(monkeypatch):
    def offline(name, origin, **options):
        raise Exception(f"URL fetch failure on {origin}: None -- [Errno -2] unknown\nmore")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", offline)
    with pytest.raises(ValueError) as caught:
        vgg16_network(SHAPE, 3, weights="imagenet")
    message = str(caught.value)
    assert "VGG16" in message
    assert "ImageNet weights (URL fetch failure on https://" in message
    assert "pass the path of a weights file of the network without top" in message
    assert "\n" not in message


def test_imagenet_weights_for_an_image_that_is_too_small(monkeypatch):
    monkeypatch.delattr("keras.src.utils.file_utils.get_file")
    with pytest.raises(ValueError, match=r"VGG16 for images of \(16, 16, 3\) .*at least 32x32"):
        vgg16_network((16, 16, 3), 3, weights="imagenet")


# ---- freezing ----


@pytest.mark.parametrize(
    ("block", "first"),
    [("block1", 0), ("block4", 7), ("block5", 10), ("block5_conv2", 11), (True, 0), (False, 13)],
)
def test_from_a_block_on_the_layers_are_trained(block, first):
    network, _ = make_backbone("VGG16", SHAPE, trainable=block)
    blocks = [(1, 2), (2, 2), (3, 3), (4, 3), (5, 3)]
    names = [f"block{number}_conv{k + 1}" for number, count in blocks for k in range(count)]
    assert trained(network) == names[first:]


def test_a_block_is_a_whole_name(mobilenet):
    """block_1 is not block_16, and neither is a part of a word."""
    network = keras.models.clone_model(mobilenet.get_layer("mobilenetv2_1.00_32"))
    set_trainable(network, "block_16")
    assert trained(network)[0] == "block_16_expand"
    assert "Conv_1" in trained(network)
    assert "block_15_project" not in trained(network)
    set_trainable(network, "block_1")
    assert trained(network)[0] == "block_1_expand"
    set_trainable(network, False)
    assert trained(network) == []
    for block in ("block_17", "bloc", "block_1_", ""):
        with pytest.raises(ValueError, match=rf"trainable is '{block}': mobilenetv2_.* no such bl"):
            set_trainable(network, block)


def test_flags_that_were_set_before_do_not_stay(vgg16):
    network = keras.models.clone_model(vgg16)
    counts = []
    for choice in ("block5", "block3", True, "block5", False, "block4", "block4"):
        set_trainable(network, choice)
        counts.append(len(trained(network)))
    assert counts == [3, 9, 13, 3, 0, 6, 6]
    outer = keras.Sequential([keras.Input(SHAPE), network])
    set_trainable(network, False)
    set_trainable(outer, True)
    assert len(trained(network)) == 13


def test_a_block_that_is_none_lists_those_that_are():
    with pytest.raises(
        ValueError, match=r"trainable is 'block6': vgg16 has no such block; .*block5"
    ):
        vgg16_network(SHAPE, 3, trainable="block6")


def test_training_changes_what_is_not_frozen_and_nothing_else(fit_once):
    model = vgg16_network(SHAPE, 3, trainable="block5")
    inner = model.get_layer("vgg16")
    before = {variable.path: variable.numpy() for variable in inner.variables}
    fit_once(model)
    changed = {path for path, value in before.items() if np.any(value != _value(inner, path))}
    assert {path.split("/")[0] for path in changed} == {
        *("block5_conv1", "block5_conv2", "block5_conv3")
    }


def _value(network, path):
    return next(variable for variable in network.variables if variable.path == path).numpy()


def test_a_frozen_batch_normalisation_uses_and_keeps_its_statistics(mobilenet, draw, fit_once):
    model = keras.models.clone_model(mobilenet)
    model.set_weights(mobilenet.get_weights())
    inner = model.get_layer("mobilenetv2_1.00_32")
    pixels = 2 * draw(model) - 1
    assert np.array_equal(inner(pixels, training=True), inner(pixels, training=False))
    before = inner.get_weights()
    fit_once(model)
    assert all(np.array_equal(a, b) for a, b in zip(before, inner.get_weights(), strict=True))
    set_trainable(inner, "block_16")
    inner(pixels, training=True)
    moved = [
        layer.name
        for layer in inner.layers
        if isinstance(layer, keras.layers.BatchNormalization) and np.any(layer.moving_mean)
    ]
    assert moved == [
        "block_16_expand_BN",
        "block_16_depthwise_BN",
        "block_16_project_BN",
        "Conv_1_bn",
    ]


# ---- what the backbone sees ----


@pytest.mark.parametrize("resampling", ["once", "each"])
def test_the_backbone_sees_what_its_own_preprocessing_makes(resampling, draw, assert_close):
    model = vgg16_network((32, 64, 3), 3, transformers=2, resampling=resampling)
    inner = model.get_layer("vgg16")
    images = draw(model)
    wanted = keras.applications.vgg16.preprocess_input(255 * images.copy())
    expected = inner(wanted).numpy()
    received = keras.Model(model.input, model.get_layer("average").input)(images).numpy()
    assert received.shape == (2, 1, 2, 512)
    assert_close(received, expected, 1e-5 * float(np.abs(expected).max()))
    top = keras.Model(model.get_layer("average").output, model.output)
    assert_close(model(images).numpy(), top(expected.mean((1, 2))).numpy(), 1e-5)


def test_the_size_that_the_backbone_sees():
    model = vgg16_network((64, 48, 3), 3, output_size=(32, 40))
    assert model.get_layer("vgg16").input_shape == (None, 32, 40, 3)
    assert model.input_shape == (None, 64, 48, 3)
    assert model.get_layer("spatial_transformer").output_size == (32, 40)


@pytest.mark.parametrize("name", ["MobileNetV3Small", "EfficientNetB0"])
def test_other_backbones(name, draw):
    model = backbone_network(name, SHAPE, 4, units=8, transform="similarity")
    images = draw(model)
    assert model(images).shape == (2, 4)
    assert model.name == f"stn_{name.lower()}"
    assert model.get_layer("hidden").units == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "VGG17"}, "backbone is 'VGG17': keras.applications has ConvNeXtBase, "),
        ({"backbone": "vgg16"}, "backbone is 'vgg16': keras.applications has"),
        ({"input_shape": (32, 32, 1)}, r"input_shape is \(32, 32, 1\): expected 3 channels"),
        ({"input_shape": (31, 32, 3)}, r"VGG16 does not take images of \(31, 32, 3\) \(Input size"),
        ({"output_size": (16, 32)}, r"VGG16 does not take images of \(16, 32, 3\)"),
        ({"output_size": 32}, "output_size is 32: expected"),
        ({"classes": 0}, "classes is 0"),
        ({"units": 0}, "units is 0"),
        ({"transformers": 0}, "transformers is 0: expected an integer of at least 1"),
        ({"resampling": "twice"}, "resampling is 'twice': expected one of 'once', 'each'"),
        ({"transform": "bend"}, "transform is 'bend'"),
        ({"transformers": 2, "transform": "thin_plate_spline"}, "cannot be composed into one"),
    ],
    ids=str,
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        backbone_network(**{"backbone": "VGG16", "input_shape": SHAPE, "classes": 3, **arguments})
