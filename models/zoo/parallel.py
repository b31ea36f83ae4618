"""Parallel transformers: several crops of one image, looked at side by side."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from stnkit.models.layer import SpatialTransformer
from stnkit.models.shapes import check_output_size
from stnkit.models.theta_head import ThetaHead
from stnkit.models.transforms.linear import Attention
from stnkit.models.zoo.arguments import check_count, check_input_shape
from stnkit.models.zoo.backbone import classifier, make_backbone
from stnkit.models.zoo.stages import image_input, localization_for


def parallel_network(
    crops: int = 2,
    backbone: str = "MobileNetV2",
    input_shape: Any = (224, 224, 3),
    output_size: Any = (112, 112),
    classes: int = 200,
    shared: bool = True,
    weights: Any = None,
    trainable: bool | str | None = None,
    dropout: float = 0.5,
) -> Any:
    """Return a classifier that looks at several attention crops of its image.

    One localisation network gives the thetas of all crops; a backbone turns each crop into a
    feature vector, and the vectors are concatenated and classified. The crops start as tiles of the
    image, half as long as its sides, so that no two of them learn the same.

    Args:
        crops: How many.
        backbone: Name in `keras.applications`.
        input_shape: `(height, width, 3)`.
        output_size: `(height, width)` of a crop as the backbone sees it, px.
        classes: How many classes there are.
        shared: Whether one backbone looks at all crops, or each has its own.
        weights: None, "imagenet" or the path of a weights file without top.
        trainable: As in `backbone_network`.
        dropout: Fraction of features dropped before the last layer.

    Returns:
        Functional model from "image" `[batch, *input_shape]` float32 in [0, 1] to "probabilities"
        `[batch, classes]`; the transformers are called `crop_1` and so on.

    Raises:
        ValueError: If an argument is wrong, or the weights cannot be had.

    Source:
        Jaderberg et al. 2015, section 4.3 (2xST-CNN and 4xST-CNN on birds).
    """
    check_count(crops, "crops")
    check_count(classes, "classes")
    shape = check_input_shape(input_shape, channels=3)
    size = check_output_size(output_size)
    image = image_input(shape)
    attention = Attention()
    seen = localization_for(shape[0], shape[1], "localization")(image)
    vectors = []
    network, pixels = make_backbone(backbone, (*size, 3), weights, trainable)
    average = keras.layers.GlobalAveragePooling2D(name="average")
    stem = network.name
    for number, start in enumerate(tiles(crops), start=1):
        theta = ThetaHead(attention, start, name=f"theta_head_{number}")(seen)
        crop = SpatialTransformer(transform=attention, output_size=size, name=f"crop_{number}")(
            [image, theta]
        )
        if not shared:
            if number > 1:
                network, _ = make_backbone(backbone, (*size, 3), weights, trainable)
            network.name = f"{stem}_{number}"
        vectors.append(average(network(pixels(crop))))
    joined = keras.layers.Concatenate(name="features")(vectors) if crops > 1 else vectors[0]
    probabilities = classifier(joined, classes, None, dropout)
    return keras.Model(image, probabilities, name=f"parallel_{backbone.lower()}")


def tiles(count: int) -> list[tuple[float, float, float]]:
    """Return thetas (s, tx, ty) of crops of half the side, spread evenly over the image."""
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    tiles = []
    for index in range(count):
        row, column = divmod(index, columns)
        tiles.append((0.5, _middle(column, columns), _middle(row, rows)))
    return tiles


def _middle(index: int, count: int) -> float:
    """Return the middle of one of `count` tiles in a row, the outer ones at the image's edges."""
    return float(np.linspace(-0.5, 0.5, count)[index]) if count > 1 else 0.0
