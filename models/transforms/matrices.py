"""Closed forms on 3x3 matrices, and other libraries' conventions for them.

MatrixInverse and MatrixSolve have no equivalent in TFLite or standard ONNX: what is needed of them
is written out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from stnkit.models.shapes import check_output_size


def stack_matrix(rows: list[list[Any]]) -> Any:
    """Return `[batch, 3, 3]` from nine `[batch]` tensors, row by row."""
    return tf.reshape(tf.stack([entry for row in rows for entry in row], axis=-1), [-1, 3, 3])


def inverse_3x3(matrix: Any) -> Any:
    r"""Return the inverse of `[batch, 3, 3]` matrices.

    $$A^{-1} = \operatorname{adj}(A) / \det(A)$$
    """
    a, b, c = (matrix[:, 0, i] for i in range(3))
    d, e, f = (matrix[:, 1, i] for i in range(3))
    g, h, i = (matrix[:, 2, k] for k in range(3))
    adjugate = stack_matrix(
        [
            [e * i - f * h, c * h - b * i, b * f - c * e],
            [f * g - d * i, a * i - c * g, c * d - a * f],
            [d * h - e * g, b * g - a * h, a * e - b * d],
        ]
    )
    determinant = a * adjugate[:, 0, 0] + b * adjugate[:, 1, 0] + c * adjugate[:, 2, 0]
    return adjugate / tf.reshape(determinant, [-1, 1, 1])


def _to_pixels(size: tuple[int, int], align_corners: bool) -> Any:
    """Return the 3x3 matrix from normalised to pixel coordinates for `(height, width)`."""
    matrix = np.eye(3)
    for axis, length in enumerate(reversed(size)):
        matrix[axis, axis] = (length - 1) / 2 if align_corners else length / 2
        matrix[axis, 2] = (length - 1) / 2
    return matrix


def _from_pixels(size: tuple[int, int], align_corners: bool) -> Any:
    """Return the 3x3 matrix from pixel to normalised coordinates for `(height, width)`.

    One pixel between its own centres spans no length: everything on it is at 0.
    """
    matrix = np.eye(3)
    for axis, length in enumerate(reversed(size)):
        span = length - 1 if align_corners else length
        matrix[axis, axis] = 2 / span if span else 0
        matrix[axis, 2] = -(length - 1) / span if span else 0
    return matrix


def _square(matrix: Any, name: str) -> Any:
    """Return one matrix as a 3x3 float64 matrix, from 2x3, 3x3, 6 or 8 numbers.

    Raises:
        ValueError: If it has another shape.
    """
    values = np.asarray(matrix, np.float64)
    if values.shape in ((6,), (2, 3)):
        return np.vstack([values.reshape(2, 3), [0, 0, 1]])
    if values.shape == (8,):
        return np.append(values, 1).reshape(3, 3)
    if values.shape == (3, 3):
        return values
    raise ValueError(
        f"{name} has shape {values.shape}: expected one matrix, (2, 3), (3, 3), (6,) or (8,)"
    )


def theta_to_pixel_matrix(
    theta: Any,
    input_size: tuple[int, int],
    output_size: tuple[int, int],
    align_corners: bool = False,
) -> Any:
    """Return the matrix from output to input *pixels* that does what theta does.

    Convention:
        Pixel (0, 0) is the centre of the first pixel, (x, y) order. OpenCV's `warpAffine` and
        `warpPerspective` take this matrix with the flag `WARP_INVERSE_MAP`; without the flag they
        take its inverse.

    Args:
        theta: One normalised output-to-input map: `(2, 3)`, `(6,)`, `(3, 3)` or `(8,)`. PyTorch's
            `affine_grid` takes the `(2, 3)` form as it is.
        input_size: `(height, width)` of the input image, px.
        output_size: `(height, width)` of the output image, px.
        align_corners: What -1 and 1 stand for in theta.

    Returns:
        `(3, 3)` float64; its first two rows for `warpAffine`.

    Raises:
        ValueError: If theta has another shape, or a size is not positive.
    """
    to_input = _to_pixels(check_output_size(input_size, "input_size"), align_corners)
    from_output = _from_pixels(check_output_size(output_size), align_corners)
    return to_input @ _square(theta, "theta") @ from_output


def pixel_matrix_to_theta(
    matrix: Any,
    input_size: tuple[int, int],
    output_size: tuple[int, int],
    align_corners: bool = False,
) -> Any:
    """Return the normalised theta of a matrix from output to input pixels.

    The inverse of `theta_to_pixel_matrix`.

    Args:
        matrix: `(2, 3)` or `(3, 3)`, or their first 6 or 8 numbers. A matrix made for OpenCV
            without the flag `WARP_INVERSE_MAP` must be inverted first.
        input_size: `(height, width)` of the input image, px.
        output_size: `(height, width)` of the output image, px.
        align_corners: What -1 and 1 are to stand for in theta.

    Returns:
        `(3, 3)` float64, scaled so that the last entry is 1; `[:2]` is an affine theta, and
        `.ravel()[:8]` a projective one.

    Raises:
        ValueError: If the matrix has another shape, a size is not positive, or the centre of the
            output lies on the matrix's horizon, so that no theta with a last entry of 1 exists.
    """
    from_input = _from_pixels(check_output_size(input_size, "input_size"), align_corners)
    to_pixels = _to_pixels(check_output_size(output_size), align_corners)
    theta = from_input @ _square(matrix, "matrix") @ to_pixels
    if abs(theta[2, 2]) < 1e-12 * np.abs(theta).max():
        raise ValueError(
            f"matrix {np.asarray(matrix).tolist()} maps the centre of the output to infinity: "
            "expected one whose theta can have 1 as its last entry"
        )
    return theta / theta[2, 2]
