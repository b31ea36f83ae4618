"""One image, one theta, one warped image: what every layer here does in the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from stnkit.models.reading import record
from stnkit.models.sampling.antialias import antialias
from stnkit.models.sampling.bilinear_image import PADDING_MODES, sample_bilinear
from stnkit.models.sampling.grid_sample import sample_planes
from stnkit.models.sampling.training_form import training_form
from stnkit.models.shapes import sizes
from stnkit.models.taps import mark_theta, mark_warped
from stnkit.models.transforms.base import Transform


@dataclass(frozen=True)
class WarpOptions:
    """How an image is warped.

    Attributes:
        transform: What theta means.
        output_size: `(height, width)` of the warped image, px; None keeps that of the input.
        interpolation: "bilinear", "nearest" or "bicubic".
        padding_mode: "zeros", "border" or "reflection".
        align_corners: What -1 and 1 stand for.
        antialias: Whether the image is smoothed before it is made smaller.
    """

    transform: Transform
    output_size: tuple[Any, Any] | None
    interpolation: str
    padding_mode: str
    align_corners: bool
    antialias: bool


Sample = Callable[[Any, Any], Any]
"""From an image and a theta, both checked, to the warped image."""


def warp_image(
    layer: str, image: Any, theta: Any, options: WarpOptions, sample: Sample | None = None
) -> Any:
    """Return the image warped by theta, and leave marks of both for whoever compares.

    Args:
        layer: Name of the layer, for `read_transformers`.
        image: `[batch, height, width, channels]` float, checked.
        theta: `[batch, *theta_shape]` or `[batch, num_params]` float.
        options: How.
        sample: What `compiled_sample` returned, or None.

    Raises:
        ValueError: If theta does not fit the transform or the image's batch.
    """
    theta = mark_theta(options.transform.check_theta(theta))
    if not image.shape[:1].is_compatible_with(theta.shape[:1]):
        raise ValueError(
            f"image has shape {image.shape} and theta {theta.shape}: expected the same batch size"
        )
    if options.antialias and options.output_size is not None:
        image = antialias(image, options.output_size)
    warped = sample(image, theta) if sample else _sampled(image, theta, options)
    # Reshaping to a size read from the graph loses what is known of the shape.
    known = [image.shape[0], *(options.output_size or image.shape[1:3]), image.shape[3]]
    warped = mark_warped(tf.ensure_shape(warped, known))
    record(layer, theta, warped)
    return warped


def compiled_sample(options: WarpOptions) -> Sample:
    """Return what samples by a graph of its own that XLA compiles, for training.

    It is compiled for each new shape of its inputs, in up to a second.
    """

    def sample(image: Any, theta: Any) -> Any:
        with training_form(True):  # also in a graph that is made later, for another shape
            return _sampled(image, theta, options)

    compiled = tf.function(sample, jit_compile=True, autograph=False, reduce_retracing=True)
    # Not the function itself: Keras would take it for a part of the layer, and save it.
    return lambda image, theta: compiled(image, theta)


def _sampled(image: Any, theta: Any, options: WarpOptions) -> Any:
    transform, corners = options.transform, options.align_corners
    _, height, width, _ = sizes(image)
    output_size = options.output_size or (height, width)
    if options.interpolation == "bilinear" and options.padding_mode in PADDING_MODES:
        grid = transform.pixel_grid(theta, output_size, (height, width), corners)
        return sample_bilinear(image, grid, options.padding_mode)
    planes = transform.planes(theta, output_size, corners)
    return sample_planes(image, planes, options.interpolation, options.padding_mode, corners)


def scale_gradient(values: Any, factor: float) -> Any:
    """Return `values` as they are, with `factor` times their gradient."""

    @tf.custom_gradient
    def scaled(x: Any) -> Any:
        return tf.identity(x), lambda upstream: upstream * factor

    return scaled(values)
