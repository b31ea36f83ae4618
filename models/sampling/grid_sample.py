"""`grid_sample`: its checks, its modes, and its Keras layer."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from stnkit.models.sampling.coordinates import to_pixels
from stnkit.models.sampling.interpolation import bilinear, nearest
from stnkit.models.shapes import sizes

_INTERPOLATIONS = {"bilinear": bilinear, "nearest": nearest}
_PADDING_MODES = ("zeros", "border", "reflection")


def check_modes(interpolation: str, padding_mode: str) -> None:
    """Check the names of both modes.

    Raises:
        ValueError: If one is unknown; the message lists those that exist.
    """
    if interpolation not in tuple(_INTERPOLATIONS):
        known = ", ".join(repr(name) for name in _INTERPOLATIONS)
        raise ValueError(f"interpolation is {interpolation!r}: expected one of {known}")
    if padding_mode not in _PADDING_MODES:
        known = ", ".join(repr(name) for name in _PADDING_MODES)
        raise ValueError(f"padding_mode is {padding_mode!r}: expected one of {known}")


def check_image(image: Any) -> Any:
    """Return `image` as a tensor after checking it.

    Raises:
        ValueError: If it is not `[batch, height, width, channels]`, of a float type, or if its
            height, width or number of channels is 0.
    """
    image = tf.convert_to_tensor(image)
    if image.shape.rank != 4:
        raise ValueError(
            f"image has shape {image.shape}: expected [batch, height, width, channels]"
        )
    if not image.dtype.is_floating:
        raise ValueError(
            f"image has dtype {image.dtype.name}: expected a float type; cast it first, "
            "e.g. tf.cast(image, tf.float32) / 255"
        )
    if 0 in image.shape.as_list()[1:]:
        raise ValueError(f"image has shape {image.shape}: expected at least one pixel and channel")
    return image


def sample_planes(
    image: Any, x: Any, y: Any, interpolation: str, padding_mode: str, align_corners: bool
) -> Any:
    """`grid_sample` with the grid given as its x and y planes, `[batch, h, w]` each, unchecked."""
    _, height, width, _ = sizes(image)
    x = to_pixels(x, width, align_corners)
    y = to_pixels(y, height, align_corners)
    return _INTERPOLATIONS[interpolation](image, x, y, padding_mode, align_corners)


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
        image: `[batch, height, width, channels]` float.
        grid: `[batch, h, w, 2]` float, last axis (x, y). Any value is safe, NaN and inf included.
        interpolation: "bilinear" or "nearest" (ties to the even pixel; no gradient for the grid).
        padding_mode: "zeros", "border" or "reflection".
        align_corners: What -1 and 1 stand for; use the same value in `affine_grid`.

    Returns:
        `[batch, h, w, channels]` of the image's dtype.

    Raises:
        ValueError: If a mode is unknown, a shape does not fit, the image is not of a float type, or
            a batch has more pixels than int32 can count.

    Source:
        Jaderberg et al. 2015, eq. 3 and 5; ONNX operator GridSample, version 16.
    """
    check_modes(interpolation, padding_mode)
    image = check_image(image)
    grid = tf.convert_to_tensor(grid)
    if grid.shape.rank != 4 or grid.shape[-1] != 2:
        raise ValueError(
            f"grid has shape {grid.shape}: expected [batch, h, w, 2], last axis (x, y)"
        )
    if not grid.dtype.is_floating:
        raise ValueError(f"grid has dtype {grid.dtype.name}: expected a float type")
    if not image.shape[:1].is_compatible_with(grid.shape[:1]):
        raise ValueError(
            f"image has shape {image.shape} and grid {grid.shape}: expected the same batch size"
        )
    if grid.dtype != tf.float64:
        grid = tf.cast(grid, tf.float32)  # coordinates are never computed in half precision
    return sample_planes(
        image, grid[..., 0], grid[..., 1], interpolation, padding_mode, align_corners
    )


@keras.saving.register_keras_serializable(package="stnkit")
class GridSampler(keras.layers.Layer):
    """Keras layer form of `grid_sample`, called on `[image, grid]`.

    Args:
        interpolation: As in `grid_sample`.
        padding_mode: As in `grid_sample`.
        align_corners: As in `grid_sample`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If a mode is unknown.
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
        self.align_corners = bool(align_corners)

    def call(self, inputs: Any) -> Any:
        """Return the image sampled at the grid, for `inputs = [image, grid]`."""
        image, grid = inputs
        image = tf.cast(check_image(image), self.compute_dtype)
        return grid_sample(image, grid, self.interpolation, self.padding_mode, self.align_corners)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """Return the output shape for the shapes of image and grid."""
        image, grid = input_shape
        return (image[0], grid[1], grid[2], image[3])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        own = {
            "interpolation": self.interpolation,
            "padding_mode": self.padding_mode,
            "align_corners": self.align_corners,
        }
        return {**super().get_config(), **own}
