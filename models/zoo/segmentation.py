"""Segmentation in a canonical frame: transform, segment, transform back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from stnkit.models.inverse_layer import InverseSpatialTransformer
from stnkit.models.layer import SpatialTransformer
from stnkit.models.shapes import check_output_size
from stnkit.models.theta_head import ThetaHead
from stnkit.models.transforms.linear import Similarity
from stnkit.models.transforms.registry import as_transform
from stnkit.models.zoo.arguments import check_count, check_filters, check_input_shape
from stnkit.models.zoo.stages import image_input, localization_for
from stnkit.models.zoo.unet import unet

# The rotated, scaled part stays away from the zero that has no inverse.
_BOUNDS = (0.8, 0.9, 0.8, 0.8)


def segmentation_network(
    input_shape: Any = (64, 64, 1),
    classes: int = 2,
    frame_size: Any = (32, 32),
    transform: Any = None,
    filters: Sequence[int] = (16, 32, 64),
) -> Any:
    """Return a network that labels every pixel, looking at the image in a frame of its own choice.

    A transformer brings the object into a small canonical frame, a U-Net segments it there, and the
    probabilities are pasted back into the original frame by the inverse. Where the frame did not
    reach, the pixel is background.

    Args:
        input_shape: `(height, width, channels)`.
        classes: How many classes there are, the background (class 0) included, at least 2.
        frame_size: `(height, width)` of the canonical frame, px: multiples of
            2 ** (len(filters) - 1).
        transform: What theta means; one with an inverse. None: a similarity with bounds, whose
            scale stays between 0.2 and 2.
        filters: Channels of the U-Net's levels, the finest first.

    Returns:
        Functional model from "image" `[batch, *input_shape]` float32 in [0, 1] to "probabilities"
        `[batch, height, width, classes]`, which add up to 1 at every pixel.

    Raises:
        ValueError: If an argument is wrong, or the transform has no inverse.

    Source:
        Jaderberg et al. 2015 (transformer); Ronneberger et al. 2015 (U-Net).
    """
    shape = check_input_shape(input_shape)
    if check_count(classes, "classes") < 2:
        raise ValueError(f"classes is {classes!r}: expected the background and one more, at least")
    filters = check_filters(filters, 1)
    frame = check_output_size(frame_size, "frame_size")
    multiple = 2 ** (len(filters) - 1)
    if frame[0] % multiple or frame[1] % multiple:
        raise ValueError(f"frame_size is {frame}: expected multiples of {multiple}")
    family = Similarity(bounds=_BOUNDS) if transform is None else as_transform(transform)
    image = image_input(shape)
    seen = localization_for(shape[0], shape[1], "localization")(image)
    theta = ThetaHead(family, name="theta_head")(seen)
    into = SpatialTransformer(
        transform=family, output_size=frame, antialias=True, name="spatial_transformer"
    )
    features = unet(into([image, theta]), filters)
    inside = keras.layers.Conv2D(
        classes, 1, activation="softmax", dtype="float32", name="frame_probabilities"
    )(features)
    back = InverseSpatialTransformer(
        transform=family, output_size=shape[:2], dtype="float32", name="paste_back"
    )
    pasted = back([inside, theta])
    probabilities = FillBackground(name="probabilities")(pasted)
    return keras.Model(image, probabilities, name="segmentation")


@keras.saving.register_keras_serializable(package="stnkit")
class FillBackground(keras.layers.Layer):
    """Give class 0 what the probabilities of a pixel lack of 1: the part that nothing covers.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)

    def call(self, pasted: Any) -> Any:
        """Return probabilities `[batch, height, width, classes]` that add up to 1."""
        others = pasted[..., 1:]
        background = 1.0 - keras.ops.sum(others, axis=-1, keepdims=True)
        return keras.ops.concatenate([background, others], axis=-1)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """Return the shape of the probabilities."""
        return tuple(input_shape)
