"""Small models of every kind that a user may bring, with random weights that move their thetas."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from stnkit.models import SpatialTransformer, grid_sample, localization_cnn
from stnkit.models.taps import mark_theta, mark_warped


def stir(model, seed=7):
    """Give every weight a new value, so that nothing is the identity and biases count."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        shape = tuple(variable.shape)
        if "seed" in variable.path or not shape:
            continue
        name = variable.path
        if "variance" in name or "gamma" in name:
            variable.assign(rng.uniform(0.5, 1.5, shape))
        elif "theta" in name and len(shape) == 1:
            variable.assign(np.array([1.1, -0.3, 0.1, 0.25, 0.9, -0.15]))
        else:
            variable.assign(rng.normal(0, 0.3 / max(1, np.sqrt(np.prod(shape[:-1]))), shape))
    return model


def _head(name="scores"):
    layers = keras.layers
    return [
        layers.Conv2D(6, 3, use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.GlobalAveragePooling2D(),
        layers.Dropout(0.5),
        layers.Dense(4, activation="softmax", name=name),
    ]


def sequential():
    return keras.Sequential(
        [
            keras.Input((20, 20, 1), name="photo"),
            SpatialTransformer(localization_cnn((4,), units=8), name="stn"),
            *_head(),
        ],
        name="sequential_stn",
    )


def functional():
    image = keras.Input((20, 24, 3), name="photo")
    warped = SpatialTransformer(localization_cnn((4,), units=8), (12, 10), name="stn")(image)
    x = warped
    for layer in _head("scores"):
        x = layer(x)
    offset = keras.layers.Dense(2, name="offset")(keras.layers.Flatten()(warped))
    return keras.Model(image, [x, offset], name="functional_stn")


def dictionary():
    image = keras.Input((20, 20, 1), name="b_photo")
    bias = keras.Input((3,), name="a_bias")
    warped = SpatialTransformer(localization_cnn((4,), units=8), name="stn")(image)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 3)(warped))
    return keras.Model(
        {"b_photo": image, "a_bias": bias},
        {"sum": keras.layers.Add()([x, bias]), "mean": x},
        name="dictionary_stn",
    )


def given_theta(shape=(2, 3)):
    image = keras.Input((16, 16, 2), name="photo")
    theta = keras.Input(shape, name="theta")
    return keras.Model([image, theta], SpatialTransformer(name="stn")([image, theta]))


def given_theta_flat():
    return given_theta((6,))


def two_transformers():
    image = keras.Input((20, 20, 1), name="photo")
    first = SpatialTransformer(localization_cnn((4,), units=8), name="coarse")(image)
    inner = keras.Sequential(
        [SpatialTransformer(localization_cnn((4,), units=8), (10, 10), name="fine")], name="stage"
    )
    x = inner(first)
    for layer in _head("scores"):
        x = layer(x)
    return keras.Model(image, x, name="two_stage")


def shared_transformer():
    left, right = keras.Input((14, 14, 1), name="left"), keras.Input((14, 14, 1), name="right")
    stn = SpatialTransformer(localization_cnn((4,), units=8), name="stn")
    return keras.Model([left, right], keras.layers.Subtract(name="gap")([stn(left), stn(right)]))


def modes(**options):
    return keras.Sequential(
        [
            keras.Input((15, 17, 2), name="photo"),
            SpatialTransformer(localization_cnn((4,), units=8), name="stn", **options),
            keras.layers.Flatten(),
            keras.layers.Dense(3, name="logits"),
        ]
    )


def no_transformer():
    return keras.Sequential(
        [keras.Input((12, 12, 1), name="photo"), *_head()], name="no_transformer"
    )


@keras.saving.register_keras_serializable(package="stnkit_tests")
class SubclassedModel(keras.Model):
    """A model of the kind that has a `call` and no graph of layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.transform = SpatialTransformer(localization_cnn((4,), units=8), name="stn")
        self.conv = keras.layers.Conv2D(4, 3, name="conv")
        self.pool = keras.layers.GlobalAveragePooling2D()
        self.dense = keras.layers.Dense(4, activation="softmax", name="scores")

    def build(self, input_shape):
        self.transform.build(input_shape)
        warped = self.transform.compute_output_shape(input_shape)
        self.conv.build(warped)
        self.dense.build((None, 4))
        self.built = True

    def call(self, photo, training=None):
        return self.dense(self.pool(self.conv(self.transform(photo, training=training))))


def subclassed():
    model = SubclassedModel(name="subclassed_stn")
    model(np.zeros((1, 20, 20, 1), "float32"))
    return model


@keras.saving.register_keras_serializable(package="stnkit_tests")
class OwnWarp(keras.layers.Layer):
    """A user's own layer around the functions of stnkit, which marks what it does."""

    def call(self, image):
        size = tf.shape(image)
        xs = tf.linspace(-0.9, 0.9, 12)
        grid = tf.stack(tf.meshgrid(xs, xs), axis=-1)[tf.newaxis]
        grid = mark_theta(tf.tile(grid, [size[0], 1, 1, 1]))
        return mark_warped(grid_sample(image, grid, padding_mode="border"))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 12, 12, input_shape[3])


def own_layer():
    return keras.Sequential([keras.Input((20, 20, 1), name="photo"), OwnWarp(name="own"), *_head()])


BUILDERS = {
    "sequential": sequential,
    "functional": functional,
    "dictionary": dictionary,
    "given_theta": given_theta,
    "given_theta_flat": given_theta_flat,
    "two_transformers": two_transformers,
    "shared_transformer": shared_transformer,
    "no_transformer": no_transformer,
    "subclassed": subclassed,
    "own_layer": own_layer,
    "nearest_border_corners": lambda: modes(
        interpolation="nearest", padding_mode="border", align_corners=True
    ),
    "bilinear_reflection": lambda: modes(padding_mode="reflection", output_size=(9, 8)),
    "bilinear_border_corners": lambda: modes(padding_mode="border", align_corners=True),
}


@pytest.fixture(scope="session")
def build():
    """Return a builder: name of a model in, the model with stirred weights out."""
    return lambda name: stir(BUILDERS[name]())
