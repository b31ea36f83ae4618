"""What a backbone wants of its pixels, as one linear map inside the model."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from stnkit.models.zoo.backbone import _modules, backbone_names
from stnkit.models.zoo.pixels import PixelMap, pixel_map

# One network of each of Keras' modules; two modules may share a mode, and may cease to.
MODULES = {module.__name__: (name, module) for name, module in _modules().items()}


def test_every_network_of_keras_is_known_with_its_own_preprocessing():
    networks = {
        name
        for name, value in vars(keras.applications).items()
        if name[0].isupper() and callable(value)
    }
    assert set(backbone_names()) == networks
    assert {"VGG16", "MobileNetV2", "MobileNetV3Small", "EfficientNetB0", "ResNet50V2"} <= networks
    assert len(MODULES) >= 13
    for name, module in _modules().items():
        assert callable(module.preprocess_input), name
    homes = {name: module.__name__.rpartition(".")[2] for name, module in _modules().items()}
    assert homes["ResNet50V2"] == "resnet_v2"
    assert homes["MobileNetV3Small"] == "mobilenet_v3"
    assert homes["ResNet50"] in ("resnet", "resnet50")


@pytest.mark.parametrize("name", [name for name, _ in MODULES.values()])
def test_images_in_0_1_become_what_keras_makes_of_0_255(name, assert_close):
    preprocess = _modules()[name].preprocess_input
    image = np.random.default_rng(1).uniform(0, 1, (2, 5, 4, 3)).astype(np.float32)
    expected = preprocess(255 * image.copy(), data_format="channels_last")
    received = pixel_map(preprocess, "pixels")(image).numpy()
    assert_close(received, np.asarray(expected), 3e-7 * max(1.0, float(np.abs(expected).max())) * 4)


def test_the_four_modes_of_keras(assert_close, tolerances):
    """White and pure red, as the papers of the networks have them."""
    image = np.array([[[[1, 1, 1], [1, 0, 0]]]], np.float32)
    expected = {
        "VGG16": [[151.061, 138.221, 131.32], [-103.939, -116.779, 131.32]],  # BGR, less the mean
        "MobileNetV2": [[1, 1, 1], [1, -1, -1]],
        "DenseNet121": [
            [0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225],
            [0.515 / 0.229, -0.456 / 0.224, -0.406 / 0.225],
        ],
        "EfficientNetB0": [[255, 255, 255], [255, 0, 0]],
    }
    for name, values in expected.items():
        received = pixel_map(_modules()[name].preprocess_input, "pixels")(image).numpy()
        assert_close(received[0, 0], np.array(values), 5e-5)


def test_matrix_and_offset_by_hand():
    layer = PixelMap([[0, 2], [3, 0]], [10, 20])
    received = layer(np.array([[[[1, 5]]]], np.float32))
    assert received.numpy().tolist() == [[[[20, 23]]]]  # 2 * 5 + 10, 3 * 1 + 20


def test_config_saving_and_half_precision(tmp_path):
    layer = PixelMap(np.eye(3) * 2, (0.5, 0, -1), name="pixels")
    again = PixelMap.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    model = keras.Sequential([keras.Input((4, 5, 3)), layer])
    assert model.output_shape == (None, 4, 5, 3)
    assert model.count_params() == 0
    image = np.random.default_rng(2).uniform(0, 1, (2, 4, 5, 3)).astype(np.float32)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert np.array_equal(loaded(image), model(image))
    assert PixelMap(np.eye(3), np.zeros(3), dtype="mixed_float16")(image).dtype == tf.float16


@pytest.mark.parametrize(
    ("matrix", "offset"),
    [(np.eye(3), np.zeros(4)), (np.ones((3, 4)), np.zeros(3)), (np.eye(3), 0.0), (1.0, [1.0])],
    ids=["counts", "square", "scalar", "no_matrix"],
)
def test_shapes_that_do_not_fit(matrix, offset):
    with pytest.raises(ValueError, match=r"matrix has shape .* and offset .*: expected \[channels"):
        PixelMap(matrix, offset)
