"""Segmentation in a canonical frame, pasted back into the original one."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from stnkit.models import (
    DenseFlow,
    Similarity,
    ThinPlateSpline,
    grid_sample,
    read_transformers,
)
from stnkit.models.zoo import segmentation_network
from stnkit.models.zoo.segmentation import FillBackground

SIDE, FRAME = 32, 16


def network(theta=None, transform="similarity", classes=2, **options):
    """Return a network whose theta is the given one for every image."""
    keras.utils.set_random_seed(1)
    shape = options.pop("input_shape", (SIDE, SIDE, 1))
    model = segmentation_network(shape, classes, (FRAME, FRAME), transform, (4, 8), **options)
    if theta is not None:
        model.get_layer("theta_head").dense.bias.assign(theta)
    return model


def pasted(model, frame, theta):
    """Return the probabilities [height, width, classes] of a frame [16, 16, classes]."""
    frame = np.asarray(frame, np.float32)[np.newaxis]
    back = model.get_layer("paste_back")([frame, np.array([theta], np.float32)])
    return model.get_layer("probabilities")(back).numpy()[0]


# Where in the image the frame is: half of its side, pixel upon pixel.
QUARTER = (0.5, 0.0, 0.5, -0.5)  # upper right
TURNED = (0.0, 0.5, -0.5, 0.5)  # lower left, by 90 degrees


def test_a_mask_of_the_frame_lands_where_the_frame_was(assert_close, tolerances):
    mask = np.random.default_rng(2).uniform(0, 1, (FRAME, FRAME, 1))
    frame = np.concatenate([1 - mask, mask], -1)
    expected = np.zeros((SIDE, SIDE))
    expected[:FRAME, FRAME:] = mask[..., 0]
    received = pasted(network(), frame, QUARTER)
    assert_close(received[..., 1], expected, tolerances.exact)
    assert_close(received[..., 0], 1 - expected, tolerances.exact)


def test_a_frame_that_was_turned_is_turned_back(assert_close, tolerances):
    """The frame shows the image by 90 degrees; where it looked, it is pasted."""
    image = np.random.default_rng(3).uniform(0, 1, (1, SIDE, SIDE, 1)).astype(np.float32)
    model = network(TURNED)
    family = model.get_layer("spatial_transformer").transform
    # Not what the layer shows, which is smoothed before it is made smaller.
    grid = family.grid(np.array([TURNED], np.float32), (FRAME, FRAME))
    seen = grid_sample(image, grid).numpy()[0, ..., 0]
    corner = image[0, FRAME:, :FRAME, 0]
    assert_close(seen, np.rot90(corner, 1), tolerances.exact)
    assert np.array_equal(read_transformers(model, image)[0].theta, [np.float32(TURNED)])
    received = pasted(model, np.stack([1 - seen, seen], -1), TURNED)
    expected = np.zeros((SIDE, SIDE))
    expected[FRAME:, :FRAME] = corner
    assert_close(received[..., 1], expected, tolerances.exact)


def test_one_pixel_of_the_frame(assert_close, tolerances):
    frame = np.zeros((FRAME, FRAME, 3))
    frame[..., 0] = 1
    frame[3, 5] = [0.125, 0.25, 0.625]
    received = pasted(network(classes=3), frame, QUARTER)
    expected = np.zeros((SIDE, SIDE, 3))
    expected[..., 0] = 1
    expected[3, FRAME + 5] = [0.125, 0.25, 0.625]
    assert_close(received, expected, tolerances.exact)


def test_the_whole_network_finds_its_frame(draw, assert_close):
    """A last layer that calls all of the frame an object: its place is what comes out."""
    model = network(QUARTER)
    last = model.get_layer("frame_probabilities")
    last.set_weights([np.zeros_like(last.get_weights()[0]), np.array([0, 30], np.float32)])
    received = model(draw(model)).numpy()
    expected = np.zeros((2, SIDE, SIDE))
    expected[:, :FRAME, FRAME:] = 1
    assert_close(received[..., 1], expected, 1e-5)


def test_a_frame_of_half_the_resolution_is_interpolated_and_fades_at_its_border():
    """The identity: 16 px over 32. A border is half covered where its last pixel fades."""
    model = network()
    frame = np.zeros((FRAME, FRAME, 2))
    frame[..., 1] = 1
    object_ = pasted(model, frame, (1, 0, 0, 0))[..., 1]
    assert np.abs(object_[1:-1, 1:-1] - 1).max() < 1e-6
    assert np.abs(object_[0, 1:-1] - 0.75).max() < 1e-6


def test_outside_of_the_frame_is_background(draw, disturb):
    model = disturb(network(classes=4, transform="attention"), 0.1)
    head = model.get_layer("theta_head").dense
    head.set_weights([np.zeros_like(head.get_weights()[0]), np.array([0.25, 0.5, 0.5], "f4")])
    received = model(draw(model)).numpy()
    assert np.abs(received.sum(-1) - 1).max() < 1e-6
    outside = np.ones((SIDE, SIDE), bool)
    outside[19:29, 19:29] = False  # centre 24, 8 px a side, and a pixel of fading around
    assert np.abs(received[:, outside] - [1, 0, 0, 0]).max() < 1e-6
    assert (received[:, 21:27, 21:27, 1:] > 1e-3).all()


def test_probabilities_of_any_theta_add_up_to_one(draw, disturb):
    for seed in range(3):
        model = disturb(network(transform=None, classes=3, input_shape=(24, 40, 3)), 0.3, seed)
        received = model(draw(model, seed=seed)).numpy()
        assert received.shape == (2, 24, 40, 3)
        assert np.abs(received.sum(-1) - 1).max() < 1e-6
        assert received.min() > -1e-6


def test_the_default_is_a_similarity_whose_scale_has_bounds(draw):
    model = segmentation_network()
    family = model.get_layer("spatial_transformer").transform
    assert isinstance(family, Similarity)
    rng = np.random.default_rng(4)
    raw = tf.constant(rng.normal(0, 100, (1000, 4)), tf.float32)
    a, b, *shift = np.moveaxis(family.bounded(raw).numpy(), -1, 0)
    assert 0.19 < np.hypot(a, b).min()
    assert np.hypot(a, b).max() < 2.02
    assert np.abs(shift).max() < 0.81


def test_all_parts_of_the_network_learn(draw):
    model = network(transform=None)
    images = draw(model)
    with tf.GradientTape() as tape:
        probabilities = model(images, training=True)
        total = tf.reduce_mean(-tf.math.log(probabilities[:, 8:20, 8:20, 1] + 1e-3))
    gradients = tape.gradient(total, model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None, variable.path
        assert np.isfinite(gradient).all(), variable.path
    heads = [
        g for v, g in zip(model.trainable_variables, gradients, strict=True) if "theta" in v.path
    ]
    assert len(heads) == 2
    assert all(np.abs(gradient).max() > 0 for gradient in heads)


def test_background_by_hand(tmp_path):
    layer = FillBackground(name="fill", dtype="mixed_float16")
    received = layer(np.array([[[[0.5, 0.25, 0.125], [0, 0, 0]]]], np.float32))
    assert received.dtype == tf.float32
    assert received.numpy().tolist() == [[[[0.625, 0.25, 0.125], [1, 0, 0]]]]
    model = keras.Sequential([keras.Input((2, 3, 4)), layer])
    assert model.output_shape == (None, 2, 3, 4)
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").get_layer("fill").dtype == "float32"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"transform": ThinPlateSpline(3)}, "ThinPlateSpline has no inverse in closed form"),
        ({"transform": DenseFlow((4, 4))}, "DenseFlow has no inverse in closed form"),
        ({"transform": "bend"}, "transform is 'bend'"),
        ({"classes": 1}, "classes is 1: expected the background and one more, at least"),
        ({"classes": 0}, "classes is 0"),
        ({"frame_size": (30, 32)}, r"frame_size is \(30, 32\): expected multiples of 4"),
        ({"frame_size": 32}, "frame_size is 32: expected"),
        ({"filters": ()}, r"filters is \(\): expected the channels of 1 or more levels"),
        ({"filters": 16}, "filters is 16: expected the channels"),
        ({"filters": (16, 0)}, r"filters is \(16, 0\)"),
        ({"input_shape": (64, 64)}, r"input_shape is \(64, 64\)"),
    ],
    ids=str,
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        segmentation_network(**arguments)
