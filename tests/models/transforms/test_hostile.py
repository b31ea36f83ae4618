"""Every transform with a theta that nobody should feed it: the image read stays finite."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from stnkit.models import (
    Affine,
    Attention,
    DenseFlow,
    DiffeomorphicFlow,
    Projective,
    Similarity,
    SpatialTransformer,
    ThinPlateSpline,
    Translation,
)

HOSTILE = [np.nan, np.inf, -np.inf, 1e30, -1e30, 3e38, 1e-45, 0.0]
FAMILIES = [
    Translation(),
    Attention(),
    Similarity(),
    Affine(),
    Projective(),
    ThinPlateSpline(3),
    DenseFlow((5, 4)),
    DenseFlow((2, 3)),
    DiffeomorphicFlow((5, 4), 3),
    DiffeomorphicFlow((2, 3), 2),
]
every_family = pytest.mark.parametrize("transform", FAMILIES, ids=repr)
image = np.random.default_rng(1).uniform(0.25, 1, (1, 5, 4, 2)).astype(np.float32)


def hostile_thetas(transform):
    """Return one theta for each hostile value in some place, and for each in all places."""
    count = transform.num_params
    identity = transform.identity().ravel()
    places = range(0, count, max(1, count // 6))
    thetas = [
        np.where(np.arange(count) == place, value, identity)
        for place in places
        for value in HOSTILE
    ]
    thetas += [np.full(count, value) for value in HOSTILE]
    return np.array(thetas, np.float32)


@every_family
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
def test_image_stays_finite(transform, interpolation, padding_mode):
    thetas = hostile_thetas(transform)
    images = np.repeat(image, len(thetas), axis=0)
    for align_corners in (False, True):
        layer = SpatialTransformer(
            output_size=(5, 4),
            interpolation=interpolation,
            padding_mode=padding_mode,
            align_corners=align_corners,
            transform=transform,
        )
        received = layer([images, thetas]).numpy()
        assert received.shape == images.shape
        assert np.isfinite(received).all()
        overshoot = 0.5 if interpolation == "bicubic" else 1e-6
        assert received.max() <= image.max() + overshoot
        assert received.min() >= (0 if padding_mode == "zeros" else image.min()) - overshoot


@every_family
def test_hostile_theta_leaves_the_rest_of_the_batch_alone(transform):
    near = transform.identity() + np.float32(0.07)
    layer = SpatialTransformer(transform=transform)
    images = np.repeat(image, 3, axis=0)
    alone = layer([images, np.stack([near] * 3)]).numpy()
    for value in HOSTILE:
        thetas = np.stack([near, np.full_like(near, value), near])
        received = layer([images, thetas]).numpy()
        assert np.array_equal(received[[0, 2]], alone[[0, 2]])


@every_family
def test_graph_of_open_sizes_equals_eager(transform):
    layer = SpatialTransformer(transform=transform, padding_mode="border")
    shape = [None, transform.num_params]

    @tf.function(input_signature=[tf.TensorSpec([None] * 3 + [2]), tf.TensorSpec(shape)])
    def graph(images, thetas):
        return layer([images, thetas])

    thetas = hostile_thetas(transform)
    near = transform.identity().ravel() + np.random.default_rng(2).normal(
        0, 0.1, (3, transform.num_params)
    )
    for height, width, given in ((5, 4, thetas), (5, 4, near), (7, 9, near), (1, 1, near)):
        given = given.astype(np.float32)
        images = np.random.default_rng(height).uniform(0, 1, (len(given), height, width, 2))
        images = images.astype(np.float32)
        received = graph(images, given).numpy()
        assert np.isfinite(received).all()
        if given is not thetas:
            assert np.abs(received - layer([images, given])).max() < 1e-5
    assert graph.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("transform", FAMILIES[4:8] + FAMILIES[9:], ids=repr)
def test_xla_equals_eager(transform, assert_close, tolerances):
    layer = SpatialTransformer(transform=transform)
    compiled = tf.function(lambda images, thetas: layer([images, thetas]), jit_compile=True)
    rng = np.random.default_rng(3)
    theta = transform.identity() + rng.normal(0, 0.1, (2, *transform.theta_shape))
    theta, images = theta.astype(np.float32), np.repeat(image, 2, axis=0)
    expected = layer([images, theta]).numpy()
    assert_close(compiled(images, theta).numpy(), expected, tolerances.sample)
