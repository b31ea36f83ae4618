"""The network of the digits recipe."""

from __future__ import annotations

from typing import Any

import keras

from stnkit.models.layer import SpatialTransformer
from stnkit.models.localization import localization_cnn

CLASS_NAMES = tuple(str(digit) for digit in range(10))


def digits_network() -> Any:
    """Return an untrained network for 28x28 digits, with a spatial transformer as its first stage.

    Returns:
        `keras.Sequential` from "image" `[batch, 28, 28, 1]` float32 in [0, 1] to "probabilities"
        `[batch, 10]`; about 160,000 parameters.

    Source:
        The ST-CNN of Jaderberg et al. 2015, section 4.1, with batch normalisation.
    """
    layers = keras.layers

    def block(filters: int, name: str) -> list[Any]:
        return [
            layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv"),
            layers.BatchNormalization(name=f"{name}_norm"),
            layers.ReLU(name=f"{name}_relu"),
        ]

    return keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            SpatialTransformer(localization_cnn((16, 32), units=32), name="spatial_transformer"),
            *block(16, "block1"),
            layers.MaxPooling2D(2, name="pool1"),
            *block(48, "block2"),
            layers.MaxPooling2D(2, name="pool2"),
            *block(64, "block3"),
            *block(96, "block4"),
            layers.GlobalAveragePooling2D(name="average"),
            layers.Dropout(0.2, name="dropout"),
            layers.Dense(10, activation="softmax", name="probabilities"),
        ],
        name="digits",
    )
