"""The paper's networks for distorted MNIST: with and without a transformer, of one size."""

from __future__ import annotations

import math
from typing import Any

import keras

from stnkit.models.layer import SpatialTransformer
from stnkit.models.transforms.registry import as_transform
from stnkit.models.zoo.arguments import check_choice, check_count, check_input_shape

KINDS = ("fcn", "cnn", "st_fcn", "st_cnn")


def paper_network(
    kind: str = "st_cnn",
    transform: Any = "affine",
    input_shape: Any = (42, 42, 1),
    classes: int = 10,
    parameters: int = 400_000,
) -> Any:
    """Return one of the four networks that the paper compares on distorted digits.

    "fcn" has three fully connected layers and "cnn" two convolutions (9x9 and 7x7, each with 2x2
    max pooling) and a dense layer. "st_fcn" and "st_cnn" have a spatial transformer in front, with
    a localisation network of the same kind. The width of the layers is chosen so that all of them
    have about the same number of parameters: what a transformer needs, the classifier gives up.

    Args:
        kind: "fcn", "cnn", "st_fcn" or "st_cnn".
        transform: What theta means: the paper has "affine", "projective" and "thin_plate_spline"
            (16 control points). Without a transformer in the network it has no effect.
        input_shape: `(height, width, channels)`; the paper's distorted digits are 42x42.
        classes: How many classes there are.
        parameters: About how many parameters there shall be in all.

    Returns:
        `keras.Sequential` from "image" `[batch, *input_shape]` float32 in [0, 1] to "probabilities"
        `[batch, classes]`.

    Raises:
        ValueError: If an argument is wrong, or there are too few parameters for such an image.

    Source:
        Jaderberg et al. 2015, section 4.1 and appendix A.4.
    """
    check_choice(kind, "kind", KINDS)
    shape = check_input_shape(input_shape)
    check_count(classes, "classes")
    check_count(parameters, "parameters")
    family = as_transform(transform)
    convolutional = kind.endswith("cnn")
    front: list[Any] = []
    if kind.startswith("st_"):
        net = _conv_localization() if convolutional else _dense_localization()
        layer = SpatialTransformer(net, transform=family, name="spatial_transformer")
        layer.build((None, *shape))
        parameters -= layer.count_params()
        front = [layer]
    if convolutional:
        classifier = _conv_classifier(shape, classes, parameters)
    else:
        classifier = _dense_classifier(shape, classes, parameters)
    return keras.Sequential(
        [keras.Input(shape, name="image"), *front, *classifier], name=f"paper_{kind}"
    )


def _dense_localization() -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Flatten(name="look_flatten"),
            *(layers.Dense(32, activation="relu", name=f"look{i}") for i in (1, 2, 3)),
        ],
        name="localization",
    )


def _conv_localization() -> Any:
    layers = keras.layers
    parts: list[Any] = []
    for number in (1, 2):
        parts.append(layers.MaxPooling2D(2, padding="same", name=f"look{number}_pool"))
        parts.append(layers.Conv2D(20, 5, padding="same", activation="relu", name=f"look{number}"))
    parts.append(layers.Flatten(name="look_flatten"))
    parts.append(layers.Dense(20, activation="relu", name="look_dense"))
    return keras.Sequential(parts, name="localization")


def _width(parameters: int, quadratic: float, linear: float) -> int:
    """Return the largest n with quadratic * n^2 + linear * n <= parameters.

    Raises:
        ValueError: If not even 1 fits.
    """
    width = 0
    if parameters > 0:
        root = math.sqrt(linear**2 + 4 * quadratic * parameters)
        width = int((root - linear) / (2 * quadratic))
    if width < 1:
        raise ValueError(
            f"parameters leaves {parameters} for the classifier: expected more of them for an "
            "image of this size"
        )
    return width


def _dense_classifier(shape: tuple[int, int, int], classes: int, parameters: int) -> list[Any]:
    layers = keras.layers
    width = _width(parameters - classes, 1, math.prod(shape) + classes + 2)
    return [
        layers.Flatten(name="flatten"),
        layers.Dense(width, activation="relu", name="dense1"),
        layers.Dense(width, activation="relu", name="dense2"),
        layers.Dense(classes, activation="softmax", name="probabilities"),
    ]


def _conv_classifier(shape: tuple[int, int, int], classes: int, parameters: int) -> list[Any]:
    layers = keras.layers
    height, width = (((size - 8) // 2 - 6) // 2 for size in shape[:2])
    if min(height, width) < 1:
        raise ValueError(
            f"input_shape is {shape}: convolutions of 9x9 and 7x7 px with pooling leave nothing of "
            "it; expected at least 24x24"
        )
    linear = 81 * shape[2] + height * width * classes + 2
    filters = _width(parameters - classes, 49, linear)
    return [
        layers.Conv2D(filters, 9, activation="relu", name="conv1"),
        layers.MaxPooling2D(2, name="pool1"),
        layers.Conv2D(filters, 7, activation="relu", name="conv2"),
        layers.MaxPooling2D(2, name="pool2"),
        layers.Flatten(name="flatten"),
        layers.Dense(classes, activation="softmax", name="probabilities"),
    ]
