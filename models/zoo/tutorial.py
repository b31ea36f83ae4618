"""The network of a first tutorial."""

from __future__ import annotations

from typing import Any

import keras

from stnkit.models.layer import SpatialTransformer
from stnkit.models.zoo.arguments import check_count


def tutorial_network(classes: int = 10, transform: Any = "affine") -> Any:
    """Return a small Sequential network for 28x28 digits, the transformer its first stage.

    Args:
        classes: How many classes there are.
        transform: What theta means.

    Returns:
        `keras.Sequential` from "image" `[batch, 28, 28, 1]` float32 in [0, 1] to "probabilities"
        `[batch, classes]`; about 28,000 parameters.

    Raises:
        ValueError: If an argument is wrong.

    Source:
        The shape is that of PyTorch's "Spatial Transformer Networks Tutorial".
    """
    check_count(classes, "classes")
    layers = keras.layers
    localization = keras.Sequential(
        [
            layers.Conv2D(8, 7, name="look1"),
            layers.MaxPooling2D(2, name="look1_pool"),
            layers.ReLU(name="look1_relu"),
            layers.Conv2D(10, 5, name="look2"),
            layers.MaxPooling2D(2, name="look2_pool"),
            layers.ReLU(name="look2_relu"),
            layers.Flatten(name="look_flatten"),
            layers.Dense(32, activation="relu", name="look_dense"),
        ],
        name="localization",
    )
    return keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            SpatialTransformer(localization, transform=transform, name="spatial_transformer"),
            layers.Conv2D(10, 5, name="conv1"),
            layers.MaxPooling2D(2, name="pool1"),
            layers.ReLU(name="relu1"),
            layers.Conv2D(20, 5, name="conv2"),
            layers.SpatialDropout2D(0.5, name="dropout2"),
            layers.MaxPooling2D(2, name="pool2"),
            layers.ReLU(name="relu2"),
            layers.Flatten(name="flatten"),
            layers.Dense(50, activation="relu", name="hidden"),
            layers.Dropout(0.5, name="dropout"),
            layers.Dense(classes, activation="softmax", name="probabilities"),
        ],
        name="tutorial",
    )
