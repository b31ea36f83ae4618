"""`keras.ops.image.map_coordinates`, which samples one plane: one call for each channel."""

from __future__ import annotations

from typing import Any

from benchmarks.cases import Case
from benchmarks.peers.gather_nd import pixel_coordinates
from benchmarks.peers.runtimes import WarpFunction
from benchmarks.peers.tensorflow_function import function_contender


def map_coordinates_warp(case: Case) -> WarpFunction:
    """Return the function for a case.

    Coordinates have one axis for each of the array's. Sampling the whole batch at once would
    interpolate between its images and channels too, over 16 pixels instead of 4.
    """
    import keras
    import tensorflow as tf

    batch, _, _, channels = case.shape

    def warp(image: Any, theta: Any) -> Any:
        x, y = pixel_coordinates(case, theta)

        def plane(item: int, channel: int) -> Any:
            return keras.ops.image.map_coordinates(
                image[item, :, :, channel],
                tf.stack([y[item], x[item]]),
                order=1,
                fill_mode="constant",
                fill_value=0,
            )

        images = [
            tf.stack([plane(item, channel) for channel in range(channels)], axis=-1)
            for item in range(batch)
        ]
        return tf.stack(images)

    return warp


MAP_COORDINATES = function_contender("keras map_coordinates", map_coordinates_warp, may_fail=True)
