"""The grid generator: from theta to the points at which the input image is read."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from stnkit.models.sampling.grid_sample import check_flag
from stnkit.models.shapes import Size, check_output_size


def pixel_centres(size: Size, align_corners: bool, dtype: Any) -> Any:
    r"""Return the normalised coordinates of `size` pixel centres along one axis.

    align_corners=False: $x_j = (2j + 1) / S - 1$; align_corners=True: $x_j = 2j / (S - 1) - 1$,
    and 0 for a single pixel.

    Returns:
        `[size]` tensor of `dtype`, in [-1, 1].
    """
    if isinstance(size, int):
        index = np.arange(size, dtype=np.float64)
        if not align_corners:
            values = (2 * index + 1) / size - 1
        else:
            values = 2 * index / (size - 1) - 1 if size > 1 else np.zeros(1)
        return tf.constant(values, dtype)
    index = tf.cast(tf.range(size), dtype)
    length = tf.cast(size, dtype)
    if not align_corners:
        return (2 * index + 1) / length - 1
    # One pixel: 0 / 1 - 1 would be -1, where the convention says 0.
    single = tf.cast(tf.equal(size, 1), dtype)
    return 2 * index / tf.maximum(length - 1, 1) - 1 + single


def check_affine_shape(shape: Any) -> None:
    """Check the shape of a batch of affine thetas, as far as it is known.

    Raises:
        ValueError: If it is neither `[batch, 2, 3]` nor `[batch, 6]`.
    """
    shape = tf.TensorShape(shape)
    flat = shape.rank == 2 and shape[1] in (6, None)
    if not (flat or (shape.rank == 3 and shape[1] in (2, None) and shape[2] in (3, None))):
        raise ValueError(
            f"theta has shape {shape}: an affine transformer takes [batch, 2, 3] or [batch, 6]"
        )


def as_affine(theta: Any) -> Any:
    """Return theta as `[batch, 2, 3]`, from that shape or from `[batch, 6]`, in float32 or wider.

    Raises:
        ValueError: If the static shape is neither, or theta is not of a float type.
    """
    theta = tf.convert_to_tensor(theta)
    if not theta.dtype.is_floating:
        raise ValueError(f"theta has dtype {theta.dtype.name}: expected a float type")
    check_affine_shape(theta.shape)
    if theta.shape.rank == 2:
        theta = tf.reshape(theta, [-1, 2, 3])
    # Half precision resolves 1/2048 of the frame: coordinates are never computed in it.
    return theta if theta.dtype == tf.float64 else tf.cast(theta, tf.float32)


def affine_coordinates(theta: Any, output_size: Any, align_corners: bool) -> tuple[Any, Any]:
    """Return the x and y planes of `affine_grid`, `[batch, height, width]` each.

    The product with the regular grid is written as an outer sum of one vector a column and one a
    row. A constant of height x width points would otherwise be baked into every exported file.
    """
    theta = as_affine(theta)
    height, width = check_output_size(output_size)
    columns = pixel_centres(width, align_corners, theta.dtype)
    rows = pixel_centres(height, align_corners, theta.dtype)
    planes = []
    for axis in range(2):
        along_x = theta[:, axis, 0:1] * columns  # [batch, width]
        along_y = theta[:, axis, 1:2] * rows + theta[:, axis, 2:3]  # [batch, height]
        # Not x[:, tf.newaxis, :]: TFLite has no strided slice that adds an axis to open sizes.
        planes.append(tf.expand_dims(along_x, 1) + tf.expand_dims(along_y, 2))
    return planes[0], planes[1]


def affine_grid(theta: Any, output_size: Any, align_corners: bool = False) -> Any:
    r"""Return the sampling grid of a batch of affine transformations.

    $$\begin{pmatrix} x^s \\ y^s \end{pmatrix} = \theta \begin{pmatrix} x^t \\ y^t \\ 1
    \end{pmatrix}$$

    Convention:
        Theta maps output (target) coordinates to input (source) coordinates. Both are normalised to
        [-1, 1], x to the right, y down. With `align_corners=False` -1 and 1 are the outer edges of
        the corner pixels, with True their centres. The meaning is that of PyTorch's `affine_grid`.

    Args:
        theta: `[batch, 2, 3]` or `[batch, 6]` float, the rows of the 2x3 matrix.
        output_size: `(height, width)` of the output image, px.
        align_corners: What -1 and 1 stand for; use the same value in `grid_sample`.

    Returns:
        `[batch, height, width, 2]` float32 (float64 for float64 theta), last axis (x, y).

    Raises:
        ValueError: If theta has another shape or an integer type, or a size is not positive.

    Source:
        Jaderberg et al. 2015, Spatial Transformer Networks, eq. 1.
    """
    align_corners = check_flag(align_corners, "align_corners")
    x, y = affine_coordinates(theta, output_size, align_corners)
    return tf.stack([x, y], axis=-1)


@keras.saving.register_keras_serializable(package="stnkit")
class AffineGridGenerator(keras.layers.Layer):
    """Keras layer form of `affine_grid`.

    Args:
        output_size: `(height, width)` of the grid, px.
        align_corners: As in `affine_grid`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If a size is not positive.
    """

    def __init__(self, output_size: Any, align_corners: bool = False, **kwargs: Any) -> None:
        # Under a mixed policy Keras would hand theta over in half precision.
        kwargs["autocast"] = False
        super().__init__(**kwargs)
        self.output_size = check_output_size(output_size)
        self.align_corners = check_flag(align_corners, "align_corners")

    def build(self, input_shape: Any) -> None:
        """Check the shape of theta.

        Raises:
            ValueError: If it is not that of an affine theta.
        """
        check_affine_shape(input_shape)

    def call(self, theta: Any) -> Any:
        """Return the grid `[batch, height, width, 2]` of `theta`."""
        return affine_grid(theta, self.output_size, self.align_corners)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """Return the shape of the grid for a theta of `input_shape`."""
        return (input_shape[0], *self.output_size, 2)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        own = {"output_size": list(self.output_size), "align_corners": self.align_corners}
        return {**super().get_config(), **own}
