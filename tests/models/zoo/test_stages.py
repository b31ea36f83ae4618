"""Transformers in sequence: composed and sampled once, or sampled each."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from stnkit.models import Affine, affine_grid, grid_sample, localization_cnn, read_transformers
from stnkit.models.zoo import transformer_stages
from stnkit.models.zoo.stages import localization_for

SHAPE = (12, 10, 2)


def stages(count=2, shape=SHAPE, **options):
    keras.utils.set_random_seed(1)
    image = keras.Input(shape, name="image")
    return keras.Model(image, transformer_stages(image, count, **options))


def stir(model):
    """Give the theta heads weights, so that every image has thetas of its own."""
    rng = np.random.default_rng(2)
    for variable in model.variables:
        if "theta" in variable.path:
            variable.assign_add(rng.normal(0, 0.15, variable.shape))
    return model


@pytest.fixture
def images():
    return np.random.default_rng(3).uniform(0, 1, (3, *SHAPE)).astype(np.float32)


def square(theta):
    """Return [batch, 3, 3] float64 for affine thetas [batch, 2, 3]."""
    last = np.tile([[[0.0, 0.0, 1.0]]], (len(theta), 1, 1))
    return np.concatenate([np.asarray(theta, np.float64), last], 1)


def sampled(images, theta, size=SHAPE[:2], padding_mode="zeros"):
    grid = affine_grid(np.asarray(theta, np.float32), size)
    return grid_sample(images, grid, padding_mode=padding_mode).numpy()


@pytest.mark.parametrize("count", [2, 3])
def test_once_samples_the_image_by_the_product_of_the_thetas(
    count, images, assert_close, tolerances
):
    model = stir(stages(count))
    seen = read_transformers(model, images)
    assert [found.layer for found in seen] == [f"spatial_transformer_{n + 1}" for n in range(count)]
    product, looked_at = np.tile(np.eye(3), (3, 1, 1)), images
    for number, found in enumerate(seen, start=1):
        features = model.get_layer(f"localization_{number}")(looked_at)
        step = model.get_layer(f"theta_head_{number}")(features).numpy()
        assert np.abs(step - Affine().identity()).max() > 0.05
        product = product @ square(step)
        assert_close(square(found.theta), product, tolerances.grid)
        assert_close(found.warped, sampled(images, product[:, :2]), tolerances.sample)
        looked_at = found.warped  # each stage sees what the former made
    assert_close(model(images).numpy(), seen[-1].warped, tolerances.sample)


@pytest.mark.parametrize("count", [2, 3])
def test_each_samples_what_the_former_made(count, images, assert_close, tolerances):
    model = stir(stages(count, resampling="each"))
    seen = read_transformers(model, images)
    assert [found.layer for found in seen] == [f"spatial_transformer_{n + 1}" for n in range(count)]
    image = images
    for found in seen:
        layer = model.get_layer(found.layer)
        theta = layer.theta_head(layer.localization_net(image)).numpy()
        assert_close(found.theta, theta, tolerances.grid)
        image = sampled(image, theta)
        assert_close(found.warped, image, tolerances.sample)
    assert_close(model(images).numpy(), image, tolerances.sample)


def test_once_blurs_once_and_keeps_what_the_first_stage_pushed_out():
    """Half the width to the left and back: the second form has lost half of the image."""
    image = np.random.default_rng(4).uniform(0.5, 1, (1, 8, 8, 1)).astype(np.float32)
    for resampling, kept in (("once", 8), ("each", 4)):
        model = stages(2, (8, 8, 1), transform="translation", resampling=resampling)
        shifts = iter([[1, 0], [-1, 0]])
        for variable in model.variables:
            if "theta" in variable.path and variable.path.endswith("bias"):
                variable.assign(next(shifts))
        received = model(image).numpy()
        assert np.array_equal(received[:, :, 8 - kept :], image[:, :, 8 - kept :])
        assert not received[:, :, : 8 - kept].any()


@pytest.mark.parametrize(
    ("resampling", "names"),
    [
        ("once", ["localization", "theta_head", "spatial_transformer"]),
        ("each", ["spatial_transformer"]),
    ],
)
def test_a_single_stage_has_no_number(resampling, names, images, assert_close, tolerances):
    model = stages(1, resampling=resampling)
    assert [layer.name for layer in model.layers] == ["image", *names]
    assert_close(model(images).numpy(), images, tolerances.sample)


def test_names_of_the_layers():
    once = {layer.name for layer in stages(2).layers}
    numbered = ("localization", "theta_head", "spatial_transformer")
    assert once == {"image", "compose_2", *(f"{name}_{n}" for name in numbered for n in (1, 2))}
    each = stages(2, resampling="each").layers
    assert [layer.name for layer in each] == [
        "image",
        "spatial_transformer_1",
        "spatial_transformer_2",
    ]
    assert [layer.localization_net.name for layer in each[1:]] == [
        "localization_1",
        "localization_2",
    ]


@pytest.mark.parametrize("resampling", ["once", "each"])
def test_output_size_and_options_reach_every_stage(resampling, images, assert_close, tolerances):
    options = {"output_size": (6, 5), "padding_mode": "border", "resampling": resampling}
    model = stir(stages(2, **options, localization_lr_multiplier=0.5))
    assert model.output_shape == (None, 6, 5, 2)
    seen = read_transformers(model, images)
    source = images if resampling == "once" else seen[0].warped
    expected = sampled(source, seen[1].theta, (6, 5), "border")
    assert_close(seen[1].warped, expected, tolerances.sample)
    for number in (1, 2):
        layer = model.get_layer(f"spatial_transformer_{number}")
        assert layer.output_size == (6, 5)
        assert layer.localization_lr_multiplier == 0.5


@pytest.mark.parametrize("transform", ["similarity", "projective", Affine(bounds=0.5)], ids=str)
@pytest.mark.parametrize("resampling", ["once", "each"])
def test_every_theta_head_gets_a_gradient(resampling, transform, images):
    model = stages(3, resampling=resampling, transform=transform)
    weights = np.random.default_rng(5).normal(size=(3, *SHAPE)).astype(np.float32)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(weights * model(images, training=True))
    heads = [variable for variable in model.trainable_variables if "theta" in variable.path]
    assert len(heads) == 6
    for gradient in tape.gradient(total, heads):
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0


def test_localisation_networks_of_the_users_own():
    asked = []

    def make(number):
        asked.append(number)
        return localization_cnn((2,), 3 + number, name=f"look_{number}")

    model = stages(2, make_localization_net=make)
    assert asked == [0, 1]
    assert model.get_layer("look_1").output_shape == (None, 4)


@pytest.mark.parametrize(
    ("height", "width", "blocks", "side"),
    [
        (28, 28, 2, 7),
        (224, 224, 5, 7),
        (64, 200, 3, 8),
        (13, 99, 1, 7),
        (1, 1, 1, 1),
        (2048,) * 2 + (8, 8),
    ],
)
def test_the_default_network_does_not_grow_with_the_image(height, width, blocks, side):
    net = localization_for(height, width, "look")
    net.build((None, height, width, 1))
    convolutions = [part for part in net.layers if isinstance(part, keras.layers.Conv2D)]
    assert len(convolutions) == blocks
    assert min(convolutions[-1].output.shape[1:3]) == side
    assert net.output_shape == (None, 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "transformers is 0: expected an integer of at least 1"),
        ({"count": True}, "transformers is True"),
        ({"count": 2.0}, "transformers is 2.0"),
        ({"resampling": "twice"}, "resampling is 'twice': expected one of 'once', 'each'"),
        ({"transform": "bend"}, "transform is 'bend'"),
        ({"transform": "thin_plate_spline"}, "ThinPlateSpline cannot be composed into one theta"),
        ({"padding_mode": "wrap"}, "padding_mode is 'wrap'"),
        ({"output_size": (0, 4)}, "output_size is"),
    ],
    ids=str,
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        stages(**arguments)


def test_what_cannot_be_composed_can_be_sampled_each():
    assert stages(2, transform="thin_plate_spline", resampling="each").output_shape == (
        None,
        *SHAPE,
    )
    assert stages(1, transform="thin_plate_spline").output_shape == (None, *SHAPE)
