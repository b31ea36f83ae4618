"""What `SpatialTransformer` refuses, and what it says: what came, and what was expected."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest

from stnkit.models import InverseSpatialTransformer, SpatialTransformer

IMAGE = np.zeros((2, 6, 7, 1), np.float32)
THETA = np.tile(np.array([[[1, 0, 0], [0, 1, 0]]], np.float32), (2, 1, 1))


def refused(*parts):
    """Expect a ValueError whose text has every part, in this order."""
    return pytest.raises(ValueError, match="(?s)" + ".*".join(re.escape(part) for part in parts))


def with_net(**arguments):
    return SpatialTransformer(keras.layers.Flatten(), **arguments)


@pytest.mark.parametrize("mode", ["cubic", "linear", "", None, 1, ["bilinear"]], ids=repr)
def test_unknown_interpolation(mode):
    with refused(f"interpolation is {mode!r}", "expected one of 'bilinear', 'nearest', 'bicubic'"):
        SpatialTransformer(interpolation=mode)


@pytest.mark.parametrize("mode", ["wrap", "constant", None, ["zeros"]], ids=repr)
def test_unknown_padding_mode(mode):
    with refused(f"padding_mode is {mode!r}", "expected one of 'zeros', 'border', 'reflection'"):
        SpatialTransformer(padding_mode=mode)


@pytest.mark.parametrize(
    "size", [(0, 3), (3, -1), (3,), (1, 2, 3), 28, "28", (2.0, 3), (True, 3), (None, 3)], ids=repr
)
def test_bad_output_size(size):
    with refused("output_size is", str(size), "expected (height, width)", "(28, 28)"):
        SpatialTransformer(output_size=size)


@pytest.mark.parametrize("net", [abs, "cnn", [keras.layers.Flatten()], keras.layers.Flatten])
def test_net_that_is_not_a_layer(net):
    with refused("localization_net is", repr(net), "expected a Keras layer or model"):
        SpatialTransformer(net)


@pytest.mark.parametrize(
    ("inputs", "received"),
    [
        (IMAGE, "(2, 6, 7, 1)"),
        ([IMAGE], "[(2, 6, 7, 1)]"),
        ([IMAGE, THETA, THETA], "[(2, 6, 7, 1), (2, 2, 3), (2, 2, 3)]"),
        ({"image": IMAGE, "theta": THETA}, "'theta': (2, 2, 3)"),
    ],
    ids=["image", "one", "three", "named"],
)
def test_wrong_inputs_without_a_net(inputs, received):
    with refused(received, "without a localization_net it takes [image, theta]"):
        SpatialTransformer()(inputs)


@pytest.mark.parametrize("inputs", [[IMAGE, THETA], [IMAGE], {"image": IMAGE}], ids=str)
def test_several_inputs_with_a_net(inputs):
    with refused("(2, 6, 7, 1)", "with a localization_net it takes the image alone"):
        with_net()(inputs)


@pytest.mark.parametrize("flag", ["align_corners", "antialias", "theta_head"])
@pytest.mark.parametrize("value", ["no", None, 1], ids=repr)
def test_flag_that_is_no_flag(flag, value):
    with refused(f"{flag} is {value!r}", "expected True or False"):
        SpatialTransformer(**{flag: value})


@pytest.mark.parametrize("factor", [-1, float("nan"), float("inf"), "0.1", None, True], ids=repr)
def test_bad_lr_multiplier(factor):
    with refused(f"localization_lr_multiplier is {factor!r}", "expected a number >= 0"):
        SpatialTransformer(localization_lr_multiplier=factor)


@pytest.mark.parametrize("make", [SpatialTransformer, InverseSpatialTransformer])
def test_shapes_are_checked_when_a_model_is_made(make):
    image = keras.Input((6, 7, 1))
    with refused("theta has shape (None, 5)", "Affine takes [batch, 2, 3] or [batch, 6]"):
        make()([image, keras.Input((5,))])
    with refused("theta has shape (None, 2, 3)", "Projective takes [batch, 8]"):
        make(transform="projective")([image, keras.Input((2, 3))])
    with refused("image has shape (None, 6, 7)", "expected [batch, height, width, channels]"):
        make()([keras.Input((6, 7)), keras.Input((6,))])


def test_antialias_of_open_sizes_is_refused_when_a_model_is_made():
    layer = SpatialTransformer(
        keras.layers.GlobalAveragePooling2D(), output_size=(3, 4), antialias=True
    )
    with refused("image has shape (None, None, 7, 1)", "(3, 4)", "known sizes"):
        layer(keras.Input((None, 7, 1)))


@pytest.mark.parametrize(
    ("inputs", "received"),
    [
        (IMAGE, "(2, 6, 7, 1)"),
        ([IMAGE], "[(2, 6, 7, 1)]"),
        ([IMAGE, THETA, THETA], "[(2, 6, 7, 1), (2, 2, 3), (2, 2, 3)]"),
        ({"image": IMAGE, "theta": THETA}, "'theta': (2, 2, 3)"),
    ],
    ids=["image", "one", "three", "named"],
)
def test_wrong_inputs_of_the_way_back(inputs, received):
    with refused("back was called on shape", received, "it takes [image, theta]"):
        InverseSpatialTransformer(name="back")(inputs)


def test_image_of_another_rank():
    with refused("(2, 6, 7)", "expected an image, [batch, height, width, channels]"):
        with_net()(IMAGE[..., 0])
    with refused("(2, 6, 7)", "expected [batch, height, width, channels]"):
        SpatialTransformer()([IMAGE[..., 0], THETA])


@pytest.mark.parametrize("make", [with_net, SpatialTransformer])
def test_image_of_integers(make):
    image = IMAGE.astype(np.uint8)
    with refused("dtype uint8", "expected a float type", "/ 255"):
        make()(image if make is with_net else [image, THETA])


@pytest.mark.parametrize("shape", [(2, 2, 2), (2, 3, 3), (2, 5), (2, 6, 1), (12,)], ids=str)
def test_theta_of_another_shape(shape):
    with refused(f"theta has shape {shape}", "[batch, 2, 3] or [batch, 6]"):
        SpatialTransformer()([IMAGE, np.zeros(shape, np.float32)])


def test_theta_of_integers():
    with refused("theta has dtype int64", "expected a float type"):
        SpatialTransformer()([IMAGE, THETA.astype(np.int64)])


@pytest.mark.parametrize("count", [1, 3])
def test_theta_for_another_number_of_images(count):
    theta = np.concatenate([THETA, THETA])[:count]
    with refused("(2, 6, 7, 1)", f"({count}, 2, 3)", "expected the same batch size"):
        SpatialTransformer()([IMAGE, theta])


@pytest.mark.parametrize("units", [5, 7])
def test_net_that_does_not_give_theta(units):
    net = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(units)])
    with refused(f"gives shape (None, {units})", "[batch, 6] or [batch, 2, 3]"):
        SpatialTransformer(net, theta_head=False)(IMAGE)


def test_features_of_unknown_size():
    model = keras.Input((None, 7, 1))
    with refused("features have shape", "None", "needs a fixed size", "global pooling"):
        with_net()(model)
