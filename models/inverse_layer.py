"""The Keras layer that puts a warped image back where it came from."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from stnkit.models.sampling.grid_sample import (
    check_flag,
    check_image,
    check_image_shape,
    check_modes,
    check_pair,
)
from stnkit.models.sampling.training_form import training_form
from stnkit.models.shapes import check_output_size
from stnkit.models.transforms.registry import as_transform, describe
from stnkit.models.warping import WarpOptions, warp_image


@keras.saving.register_keras_serializable(package="stnkit")
class InverseSpatialTransformer(keras.layers.Layer):
    """Warp an image by the inverse of a theta: paste a result back into the original frame.

    Called on `[image, theta]` with the theta that the `SpatialTransformer` used. What the
    transformer cut away stays empty, as `padding_mode` says.

    Args:
        output_size: `(height, width)` of the original frame, px; None keeps the input's.
        interpolation: As in `SpatialTransformer`.
        padding_mode: As in `SpatialTransformer`.
        align_corners: As in `SpatialTransformer`.
        transform: The transformer's own; it must have an inverse.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If a mode or the transform is unknown, the transform has no inverse, or a size
            is not positive.
    """

    def __init__(
        self,
        output_size: Any = None,
        interpolation: str = "bilinear",
        padding_mode: str = "zeros",
        align_corners: bool = False,
        transform: Any = "affine",
        **kwargs: Any,
    ) -> None:
        # Keras would cast theta to half precision along with the image: `call` casts the image.
        kwargs["autocast"] = False
        super().__init__(**kwargs)
        check_modes(interpolation, padding_mode)
        self.transform = as_transform(transform)
        # Raises now if the family has no inverse.
        self.transform.inverse(tf.constant(self.transform.identity()[np.newaxis]))
        self.output_size = None if output_size is None else check_output_size(output_size)
        self.interpolation = interpolation
        self.padding_mode = padding_mode
        self.align_corners = check_flag(align_corners, "align_corners")

    def build(self, input_shape: Any) -> None:
        """Check the shapes of image and theta.

        Raises:
            ValueError: If they are not two that fit.
        """
        image, theta = check_pair(self.name, input_shape, "theta")
        check_image_shape(image)
        self.transform.check_theta_shape(theta)

    def call(self, inputs: Any, training: Any = None) -> Any:
        """Return the image in the original frame, for `inputs = [image, theta]`."""
        image, theta = inputs
        image = tf.cast(check_image(image), self.compute_dtype)
        options = WarpOptions(
            transform=self.transform,
            output_size=self.output_size,
            interpolation=self.interpolation,
            padding_mode=self.padding_mode,
            align_corners=self.align_corners,
            antialias=False,
        )
        with training_form(training):
            return warp_image(self.name, image, self.transform.inverse(theta), options)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """Return the shape of the result for the shapes of image and theta."""
        image, _ = input_shape
        return (image[0], *(self.output_size or image[1:3]), image[3])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        own = {
            "output_size": None if self.output_size is None else list(self.output_size),
            "interpolation": self.interpolation,
            "padding_mode": self.padding_mode,
            "align_corners": self.align_corners,
            "transform": describe(self.transform),
        }
        return {**super().get_config(), **own}
