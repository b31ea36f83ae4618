"""Small models that faults are put into, with random weights that move their thetas."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from stnkit.models import SpatialTransformer
from stnkit.models.sampling.grid_sample import sample_planes
from stnkit.models.taps import mark_theta, mark_warped

layers = keras.layers


def same(value):
    return value


class Hooked(SpatialTransformer):
    """A transformer of which any step can be done otherwise.

    Args:
        hooks: step -> function on what the step hands on: "image", "theta" (before its tap), "used"
            (theta behind its tap), "planes" (x, y, and the image's size), "warped" (and planes).
        sampler_corners: align_corners of the sampler alone.
    """

    def __init__(self, *args, hooks=None, sampler_corners=None, **options):
        super().__init__(*args, **options)
        self.hooks = hooks or {}
        self.sampler_corners = sampler_corners

    def call(self, inputs, training=None):
        image = self.hooks.get("image", same)(inputs)
        theta = self.theta_head(self.localization_net(inputs, training=training))
        theta = mark_theta(self.hooks.get("theta", same)(self.transform.check_theta(theta)))
        theta = self.hooks.get("used", same)(theta)
        size = tuple(image.shape[1:3])
        planes = self.transform.planes(theta, size, self.align_corners)
        if "planes" in self.hooks:
            planes = self.hooks["planes"](*planes, size)
        corners = self.align_corners if self.sampler_corners is None else self.sampler_corners
        warped = sample_planes(image, planes, self.interpolation, self.padding_mode, corners)
        warped = tf.ensure_shape(warped, inputs.shape)
        if "warped" in self.hooks:
            warped = self.hooks["warped"](warped, planes)
        return mark_warped(warped)


class Applied(layers.Layer):
    """A layer that is one function."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def call(self, value):
        return self.function(value)


class TrainingNorm(layers.BatchNormalization):
    """Batch normalisation that forgot to leave training mode."""

    def call(self, value):
        mean, variance = tf.nn.moments(value, axes=[0, 1, 2], keepdims=True)
        return (value - mean) * tf.math.rsqrt(variance + self.epsilon) * self.gamma + self.beta


def stirred(model, seed=7):
    """Give every weight a new value, so that nothing is the identity and biases count."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        shape = tuple(variable.shape)
        if "seed" in variable.path or not shape:
            continue
        if "variance" in variable.path or "gamma" in variable.path:
            variable.assign(rng.uniform(0.5, 1.5, shape))
        elif "theta" in variable.path and len(shape) == 1:
            variable.assign(np.array([1.1, -0.3, 0.1, 0.25, 0.9, -0.15]))
        else:
            spread = 1.2 if "scores" in variable.path else 0.6
            variable.assign(rng.normal(0, spread / max(1, np.sqrt(np.prod(shape[:-1]))), shape))
    return model


def localization():
    return keras.Sequential(
        [
            layers.Conv2D(4, 3, padding="same", activation="relu", name="look"),
            layers.MaxPooling2D(2, name="look_pool"),
            layers.Flatten(),
            layers.Dense(8, activation="relu", name="decide"),
        ],
        name="localization",
    )


def transformer(**options):
    hooked = {"hooks", "sampler_corners"} & set(options)
    return (Hooked if hooked else SpatialTransformer)(localization(), name="stn", **options)


def classifier(size=(14, 12, 3), before=same, after=same, seed=7, changes=None, **options):
    """Return a classifier behind a transformer with border padding.

    Args:
        size: of the image.
        before: layer before everything.
        after: layer behind everything.
        seed: of the weights.
        changes: name of a layer -> the layer that stands in its place.
        options: of the transformer.
    """
    options = {"padding_mode": "border", **options}
    changes = changes or {}
    image = keras.Input(size, name="photo")
    x = transformer(**options)(before(image))
    for layer in (
        layers.Conv2D(6, 3, padding="same", activation="relu", name="conv_a"),
        layers.MaxPooling2D(2, name="pool"),
        layers.Conv2D(8, 3, activation="relu", name="conv_b"),
        layers.GlobalAveragePooling2D(name="average"),
        layers.Dense(5, activation="softmax", name="scores"),
    ):
        x = changes.get(layer.name, layer)(x)
    return stirred(keras.Model(image, after(x), name="classifier"), seed)


def square(**options):
    """Return the classifier for square gray images, with zeros around them."""
    return classifier((16, 16, 1), **{"padding_mode": "zeros", **options})


def pair(order=("left", "right"), flatten=same, **options):
    """Return a model with two outputs of one shape."""
    image = keras.Input((12, 12, 2), name="photo")
    flat = layers.Flatten(name="flat")(flatten(transformer(**options)(image)))
    left = layers.Dense(3, name=order[0])(flat)
    right = layers.Dense(3, activation="tanh", name=order[1])(flat)
    return stirred(keras.Model(image, [left, right], name="pair"))


def normalised(norm=None, seed=7, gamma_for_beta=False):
    """Return a classifier with batch normalisation and dropout."""
    image = keras.Input((14, 14, 2), name="photo")
    x = transformer()(image)
    x = layers.Conv2D(6, 3, use_bias=False, name="conv")(x)
    norm = norm or layers.BatchNormalization(name="norm")
    x = layers.ReLU(name="relu")(norm(x))
    x = layers.Dropout(0.5, name="dropout")(layers.GlobalAveragePooling2D(name="average")(x))
    x = layers.Dense(4, activation="softmax", name="scores")(x)
    model = stirred(keras.Model(image, x, name="normalised"), seed)
    if gamma_for_beta:
        gamma, beta = norm.gamma.numpy(), norm.beta.numpy()
        norm.gamma.assign(beta)
        norm.beta.assign(gamma)
    return model


MODELS = {"classifier": classifier, "square": square, "pair": pair, "normalised": normalised}
