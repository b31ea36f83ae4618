"""A spatial transformer as many people have one: their own layer, their own sampler, gather_nd.

Nothing of stnkit is used here. Make the model, convert it, and prove any two of its forms equal:

    python examples/gather_nd_model.py mine.keras
    cd examples
    stnkit convert ../mine.keras -o mine.bundle --custom-objects gather_nd_model:OwnTransformer
    stnkit verify ../mine.keras mine.bundle --custom-objects gather_nd_model:OwnTransformer
"""

import sys

import keras
import numpy as np
import tensorflow as tf


def pixel(image, x, y):
    """Return the pixels at integer coordinates, 0 outside of the image."""
    batch, height, width = tf.shape(image)[0], tf.shape(image)[1], tf.shape(image)[2]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = tf.clip_by_value(x, 0, width - 1), tf.clip_by_value(y, 0, height - 1)
    item = tf.reshape(tf.range(batch), [-1, 1, 1]) + tf.zeros_like(x)
    values = tf.gather_nd(image, tf.stack([item, y, x], axis=-1))
    return values * tf.cast(inside, image.dtype)[..., tf.newaxis]


def sample(image, grid):
    """Return the image read bilinearly at a grid of (x, y) in [-1, 1]."""
    height, width = tf.shape(image)[1], tf.shape(image)[2]
    x = (grid[..., 0] + 1) * tf.cast(width - 1, tf.float32) / 2
    y = (grid[..., 1] + 1) * tf.cast(height - 1, tf.float32) / 2
    x0, y0 = tf.floor(x), tf.floor(y)
    wx, wy = (x - x0)[..., tf.newaxis], (y - y0)[..., tf.newaxis]
    x0, y0 = tf.cast(x0, tf.int32), tf.cast(y0, tf.int32)
    top = pixel(image, x0, y0) * (1 - wx) + pixel(image, x0 + 1, y0) * wx
    bottom = pixel(image, x0, y0 + 1) * (1 - wx) + pixel(image, x0 + 1, y0 + 1) * wx
    return top * (1 - wy) + bottom * wy


@keras.saving.register_keras_serializable(package="examples")
class OwnTransformer(keras.layers.Layer):
    """Look at an image with a small network, and warp it by what that says."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.look = keras.Sequential(
            [
                keras.layers.Conv2D(8, 5, strides=2, activation="relu"),
                keras.layers.Conv2D(8, 5, strides=2, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(16, activation="relu"),
                keras.layers.Dense(6, kernel_initializer="zeros"),
            ]
        )

    def build(self, input_shape):
        """Build the network; theta starts at the identity."""
        self.look.build(input_shape)
        self.look.layers[-1].bias.assign([1, 0, 0, 0, 1, 0])

    def call(self, image):
        """Return the warped image."""
        theta = tf.reshape(self.look(image), [-1, 2, 3])
        height, width = image.shape[1], image.shape[2]
        xs, ys = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
        points = np.stack([xs.ravel(), ys.ravel(), np.ones(xs.size)]).astype("float32")
        grid = tf.transpose(tf.matmul(theta, tf.constant(points[np.newaxis])), [0, 2, 1])
        return sample(image, tf.reshape(grid, [-1, height, width, 2]))

    def compute_output_shape(self, input_shape):
        """Return the shape of the warped image."""
        return input_shape


def make_model():
    """Return the model; its last layer of the transformer is stirred, so that it warps."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((32, 32, 1), name="photo"),
            OwnTransformer(name="own"),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(4, activation="softmax", name="scores"),
        ]
    )
    kernel = model.get_layer("own").look.layers[-1].kernel
    kernel.assign(np.random.default_rng(0).normal(0, 0.1, kernel.shape))
    return model


if __name__ == "__main__":
    make_model().save(sys.argv[1] if len(sys.argv) > 1 else "mine.keras")
