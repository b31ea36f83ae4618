"""Bending energy and local correlation, by hand and by NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from stnkit.models.zoo import bending_energy, local_correlation_loss


def centres(height, width):
    """Return the normalised coordinates (x, y) of pixel centres, `[height, width]` each."""
    y, x = np.meshgrid(
        *((2 * np.arange(side) + 1) / side - 1 for side in (height, width)), indexing="ij"
    )
    return x, y


def quadratic(size, a, b, c):
    """Return the flow (a x^2 + b x y + c y^2, 0) plus an affine one, `[1, *size, 2]` float64."""
    x, y = centres(*size)
    bent = a * x**2 + b * x * y + c * y**2
    return np.stack([bent + 0.3 * x - 0.1 * y + 2, 0.5 * x + y - 1], -1)[np.newaxis]


# ---- bending energy ----


@pytest.mark.parametrize("size", [(3, 3), (8, 8), (5, 40), (64, 48), (200, 7)], ids=str)
def test_of_a_quadratic_flow_at_any_resolution(size):
    """u_xx = 2a, u_xy = b, u_yy = 2c; the other component of the flow bends nothing."""
    a, b, c = 0.3, -0.5, 0.2
    expected = (4 * a**2 + 2 * b**2 + 4 * c**2) / 2
    assert abs(bending_energy(None, quadratic(size, a, b, c))[0] - expected) < 1e-8


def test_each_second_derivative_counts_as_in_the_formula():
    for coefficients, expected in (((1, 0, 0), 2), ((0, 1, 0), 1), ((0, 0, 1), 2)):
        assert abs(bending_energy(None, quadratic((6, 9), *coefficients))[0] - expected) < 1e-9
    swapped = quadratic((6, 9), 1, 0, 0)[..., ::-1]
    assert abs(bending_energy(None, swapped)[0] - 2) < 1e-9


def test_items_of_a_batch_are_measured_each():
    flow = np.concatenate([quadratic((6, 9), *abc) for abc in ((0, 0, 0), (1, 0, 0), (0, 2, 0))])
    received = bending_energy(np.zeros((3, 1, 1, 2)), flow)
    assert received.shape == (3,)
    assert np.abs(received - np.array([0, 2, 4])).max() < 1e-9


def test_of_an_affine_flow_in_float32_is_nothing():
    flow = quadratic((64, 64), 0, 0, 0).astype(np.float32)
    received = bending_energy(None, flow)
    assert received.dtype == tf.float32
    assert float(received[0]) < 1e-5


def test_gradient_and_a_size_known_while_the_graph_runs():
    flow = tf.constant(quadratic((6, 9), 1, 0.5, 0))

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 2], tf.float64)])
    def energy_and_gradient(values):
        energy = bending_energy(None, values)
        return energy, tf.gradients(energy, values)[0]

    energy, gradient = energy_and_gradient(flow)
    assert abs(energy[0] - bending_energy(None, flow)[0]) < 1e-12
    # The energy is quadratic in the flow: the flow times the gradient is twice the energy.
    assert abs(tf.reduce_sum(gradient * flow) - 2 * energy[0]) < 1e-9


@pytest.mark.parametrize("size", [(2, 8), (8, 2), (1, 1)], ids=str)
def test_a_flow_without_second_derivatives_is_refused(size):
    with pytest.raises(
        ValueError, match=r"flow has shape \(1, .*\): expected .*3 px a side at lea"
    ):
        bending_energy(None, np.zeros((1, *size, 2), np.float32))


# ---- local correlation ----


def by_numpy(fixed, warped, window):
    """Return the loss of images [height, width, channels] from its definition."""
    height, width, channels = fixed.shape
    before, values = (window - 1) // 2, []
    for row in range(height):
        for column in range(width):
            rows = slice(max(0, row - before), row - before + window)
            columns = slice(max(0, column - before), column - before + window)
            for channel in range(channels):
                f, w = (image[rows, columns, channel].ravel() for image in (fixed, warped))
                product = f.var() * w.var()
                covariance = ((f - f.mean()) * (w - w.mean())).mean()
                values.append(covariance**2 / product if product > 0 else 0.0)
    return 1 - np.mean(values)


@pytest.fixture
def noise():
    return np.random.default_rng(1).uniform(0, 1, (2, 12, 15, 2)).astype(np.float32)


@pytest.mark.parametrize("window", [3, 4, 9, 30])
def test_of_two_images_as_its_definition_says(window, noise, assert_close):
    other = (noise + np.random.default_rng(2).uniform(0, 1, noise.shape)).astype(np.float32) / 2
    received = local_correlation_loss(noise, other, window).numpy()
    assert received.shape == (2,)
    expected = [by_numpy(*pair, window) for pair in zip(noise, other, strict=True)]
    assert 0.2 < min(expected) < max(expected) < 0.8
    assert_close(received, np.array(expected), 1e-4)


def test_four_pixels_by_hand():
    """Every window holds all four: cov 1/8, variances 1/4 and 3/16, so r^2 = 1/3."""
    fixed = np.array([[0, 1], [0, 1]], np.float32).reshape(1, 2, 2, 1)
    warped = np.array([[0, 1], [0, 0]], np.float32).reshape(1, 2, 2, 1)
    assert abs(local_correlation_loss(fixed, warped, 3)[0] - 2 / 3) < 1e-6
    crossed = np.array([[0, 0], [1, 1]], np.float32).reshape(1, 2, 2, 1)
    assert abs(local_correlation_loss(fixed, crossed, 3)[0] - 1) < 1e-6
    assert abs(local_correlation_loss(fixed, fixed, 3)[0]) < 1e-6


@pytest.mark.parametrize(("contrast", "brightness"), [(1, 0), (0.5, 0.3), (-0.7, 0.9), (0.1, 0.45)])
def test_images_equal_up_to_brightness_and_contrast_are_alike(contrast, brightness, noise):
    received = local_correlation_loss(noise, contrast * noise + brightness).numpy()
    assert np.abs(received).max() < 1e-3


def test_an_image_pushed_out_of_the_frame_is_no_match(noise):
    """It is flat, and so is nothing that it could be correlated with."""
    other = noise + np.random.default_rng(3).uniform(0, 1, noise.shape).astype(np.float32)
    for level in (0.0, 0.5, 1.0):
        flat = np.full_like(noise, level)
        assert np.abs(local_correlation_loss(noise, flat) - 1).max() < 1e-3
        assert np.abs(local_correlation_loss(flat, noise) - 1).max() < 1e-3
        assert np.abs(local_correlation_loss(flat, flat) - 1).max() < 1e-3
    assert (local_correlation_loss(noise, other) < 0.8).numpy().all()


def test_gradients_are_finite_where_an_image_is_flat(noise):
    half = noise.copy()
    half[:, :, :8] = 0
    with tf.GradientTape() as tape:
        warped = tf.constant(half)
        tape.watch(warped)
        total = tf.reduce_sum(local_correlation_loss(noise, warped))
    gradient = tape.gradient(total, warped)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 1e-5


@pytest.mark.parametrize("loss", [bending_energy, local_correlation_loss])
def test_losses_are_known_by_their_names_to_keras(loss):
    config = keras.saving.serialize_keras_object(loss)
    assert keras.saving.deserialize_keras_object(config) is loss
