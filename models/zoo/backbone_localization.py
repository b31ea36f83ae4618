"""A localisation network that looks at the image with the first blocks of a trained backbone."""

from __future__ import annotations

from typing import Any

import keras

from stnkit.models.zoo.arguments import check_count, check_input_shape
from stnkit.models.zoo.backbone import make_backbone


def backbone_localization(
    backbone: str = "VGG16",
    input_shape: Any = (224, 224, 3),
    until: str = "block3_pool",
    weights: Any = None,
    filters: int = 64,
    units: int = 64,
    name: str = "localization",
) -> Any:
    """Return a localisation network on features of a frozen backbone.

    What is up in a photo is seen by its content; with few photos to learn from, features that were
    learnt on many tell far more of it than a network that starts from nothing.

    Args:
        backbone: Name in `keras.applications`.
        input_shape: `(height, width, 3)` of the image.
        until: Name of the layer whose output is looked at.
        weights: None, "imagenet" or the path of a weights file without top.
        filters: Channels of the convolution behind it.
        units: Width of the feature vector.
        name: Name of the Keras model.

    Returns:
        Functional model from the image, in [0, 1], to `[batch, units]`. The backbone's part of it
        is not trained; the rest is.

    Raises:
        ValueError: If there is no such layer, or the weights cannot be had.
    """
    shape = check_input_shape(input_shape, channels=3)
    check_count(filters, "filters")
    check_count(units, "units")
    network, pixels = make_backbone(backbone, shape, weights, trainable=False)
    known = [layer.name for layer in network.layers]
    if until not in known:
        raise ValueError(f"until is {until!r}: {backbone} has {', '.join(known)}")
    features = keras.Model(network.input, network.get_layer(until).output, name=f"{name}_features")
    features.trainable = False
    layers = keras.layers
    image = keras.Input(shape)
    seen = features(pixels(image))
    # The features have any scale; normalised they can be learnt from at the usual rates.
    seen = layers.BatchNormalization(name=f"{name}_norm")(seen)
    seen = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv")(seen)
    seen = layers.BatchNormalization(name=f"{name}_conv_norm")(seen)
    seen = layers.ReLU(name=f"{name}_relu")(seen)
    seen = layers.Flatten(name=f"{name}_flatten")(seen)
    seen = layers.Dropout(0.3, name=f"{name}_dropout")(seen)
    seen = layers.Dense(units, activation="relu", name=f"{name}_dense")(seen)
    return keras.Model(image, seen, name=name)
