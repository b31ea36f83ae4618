"""`grid_sample`: its checks, its modes, and its Keras layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from stnkit.models.sampling.bilinear_image import PADDING_MODES, sample_bilinear
from stnkit.models.sampling.coordinates import to_pixels
from stnkit.models.sampling.interpolation import INTERPOLATIONS
from stnkit.models.sampling.pixel_grid import dense_pixel_grid
from stnkit.models.sampling.training_form import training_form
from stnkit.models.shapes import sizes

_PADDING_MODES = ("zeros", "border", "reflection")


def check_modes(interpolation: str, padding_mode: str) -> None:
    """Check the names of both modes.

    Raises:
        ValueError: If one is unknown; the message lists those that exist.
    """
    if interpolation not in tuple(INTERPOLATIONS):
        known = ", ".join(repr(name) for name in INTERPOLATIONS)
        raise ValueError(f"interpolation is {interpolation!r}: expected one of {known}")
    if padding_mode not in _PADDING_MODES:
        known = ", ".join(repr(name) for name in _PADDING_MODES)
        raise ValueError(f"padding_mode is {padding_mode!r}: expected one of {known}")


def check_flag(value: Any, name: str) -> bool:
    """Return `value` as a bool.

    Raises:
        ValueError: If it is anything else: every text is true, "no" as well.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} is {value!r}: expected True or False")
    return bool(value)


def check_pair(layer: str, input_shape: Any, second: str) -> tuple[Any, Any]:
    """Return the two shapes that a layer is built for, which takes an image and something else.

    Args:
        layer: Name of the layer.
        input_shape: What Keras hands to `build`.
        second: What the layer takes beside the image.

    Raises:
        ValueError: If there are not two of them, in this order.
    """
    named = isinstance(input_shape, dict)
    several = not named and len(input_shape) > 0 and isinstance(input_shape[0], (list, tuple))
    if not several or len(input_shape) != 2:
        raise ValueError(f"{layer} was called on shape {input_shape}: it takes [image, {second}]")
    return input_shape[0], input_shape[1]


def check_image_shape(shape: Any, ranks: tuple[int, ...] = (4,)) -> None:
    """Check the shape of a batch of images, as far as it is known.

    Raises:
        ValueError: If it has another rank, or a size of 0.
    """
    shape = tf.TensorShape(shape)
    if shape.rank not in ranks:
        volume = " or [batch, depth, height, width, channels]" if 5 in ranks else ""
        raise ValueError(
            f"image has shape {shape}: expected [batch, height, width, channels]{volume}"
        )
    if 0 in shape.as_list()[1:]:
        raise ValueError(f"image has shape {shape}: expected at least one pixel and channel")


def check_grid_shape(shape: Any, image_shape: Any, interpolation: str) -> None:
    """Check the shape of a grid for images of a shape that has been checked.

    Raises:
        ValueError: If rank or last axis do not fit the image, or the interpolation does not.
    """
    shape, image_shape = tf.TensorShape(shape), tf.TensorShape(image_shape)
    axes = image_shape.rank - 2
    if shape.rank != image_shape.rank or shape[-1] != axes:
        expected = "[batch, h, w, 2], last axis (x, y)"
        if axes == 3:
            expected = "[batch, d, h, w, 3], last axis (x, y, z)"
        raise ValueError(f"grid has shape {shape}: expected {expected}")
    if axes == 3 and interpolation == "bicubic":
        raise ValueError(
            "interpolation is 'bicubic' and the image a volume: expected 'bilinear' or 'nearest'"
        )


def check_image(image: Any, ranks: tuple[int, ...] = (4,)) -> Any:
    """Return `image` as a tensor after checking it.

    Args:
        image: `[batch, height, width, channels]`, or a volume where `ranks` holds 5.
        ranks: Ranks that are taken.

    Raises:
        ValueError: If it has another rank, is not of a float type, or has a size of 0.
    """
    image = tf.convert_to_tensor(image)
    check_image_shape(image.shape, ranks)
    if not image.dtype.is_floating:
        raise ValueError(
            f"image has dtype {image.dtype.name}: expected a float type; cast it first, "
            "e.g. tf.cast(image, tf.float32) / 255"
        )
    return image


def sample_planes(
    image: Any, planes: Sequence[Any], interpolation: str, padding_mode: str, align_corners: bool
) -> Any:
    """`grid_sample` with the grid given as its planes (x, y) or (x, y, z), unchecked.

    Args:
        image: `[batch, *spatial, channels]`.
        planes: `[batch, *output]` normalised coordinates for each axis, x first.
        interpolation: As in `grid_sample`.
        padding_mode: As in `grid_sample`.
        align_corners: As in `grid_sample`.
    """
    _, *spatial, _ = sizes(image)
    if interpolation == "bilinear" and padding_mode in PADDING_MODES and len(spatial) == 2:
        x, y = planes
        grid = dense_pixel_grid((x, y), (spatial[0], spatial[1]), align_corners)
        return sample_bilinear(image, grid, padding_mode)
    pixels = [
        to_pixels(plane, size, align_corners)
        for plane, size in zip(reversed(planes), spatial, strict=True)
    ]
    return INTERPOLATIONS[interpolation](image, pixels, padding_mode, align_corners)


