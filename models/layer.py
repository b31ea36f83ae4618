"""The Keras layer: localisation network, theta head, grid generator and sampler in one."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from stnkit.models.grids import affine_coordinates, as_affine
from stnkit.models.sampling.grid_sample import check_image, check_modes, sample_planes
from stnkit.models.shapes import check_output_size, sizes
from stnkit.models.taps import mark_theta, mark_warped
from stnkit.models.theta_head import ThetaHead


@keras.saving.register_keras_serializable(package="stnkit")
class SpatialTransformer(keras.layers.Layer):
    """Warp an image by an affine theta, which is given or found by a localisation network.

    With a `localization_net` the layer is called on the image and finds theta itself: it fits in a
    `keras.Sequential` anywhere, also as the first layer. Without one it is called on
    `[image, theta]`, with theta `[batch, 2, 3]` or `[batch, 6]`.

    Convention:
        Images are `[batch, height, width, channels]`; theta maps output to input coordinates,
        normalised to [-1, 1], (x, y). Modes mean what they mean in ONNX GridSample and PyTorch.

    Args:
        localization_net: Layer or model from the image to features `[batch, ...]`, or None.
        output_size: `(height, width)` of the warped image, px; None keeps that of the input.
        interpolation: "bilinear" or "nearest".
        padding_mode: "zeros", "border" or "reflection".
        align_corners: What -1 and 1 stand for.
        theta_head: True appends a `ThetaHead` to the localisation network, so that theta starts at
            the identity. False takes its output as theta; the starting point is then yours.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If a mode is unknown, a size is not positive, or `localization_net` cannot be
            called.

    Source:
        Jaderberg et al. 2015, section 3.
    """

    def __init__(
        self,
        localization_net: Any = None,
        output_size: Any = None,
        interpolation: str = "bilinear",
        padding_mode: str = "zeros",
        align_corners: bool = False,
        theta_head: bool = True,
        **kwargs: Any,
    ) -> None:
        # Keras would cast theta to half precision along with the image: `call` casts the image.
        kwargs["autocast"] = False
        super().__init__(**kwargs)
        check_modes(interpolation, padding_mode)
        if localization_net is not None and not isinstance(localization_net, keras.layers.Layer):
            raise ValueError(
                f"localization_net is {localization_net!r}: expected a Keras layer or model from "
                "the image to features, e.g. stnkit.models.localization_cnn()"
            )
        self.localization_net = localization_net
        self.output_size = None if output_size is None else check_output_size(output_size)
        self.interpolation = interpolation
        self.padding_mode = padding_mode
        self.align_corners = bool(align_corners)
        self.theta_head = (
            ThetaHead(name="theta_head") if localization_net is not None and theta_head else None
        )
        self._appends_theta_head = bool(theta_head)

    def build(self, input_shape: Any) -> None:
        """Build the localisation network and the theta head for images of `input_shape`.

        Raises:
            ValueError: If the inputs do not fit the way the layer was made.
        """
        named = isinstance(input_shape, dict)
        several = named or isinstance(input_shape[0], (list, tuple))
        if self.localization_net is None:
            if named or not several or len(input_shape) != 2:
                raise ValueError(
                    f"{self.name} was called on shape {input_shape}: without a localization_net it "
                    "takes [image, theta]. Pass both, or give the layer a localization_net"
                )
            return
        if several:
            raise ValueError(
                f"{self.name} was called on shapes {input_shape}: with a localization_net it takes "
                "the image alone"
            )
        if len(input_shape) != 4:
            raise ValueError(
                f"{self.name} was called on shape {input_shape}: expected an image, "
                "[batch, height, width, channels]"
            )
        # A symbolic call builds nets of every kind: a subclassed one seldom has a `build` or a
        # `compute_output_shape` of its own. The first batch must not become the only size it takes.
        image = keras.KerasTensor((None, *input_shape[1:]), dtype=self.compute_dtype)
        features = self.localization_net(image).shape
        if self.theta_head is not None:
            self.theta_head.build(features)
        elif tuple(features)[1:] not in ((6,), (2, 3)):
            raise ValueError(
                f"the localization_net of {self.name} gives shape {tuple(features)}: with "
                "theta_head=False it gives theta, [batch, 6] or [batch, 2, 3]"
            )

    def call(self, inputs: Any, training: Any = None) -> Any:
        """Return the warped image `[batch, height, width, channels]`."""
        if self.localization_net is None:
            image, theta = inputs
            image = self._cast(image)
        else:
            image = self._cast(inputs)
            theta = self.localization_net(image, training=training)
            if self.theta_head is not None:
                theta = self.theta_head(theta)
        theta = mark_theta(as_affine(theta))
        if not image.shape[:1].is_compatible_with(theta.shape[:1]):
            raise ValueError(
                f"image has shape {image.shape} and theta {theta.shape}: expected the same batch "
                "size"
            )
        _, height, width, _ = sizes(image)
        x, y = affine_coordinates(theta, self.output_size or (height, width), self.align_corners)
        warped = sample_planes(
            image, x, y, self.interpolation, self.padding_mode, self.align_corners
        )
        # Reshaping to a size read from the graph loses what is known of the shape.
        known = [image.shape[0], *(self.output_size or image.shape[1:3]), image.shape[3]]
        return mark_warped(tf.ensure_shape(warped, known))

    def _cast(self, image: Any) -> Any:
        """Return the image, checked, in the dtype that this layer computes in."""
        return tf.cast(check_image(image), self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """Return the shape of the warped image."""
        image = input_shape if self.localization_net is not None else input_shape[0]
        return (image[0], *(self.output_size or image[1:3]), image[3])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        net = self.localization_net
        own = {
            "localization_net": None if net is None else keras.saving.serialize_keras_object(net),
            "output_size": None if self.output_size is None else list(self.output_size),
            "interpolation": self.interpolation,
            "padding_mode": self.padding_mode,
            "align_corners": self.align_corners,
            "theta_head": self._appends_theta_head,
        }
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SpatialTransformer:
        """Return the layer that `get_config` described."""
        config = dict(config)
        net = config.pop("localization_net", None)
        if net is not None and not isinstance(net, keras.layers.Layer):
            net = keras.saving.deserialize_keras_object(net)
        return cls(localization_net=net, **config)
