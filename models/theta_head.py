"""The theta head ("transformation estimator"): from features to the parameters of a transform."""

from __future__ import annotations

from typing import Any

import keras

_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@keras.saving.register_keras_serializable(package="stnkit")
class IdentityTheta(keras.initializers.Initializer):
    """Bias initialiser that makes an affine theta the identity: 1 0 0 / 0 1 0."""

    def __call__(self, shape: Any, dtype: Any = None, **kwargs: Any) -> Any:
        """Return the identity theta for a bias of `shape` `(6,)`.

        Raises:
            ValueError: If the shape is another one.
        """
        if tuple(shape) != (6,):
            raise ValueError(f"bias has shape {tuple(shape)}: an affine theta has 6 parameters")
        return keras.ops.convert_to_tensor(_IDENTITY, dtype=dtype)


@keras.saving.register_keras_serializable(package="stnkit")
class ThetaHead(keras.layers.Layer):
    r"""Regress an affine theta from features; untrained, it is the identity for every image.

    $$\theta = W f + b, \quad W = 0, \quad b = (1, 0, 0, 0, 1, 0)$$

    Features of rank above 2 are flattened first. Both variables are float32 under any policy: half
    precision cannot express a shift of a pixel in a large image.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.

    Source:
        Jaderberg et al. 2015, section 3.1 and appendix A.1 (initialisation to the identity).
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.flatten = keras.layers.Flatten(dtype="float32")
        self.dense = keras.layers.Dense(
            len(_IDENTITY),
            kernel_initializer="zeros",
            bias_initializer=IdentityTheta(),
            dtype="float32",
            name="theta",
        )

    def build(self, input_shape: Any) -> None:
        """Create the variables for features of `input_shape`.

        Raises:
            ValueError: If a size other than the batch is unknown.
        """
        if None in tuple(input_shape)[1:]:
            raise ValueError(
                f"features have shape {tuple(input_shape)}: the theta head needs a fixed size. End "
                "the localisation network with global pooling, or give the model a fixed input size"
            )
        self.dense.build(self.flatten.compute_output_shape(input_shape))

    def call(self, features: Any) -> Any:
        """Return theta `[batch, 2, 3]` for features `[batch, ...]`."""
        return keras.ops.reshape(self.dense(self.flatten(features)), (-1, 2, 3))

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """Return the shape of theta."""
        return (input_shape[0], 2, 3)
