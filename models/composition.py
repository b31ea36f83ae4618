"""Keras layers on thetas: composing two of them, and seeing what one does to every pixel."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from stnkit.models.sampling.grid_sample import check_flag
from stnkit.models.shapes import check_output_size
from stnkit.models.transforms.base import base_axes
from stnkit.models.transforms.registry import as_transform, describe


@keras.saving.register_keras_serializable(package="stnkit")
class ComposeTheta(keras.layers.Layer):
    """Compose two thetas into one, so that the image is sampled once and not twice.

    Called on `[a, b]`: the result does what warping by `a` and then warping the result by `b` does.

    Args:
        transform: The family of both; one that can be composed.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If the transform is unknown or cannot be composed.

    Source:
        Lin and Lucey 2017, Inverse Compositional Spatial Transformer Networks, section 4: each
        stage reads the original image, so no pixel at the border is lost to the stage before.
    """

    def __init__(self, transform: Any = "affine", **kwargs: Any) -> None:
        # Composing is arithmetic on coordinates: never in half precision.
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.transform = as_transform(transform)
        identity = tf.constant(self.transform.identity()[None])
        self.transform.compose(identity, identity)  # raises now if the family cannot be composed

    def build(self, input_shape: Any) -> None:
        """Check the shapes of both thetas.

        Raises:
            ValueError: If they are not two of the transform.
        """
        several = not isinstance(input_shape, dict) and isinstance(input_shape[0], (list, tuple))
        if not several or len(input_shape) != 2:
            raise ValueError(
                f"{self.name} was called on shape {input_shape}: it takes [a, b], two thetas"
            )
        for shape in input_shape:
            self.transform.check_theta_shape(shape)

    def call(self, inputs: Any) -> Any:
        """Return the theta `[batch, *theta_shape]` of `inputs = [a, b]`."""
        a, b = inputs
        return self.transform.compose(a, b)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """Return the shape of theta."""
        return (input_shape[0][0], *self.transform.theta_shape)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "transform": describe(self.transform)}


@keras.saving.register_keras_serializable(package="stnkit")
class DisplacementField(keras.layers.Layer):
    """Return how far from its own place every output pixel is read: the grid less the identity's.

    Convention:
        (x, y) in normalised units, 2 is the whole side of the image. The pixel at p of the output
        is read at p + flow(p) of the input.

    Args:
        transform: What theta means.
        output_size: `(height, width)` of the field, px.
        align_corners: What -1 and 1 stand for.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If the transform is unknown or a size is not positive.
    """

    def __init__(
        self, transform: Any, output_size: Any, align_corners: bool = False, **kwargs: Any
    ) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.transform = as_transform(transform)
        self.output_size = check_output_size(output_size)
        self.align_corners = check_flag(align_corners, "align_corners")

    def build(self, input_shape: Any) -> None:
        """Check the shape of theta.

        Raises:
            ValueError: If it is not one of the transform.
        """
        self.transform.check_theta_shape(input_shape)

    def call(self, theta: Any) -> Any:
        """Return the field `[batch, height, width, 2]` of `theta`."""
        theta = self.transform.check_theta(theta)
        x, y = self.transform.planes(theta, self.output_size, self.align_corners)
        columns, rows = base_axes(self.output_size, self.align_corners, theta.dtype)
        return tf.stack([x - columns, y - tf.expand_dims(rows, 1)], axis=-1)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """Return the shape of the field."""
        return (input_shape[0], *self.output_size, 2)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        own = {
            "transform": describe(self.transform),
            "output_size": list(self.output_size),
            "align_corners": self.align_corners,
        }
        return {**super().get_config(), **own}
