"""The theta head ("transformation estimator"): from features to the parameters of a transform."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from stnkit.models.transforms.base import Transform
from stnkit.models.transforms.registry import as_transform, describe


@keras.saving.register_keras_serializable(package="stnkit")
class IdentityTheta(keras.initializers.Initializer):
    """Bias initialiser that makes theta the identity of a transform, or another given theta.

    Args:
        transform: A transform, its name or its configuration.
        theta: Where theta starts instead, `num_params` numbers; None for the identity.

    Raises:
        ValueError: If `theta` has another count, is not finite, or lies outside of the bounds.
    """

    def __init__(self, transform: Any = "affine", theta: Any = None) -> None:
        self.transform = as_transform(transform)
        self.theta = None if theta is None else _check_start(theta, self.transform)

    def __call__(self, shape: Any, dtype: Any = None, **kwargs: Any) -> Any:
        """Return the identity theta for a bias of `shape` `(num_params,)`.

        Raises:
            ValueError: If the shape is another one.
        """
        count = self.transform.num_params
        if tuple(shape) != (count,):
            name = self.transform.name
            raise ValueError(
                f"bias has shape {tuple(shape)}: a theta of {name!r} has {count} parameters"
            )
        start = np.ravel(self.transform.identity())
        if self.theta is not None:
            start = _unbounded(self.theta, start, self.transform.limits())
        return keras.ops.convert_to_tensor(start.astype(np.float32), dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this initialiser again."""
        theta = None if self.theta is None else list(self.theta)
        return {"transform": describe(self.transform), "theta": theta}


def _check_start(theta: Any, transform: Transform) -> tuple[float, ...]:
    values = np.asarray(theta, np.float64).ravel()
    identity = np.ravel(transform.identity())
    if values.shape != identity.shape or not np.isfinite(values).all():
        raise ValueError(
            f"initial theta is {theta!r}: {transform!r} takes {len(identity)} finite numbers"
        )
    outside = np.abs(values - identity) >= transform.limits()
    if outside.any():
        index = int(outside.argmax())
        raise ValueError(
            f"initial theta has {values[index]:g} at {index}: the bounds of {transform!r} keep "
            f"it nearer to {identity[index]:g}"
        )
    return tuple(float(value) for value in values)


def _unbounded(theta: Any, identity: Any, limits: Any) -> Any:
    """Return the raw parameters that `Transform.bounded` takes to theta."""
    raw = np.array(theta, np.float64)
    held = np.isfinite(limits)
    inside = (raw[held] - identity[held]) / limits[held]
    raw[held] = identity[held] + limits[held] * np.arctanh(inside)
    return raw


@keras.saving.register_keras_serializable(package="stnkit")
class ThetaHead(keras.layers.Layer):
    r"""Regress a theta from features; untrained, it is the identity for every image.

    $$\theta = W f + b, \quad W = 0, \quad b = \theta_{identity}$$

    Features of rank above 2 are flattened first. Both variables are float32 under any policy: half
    precision cannot express a shift of a pixel in a large image. Bounds of the transform are
    applied here.

    Args:
        transform: A transform, its name or its configuration.
        initial_theta: Where theta starts instead of the identity, `num_params` numbers within the
            bounds: parallel transformers start at different places.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If the transform is unknown, or `initial_theta` does not fit it.

    Source:
        Jaderberg et al. 2015, section 3.1 and appendix A.1 (initialisation to the identity).
    """

    def __init__(self, transform: Any = "affine", initial_theta: Any = None, **kwargs: Any) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.transform = as_transform(transform)
        start = IdentityTheta(self.transform, initial_theta)
        self.initial_theta = start.theta
        self.flatten = keras.layers.Flatten(dtype="float32")
        self.dense = keras.layers.Dense(
            self.transform.num_params,
            kernel_initializer="zeros",
            bias_initializer=start,
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
        """Return theta `[batch, *theta_shape]` for features `[batch, ...]`."""
        raw = keras.ops.reshape(
            self.dense(self.flatten(features)), (-1, *self.transform.theta_shape)
        )
        return self.transform.bounded(raw)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """Return the shape of theta."""
        return (input_shape[0], *self.transform.theta_shape)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        start = None if self.initial_theta is None else list(self.initial_theta)
        own = {"transform": describe(self.transform), "initial_theta": start}
        return {**super().get_config(), **own}
