"""The Keras layer: localisation network, theta head, grid generator and sampler in one."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import keras
import tensorflow as tf

from stnkit.models.sampling.antialias import check_known_sizes
from stnkit.models.sampling.grid_sample import (
    check_flag,
    check_image,
    check_image_shape,
    check_modes,
)
from stnkit.models.sampling.training_form import is_compiled, training_form
from stnkit.models.shapes import check_output_size
from stnkit.models.theta_head import ThetaHead
from stnkit.models.transforms.registry import as_transform, describe
from stnkit.models.warping import WarpOptions, compiled_sample, scale_gradient, warp_image


@keras.saving.register_keras_serializable(package="stnkit")
class SpatialTransformer(keras.layers.Layer):
    """Warp an image by a theta, which is given or found by a localisation network.

    With a `localization_net` the layer is called on the image and finds theta itself: it fits in a
    `keras.Sequential` anywhere, also as the first layer. Without one it is called on
    `[image, theta]`, with theta `[batch, *theta_shape]` or `[batch, num_params]` of the
    transform: `[batch, 2, 3]` or `[batch, 6]` for an affine one.

    Called with `training=True`, as Keras does in `fit`, it gives the same image and a gradient that
    is computed faster. A loop of your own that leaves it out is right as well, and slower.

    Convention:
        Images are `[batch, height, width, channels]`; theta maps output to input coordinates,
        normalised to [-1, 1], (x, y). Modes mean what they mean in ONNX GridSample and PyTorch.

    Args:
        localization_net: Layer or model from the image to features `[batch, ...]`, or None.
        output_size: `(height, width)` of the warped image, px; None keeps that of the input.
        interpolation: "bilinear", "nearest" or "bicubic".
        padding_mode: "zeros", "border" or "reflection".
        align_corners: What -1 and 1 stand for.
        theta_head: True appends a `ThetaHead` to the localisation network, so that theta starts at
            the identity. False takes its output as theta; the starting point is then yours.
        transform: What theta means: a `Transform`, or a name of `transform_names()`.
        antialias: Whether the image is smoothed first where `output_size` is smaller; its sizes
            must then be known.
        localization_lr_multiplier: Factor on the gradients of everything that theta comes from. For
            plain SGD, with momentum or without, this is a factor on the learning rate, which the
            paper sets to 0.1 for some models. Optimizers that divide by the size of the gradient
            (Adam, RMSprop) undo it.
        jit_compile: Whether XLA compiles the sampling in training, and that alone. On a CPU it then
            takes a third to a half of the time, but up to a second more at the first step of each
            batch size. Keras has XLA compile whole models on GPUs, where this changes nothing.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If a mode is unknown, a size is not positive, `localization_net` cannot be
            called, or `jit_compile` is True and `output_size` a tensor.

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
        transform: Any = "affine",
        antialias: bool = False,
        localization_lr_multiplier: float = 1.0,
        jit_compile: bool = False,
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
        factor: Any = localization_lr_multiplier
        if isinstance(factor, bool) or not (
            isinstance(factor, Real) and 0 <= float(factor) < math.inf
        ):
            raise ValueError(f"localization_lr_multiplier is {factor!r}: expected a number >= 0")
        self.transform = as_transform(transform)
        self.antialias = check_flag(antialias, "antialias")
        self.localization_lr_multiplier = float(factor)
        self.localization_net = localization_net
        self.output_size = None if output_size is None else check_output_size(output_size)
        self.interpolation = interpolation
        self.padding_mode = padding_mode
        self.align_corners = check_flag(align_corners, "align_corners")
        self.jit_compile = check_flag(jit_compile, "jit_compile")
        if self.jit_compile and any(tf.is_tensor(size) for size in self.output_size or ()):
            raise ValueError(
                f"output_size is {self.output_size!r} and jit_compile True: expected two integers, "
                "or jit_compile=False; XLA compiles for sizes that it knows"
            )
        self._compiled_sample: Any = None
        self._appends_theta_head = check_flag(theta_head, "theta_head")
        self.theta_head = (
            ThetaHead(self.transform, name="theta_head")
            if localization_net is not None and theta_head
            else None
        )

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
            image_shape, theta_shape = input_shape
            check_image_shape(image_shape)
            self.transform.check_theta_shape(theta_shape)
            self._check_antialias(image_shape)
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
        self._check_antialias(input_shape)
        # A symbolic call builds nets of every kind: a subclassed one seldom has a `build` or a
        # `compute_output_shape` of its own. The first batch must not become the only size it takes.
        image = keras.KerasTensor((None, *input_shape[1:]), dtype=self.compute_dtype)
        features = self.localization_net(image).shape
        count = self.transform.num_params
        if self.theta_head is not None:
            self.theta_head.build(features)
        elif tuple(features)[1:] not in ((count,), self.transform.theta_shape):
            raise ValueError(
                f"the localization_net of {self.name} gives shape {tuple(features)}: with "
                f"theta_head=False it gives theta, [batch, {count}] or "
                f"[batch, {', '.join(str(size) for size in self.transform.theta_shape)}]"
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
        if training and self.localization_lr_multiplier != 1:
            theta = scale_gradient(theta, self.localization_lr_multiplier)
        options = WarpOptions(
            transform=self.transform,
            output_size=self.output_size,
            interpolation=self.interpolation,
            padding_mode=self.padding_mode,
            align_corners=self.align_corners,
            antialias=self.antialias,
        )
        sample = None
        if self.jit_compile and training is True and not is_compiled():
            # Made once: whoever trains without a graph calls the layer anew in each step.
            sample = self._compiled_sample = self._compiled_sample or compiled_sample(options)
        with training_form(training):
            return warp_image(self.name, image, theta, options, sample)

    def _check_antialias(self, image_shape: Any) -> None:
        # Now, and not when the first graph is traced: an eager call knows every size.
        if self.antialias and self.output_size is not None:
            check_known_sizes(image_shape, self.output_size)

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
            "transform": describe(self.transform),
            "antialias": self.antialias,
            "localization_lr_multiplier": self.localization_lr_multiplier,
            "jit_compile": self.jit_compile,
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
