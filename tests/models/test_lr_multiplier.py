"""The factor on the learning rate of the localisation network."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from stnkit.models import Affine, SpatialTransformer, localization_cnn

SIZE = (8, 10)


@pytest.fixture
def image():
    return np.random.default_rng(1).uniform(0, 1, (3, *SIZE, 2)).astype(np.float32)


def near_identity(transform, batch=3, amount=0.08, seed=2, dtype=np.float32):
    noise = np.random.default_rng(seed).uniform(-amount, amount, (batch, *transform.theta_shape))
    return (transform.identity() + noise).astype(dtype)


def disturb(layer, amount=0.2):
    rng = np.random.default_rng(8)
    weights = layer.theta_head.get_weights()
    layer.theta_head.set_weights([w + rng.uniform(-amount, amount, w.shape) for w in weights])


def classifier(multiplier):
    keras.utils.set_random_seed(7)
    layer = SpatialTransformer(
        localization_cnn((2,), 4, 3), localization_lr_multiplier=multiplier, name="look"
    )
    model = keras.Sequential(
        [
            keras.Input((*SIZE, 2)),
            keras.layers.Conv2D(2, 1, name="before"),
            layer,
            keras.layers.Flatten(),
            keras.layers.Dense(3, name="after"),
        ]
    )
    disturb(layer)
    return model


@functools.cache
def sgd_updates(multiplier, jit_compile):
    """Return by layer what one step of plain SGD adds to each weight."""
    image = np.random.default_rng(1).uniform(0, 1, (3, *SIZE, 2)).astype(np.float32)
    target = np.random.default_rng(4).uniform(0, 1, (3, 3)).astype(np.float32)
    model = classifier(multiplier)
    how = {"jit_compile": True} if jit_compile else {"run_eagerly": True}
    model.compile(keras.optimizers.SGD(0.5), "mse", **how)
    before = {layer.name: [w.numpy() for w in layer.trainable_weights] for layer in model.layers}
    model.train_on_batch(image, target)
    return {
        layer.name: [
            now.numpy() - then for now, then in zip(layer.trainable_weights, old, strict=True)
        ]
        for layer, old in ((layer, before[layer.name]) for layer in model.layers)
    }


@pytest.mark.parametrize(
    ("multiplier", "jit_compile"), [(0.0, False), (0.125, False), (4.0, False), (0.125, True)]
)
def test_lr_multiplier_scales_the_updates_of_the_localisation(multiplier, jit_compile):
    plain, scaled = sgd_updates(1.0, False), sgd_updates(multiplier, jit_compile)
    assert len(plain["look"]) == 2 + 2 + 2
    for one, other in zip(plain["look"], scaled["look"], strict=True):
        assert np.abs(one).max() > 1e-5
        # What is left is the rounding of subtracting weights of about 1.
        assert np.abs(other - multiplier * one).max() < 4e-7 * max(1, multiplier)
    for one, other in zip(plain["after"], scaled["after"], strict=True):
        assert np.abs(one).max() > 1e-4
        assert np.abs(one - other).max() < 2e-7
    # Of what comes before, the way through theta is scaled and the way through the image is not.
    assert np.abs(plain["before"][0] - scaled["before"][0]).max() > 1e-5


def test_lr_multiplier_counts_in_training_alone(image):
    gradients = {}
    for multiplier in (1.0, 0.125):
        layer = classifier(multiplier).get_layer("look")
        for training in (False, True):
            with tf.GradientTape() as tape:
                total = tf.reduce_sum(layer(image, training=training) ** 2)
            (gradient,) = tape.gradient(total, [layer.theta_head.trainable_weights[0].value])
            gradients[multiplier, training] = gradient.numpy()
    assert np.array_equal(gradients[1.0, False], gradients[0.125, False])
    assert np.array_equal(gradients[1.0, True] * 0.125, gradients[0.125, True])
    # In training the sampler's gradient adds up in another order.
    plain, trained = gradients[1.0, False], gradients[1.0, True]
    assert np.abs(plain - trained).max() < 1e-6 * np.abs(plain).max()


def test_lr_multiplier_scales_the_gradient_of_a_given_theta(image):
    theta = tf.constant(near_identity(Affine()))
    gradients = []
    for multiplier in (1.0, 0.5):
        layer = SpatialTransformer(localization_lr_multiplier=multiplier)
        with tf.GradientTape() as tape:
            tape.watch(theta)
            total = tf.reduce_sum(layer([image, theta], training=True) ** 2)
        gradients.append(tape.gradient(total, theta).numpy())
    assert np.array_equal(gradients[1], gradients[0] / 2)
    assert gradients[0].any()


@pytest.mark.parametrize("factor", [-0.1, np.nan, np.inf, "0.1", None, [1.0]], ids=repr)
def test_bad_lr_multiplier(factor):
    with pytest.raises(ValueError, match=r"localization_lr_multiplier is .*: expected a number >="):
        SpatialTransformer(localization_lr_multiplier=factor)
