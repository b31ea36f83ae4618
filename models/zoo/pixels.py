"""What an ImageNet backbone wants of its pixels, as one linear map of them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf


@keras.saving.register_keras_serializable(package="stnkit")
class PixelMap(keras.layers.Layer):
    r"""Multiply every pixel by a matrix and add a vector: order, scale and mean of the channels.

    $$y = M x + b$$

    It stands inside the model, behind the transformer, so that what the transformer reads outside
    of the image is black, and so that whoever runs the model gives it images in [0, 1].

    Args:
        matrix: M, `[channels, channels]`.
        offset: b, `[channels]`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If the shapes do not fit.
    """

    def __init__(self, matrix: Any, offset: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.matrix = np.asarray(matrix, np.float32)
        self.offset = np.asarray(offset, np.float32)
        count = len(self.offset) if self.offset.ndim == 1 else -1
        if self.matrix.shape != (count, count):
            raise ValueError(
                f"matrix has shape {self.matrix.shape} and offset {self.offset.shape}: expected "
                "[channels, channels] and [channels]"
            )

    def call(self, image: Any) -> Any:
        """Return the image `[batch, height, width, channels]` as the backbone wants it."""
        # A 1x1 convolution is the form that every target has a fast kernel for.
        kernel = tf.constant(self.matrix.T[np.newaxis, np.newaxis], image.dtype)
        return tf.nn.conv2d(image, kernel, 1, "VALID") + tf.constant(self.offset, image.dtype)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """Return the shape of the image."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        own = {"matrix": self.matrix.tolist(), "offset": self.offset.tolist()}
        return {**super().get_config(), **own}


def pixel_map(preprocess_input: Any, name: str) -> PixelMap:
    """Return the layer that does to images in [0, 1] what Keras' function does to 0..255.

    All of Keras' functions are linear in the pixel: what they do to black and to each channel at
    its brightest tells the matrix.

    Args:
        preprocess_input: `keras.applications.<module>.preprocess_input`.
        name: Name of the layer.
    """
    probes = np.zeros((4, 1, 1, 3), np.float32)
    for channel in range(3):
        probes[channel + 1, 0, 0, channel] = 255.0
    seen = np.asarray(preprocess_input(probes.copy(), data_format="channels_last"), np.float64)
    offset = seen[0, 0, 0]
    return PixelMap((seen[1:, 0, 0] - offset).T, offset, name=name)