def grid_sample(
    image: Any,
    grid: Any,
    interpolation: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
) -> Any:
    """Return `image` read at the points of `grid`.

    Convention:
        Grid points are (x, y), normalised: with `align_corners=False` -1 and 1 are the outer edges
        of the corner pixels, with True their centres. The names and meanings of the modes are those
        of ONNX GridSample and of PyTorch's `grid_sample`. "zeros" padding fades over one pixel. A
        NaN coordinate reads far outside, top left.

    Args:
        image: `[batch, height, width, channels]` float, or a volume
            `[batch, depth, height, width, channels]`.
        grid: `[batch, h, w, 2]` float, last axis (x, y); for a volume `[batch, d, h, w, 3]`, last
            axis (x, y, z). Any value is safe, NaN and inf included.
        interpolation: "bilinear" (trilinear for a volume), "nearest" (ties to the even pixel; no
            gradient for the grid), or "bicubic" (images only).
        padding_mode: "zeros", "border" or "reflection".
        align_corners: What -1 and 1 stand for; use the same value in `affine_grid`.

    Returns:
        `[batch, h, w, channels]`, or `[batch, d, h, w, channels]`, of the image's dtype.

    Raises:
        ValueError: If a mode is unknown, a shape does not fit, image or grid are not of a float
            type, or a batch has more pixels than int32 can count.

    Source:
        Jaderberg et al. 2015, eq. 3 and 5; ONNX operator GridSample, version 16.
    """
    check_modes(interpolation, padding_mode)
    align_corners = check_flag(align_corners, "align_corners")
    image = check_image(image, ranks=(4, 5))
    grid = tf.convert_to_tensor(grid)
    check_grid_shape(grid.shape, image.shape, interpolation)
    if not grid.dtype.is_floating:
        raise ValueError(f"grid has dtype {grid.dtype.name}: expected a float type")
    if not image.shape[:1].is_compatible_with(grid.shape[:1]):
        raise ValueError(
            f"image has shape {image.shape} and grid {grid.shape}: expected the same batch size"
        )
    if grid.dtype != tf.float64:
        grid = tf.cast(grid, tf.float32)  # coordinates are never computed in half precision
    planes = [grid[..., axis] for axis in range(grid.shape[-1])]
    return sample_planes(image, planes, interpolation, padding_mode, align_corners)


@keras.saving.register_keras_serializable(package="stnkit")
class GridSampler(keras.layers.Layer):
    """Keras layer form of `grid_sample`, called on `[image, grid]`.

    Args:
        interpolation: As in `grid_sample`.
        padding_mode: As in `grid_sample`.
        align_corners: As in `grid_sample`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If a mode is unknown, or shapes do not fit.
    """

    def __init__(
        self,
        interpolation: str = "bilinear",
        padding_mode: str = "zeros",
        align_corners: bool = False,
        **kwargs: Any,
    ) -> None:
        # Keras would cast the grid to half precision along with the image: `call` casts the image.
        kwargs["autocast"] = False
        super().__init__(**kwargs)
        check_modes(interpolation, padding_mode)
        self.interpolation = interpolation
        self.padding_mode = padding_mode
        self.align_corners = check_flag(align_corners, "align_corners")

    def build(self, input_shape: Any) -> None:
        """Check the shapes of image and grid.

        Raises:
            ValueError: If they are not two that fit.
        """
        image, grid = check_pair(self.name, input_shape, "grid")
        check_image_shape(image, ranks=(4, 5))
        check_grid_shape(grid, image, self.interpolation)

    def call(self, inputs: Any, training: Any = None) -> Any:
        """Return the image sampled at the grid, for `inputs = [image, grid]`."""
        image, grid = inputs
        image = tf.cast(check_image(image, ranks=(4, 5)), self.compute_dtype)
        with training_form(training):
            return grid_sample(
                image, grid, self.interpolation, self.padding_mode, self.align_corners
            )

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """Return the output shape for the shapes of image and grid."""
        image, grid = input_shape
        return (image[0], *grid[1:-1], image[-1])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        own = {
            "interpolation": self.interpolation,
            "padding_mode": self.padding_mode,
            "align_corners": self.align_corners,
        }
        return {**super().get_config(), **own}
