"""Localisation networks: they look at an image and give the features that theta is read from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


def localization_cnn(
    filters: Sequence[int] = (16, 32),
    units: int = 32,
    kernel_size: int = 5,
    name: str = "localization",
) -> Any:
    """Return a small convolutional localisation network.

    One max pooling then convolution with ReLU for each entry of `filters`, then a dense layer. The
    theta head is not part of it: `SpatialTransformer` appends one.

    Args:
        filters: Channels of each convolution, at least one.
        units: Width of the feature vector.
        kernel_size: Side of the kernels, px.
        name: Name of the Keras model.

    Returns:
        `keras.Sequential` from `[batch, height, width, channels]` to `[batch, units]`.

    Raises:
        ValueError: If `filters` is empty or a number is not positive.

    Source:
        Jaderberg et al. 2015, section 3.1; the shape follows appendix A.4 (distorted MNIST, CNN).
    """
    if not filters or min([*filters, units, kernel_size]) < 1:
        raise ValueError(
            f"filters is {filters!r}, units {units!r}, kernel_size {kernel_size!r}: expected at "
            "least one convolution and positive integers"
        )
    layers: list[Any] = []
    for count in filters:
        layers.append(keras.layers.MaxPooling2D(2, padding="same"))
        layers.append(keras.layers.Conv2D(count, kernel_size, padding="same", activation="relu"))
    layers.append(keras.layers.Flatten())
    layers.append(keras.layers.Dense(units, activation="relu"))
    return keras.Sequential(layers, name=name)
