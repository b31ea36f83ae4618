"""What most spatial transformers for TensorFlow do: a stored grid, four gather_nd, four masks."""

from __future__ import annotations

from typing import Any

from benchmarks.cases import Case, basis
from benchmarks.peers.runtimes import WarpFunction
from benchmarks.peers.tensorflow_function import function_contender


def pixel_coordinates(case: Case, theta: Any) -> tuple[Any, Any]:
    """Return x and y in pixels, `[batch, height, width]` each, by one product with a stored grid.

    For an affine theta the grid holds (x, y, 1) for every pixel; for a spline the value of every
    basis function.
    """
    import tensorflow as tf

    batch, height, width, _ = case.shape
    stored = tf.constant(basis(case), tf.float32)
    grid = tf.matmul(
        tf.tile(tf.expand_dims(stored, 0), [batch, 1, 1]),
        theta,
        transpose_b=case.transform == "affine",
    )
    grid = tf.reshape(grid, [batch, height, width, 2])
    x = ((grid[..., 0] + 1) * width - 1) / 2
    y = ((grid[..., 1] + 1) * height - 1) / 2
    return x, y


def gather_nd_warp(case: Case) -> WarpFunction:
    """Return the function for a case.

    Source:
        Jaderberg et al. 2015, eq. 1 and 5.
    """
    import tensorflow as tf

    batch, height, width, _ = case.shape

    def warp(image: Any, theta: Any) -> Any:
        x, y = pixel_coordinates(case, theta)
        left, top = tf.floor(x), tf.floor(y)
        right, bottom = left + 1, top + 1
        item = tf.reshape(tf.range(batch), [batch, 1, 1])
        item = tf.tile(item, [1, height, width])

        def tap(row: Any, column: Any, weight: Any) -> Any:
            inside = (column >= 0) & (column <= width - 1) & (row >= 0) & (row <= height - 1)
            rows = tf.cast(tf.clip_by_value(row, 0, height - 1), tf.int32)
            columns = tf.cast(tf.clip_by_value(column, 0, width - 1), tf.int32)
            pixels = tf.gather_nd(image, tf.stack([item, rows, columns], axis=-1))
            return pixels * tf.expand_dims(weight * tf.cast(inside, tf.float32), -1)

        return tf.add_n(
            [
                tap(top, left, (right - x) * (bottom - y)),
                tap(top, right, (x - left) * (bottom - y)),
                tap(bottom, left, (right - x) * (y - top)),
                tap(bottom, right, (x - left) * (y - top)),
            ]
        )

    return warp


GATHER_ND = function_contender("gather_nd with masks", gather_nd_warp)
