"""A localisation network on features of a frozen backbone."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from stnkit.models import SpatialTransformer, read_transformers
from stnkit.models.zoo.backbone_localization import backbone_localization

SHAPE = (32, 40, 3)


def test_features_of_a_frozen_backbone(draw, tmp_path, assert_close, tolerances):
    source = keras.applications.VGG16(weights=None, include_top=False, input_shape=SHAPE)
    source.save_weights(tmp_path / "vgg16.weights.h5")
    net = backbone_localization(
        "VGG16", SHAPE, "block2_pool", tmp_path / "vgg16.weights.h5", filters=4, units=6
    )
    assert net.output_shape == (None, 6)
    assert net.name == "localization"
    assert not [v.path for v in net.trainable_variables if v.path.startswith("block")]
    assert {v.path.split("/")[0] for v in net.trainable_variables} >= {"localization_dense"}
    images = draw(net)
    wanted = keras.Model(source.input, source.get_layer("block2_pool").output)(
        keras.applications.vgg16.preprocess_input(255 * images.copy())
    ).numpy()
    features = net.get_layer("localization_features")
    received = features(net.get_layer("vgg16_pixels")(images)).numpy()
    assert_close(received, wanted, 1e-5 * float(np.abs(wanted).max()))
    layer = SpatialTransformer(net, name="look")
    model = keras.Sequential([keras.Input(SHAPE), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_close(loaded(images).numpy(), images, tolerances.sample)
    assert read_transformers(loaded, images)[0].layer == "look"
    assert len(loaded.trainable_variables) == len(model.trainable_variables)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"until": "block9_pool"},
            "until is 'block9_pool': VGG16 has .*block1_conv1, .*block5_pool",
        ),
        ({"backbone": "VGG17"}, "backbone is 'VGG17'"),
        ({"filters": 0}, "filters is 0"),
        ({"units": 0}, "units is 0"),
        ({"input_shape": (32, 32, 1)}, "expected 3 channels"),
        ({"weights": "nowhere.h5"}, "weights is 'nowhere.h5': no such file"),
    ],
    ids=str,
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        backbone_localization(**{"input_shape": SHAPE, **arguments})
