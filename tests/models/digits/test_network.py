"""The network of the digits recipe."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from stnkit.models import SpatialTransformer
from stnkit.models.digits.network import CLASS_NAMES, digits_network


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(1)
    return digits_network()


def test_signature(network):
    assert network.inputs[0].name == "image"
    assert network.input_shape == (None, 28, 28, 1)
    assert network.layers[-1].name == "probabilities"
    assert network.output_shape == (None, len(CLASS_NAMES)) == (None, 10)


def test_the_transformer_comes_first_and_starts_at_the_identity(network):
    layer = network.layers[0]
    assert isinstance(layer, SpatialTransformer)
    image = np.random.default_rng(1).uniform(0, 1, (2, 28, 28, 1)).astype(np.float32)
    assert np.abs(layer(image) - image).max() <= 1e-6


def test_outputs_are_probabilities(network):
    image = np.random.default_rng(2).uniform(0, 1, (5, 28, 28, 1)).astype(np.float32)
    scores = network(image, training=False).numpy()
    assert scores.min() >= 0
    assert np.abs(scores.sum(axis=1) - 1).max() <= 1e-6
    assert np.array_equal(scores, network(image, training=False).numpy())


def test_size_is_what_the_documentation_says(network):
    assert 150_000 < network.count_params() < 170_000


def test_every_trainable_weight_has_a_gradient(network):
    import tensorflow as tf

    image = np.random.default_rng(3).uniform(0, 1, (4, 28, 28, 1)).astype(np.float32)
    with tf.GradientTape() as tape:
        scores = network(image, training=True)
        loss = keras.losses.SparseCategoricalCrossentropy()(np.arange(4), scores)
    variables = [weight.value for weight in network.trainable_weights]
    assert all(gradient is not None for gradient in tape.gradient(loss, variables))


def test_class_names():
    assert CLASS_NAMES == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
