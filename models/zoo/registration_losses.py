"""What registration minimises: unlikeness of the images, and roughness of the flow."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="stnkit")
def bending_energy(target: Any, flow: Any) -> Any:
    r"""Return the mean squared second derivative of a flow, per item; 0 for an affine map.

    $$\frac{1}{N} \sum_p u_{xx}^2 + 2 u_{xy}^2 + u_{yy}^2$$

    Convention:
        Differences of neighbouring pixels, scaled to the flow's normalised units: the value does
        not depend on the resolution.

    Args:
        target: Ignored; Keras hands a target to every loss.
        flow: `[batch, height, width, 2]`, at least 3x3.

    Returns:
        `[batch]`.

    Raises:
        ValueError: If the flow is smaller.

    Source:
        Rueckert et al. 1999, Nonrigid registration using free-form deformations, eq. 3.
    """
    del target
    if any(size is not None and size < 3 for size in flow.shape[1:3]):
        raise ValueError(
            f"flow has shape {tuple(flow.shape)}: expected [batch, height, width, 2], 3 px a side "
            "at least, or it has no second derivative"
        )
    rows, columns = (flow.shape[1] or tf.shape(flow)[1]), (flow.shape[2] or tf.shape(flow)[2])
    dy, dx = tf.cast(rows, flow.dtype) / 2, tf.cast(columns, flow.dtype) / 2
    xx = (flow[:, :, 2:] - 2 * flow[:, :, 1:-1] + flow[:, :, :-2]) * dx * dx
    yy = (flow[:, 2:] - 2 * flow[:, 1:-1] + flow[:, :-2]) * dy * dy
    along = flow[:, :, 1:] - flow[:, :, :-1]
    xy = (along[:, 1:] - along[:, :-1]) * dx * dy

    def mean(values: Any) -> Any:
        return tf.reduce_mean(tf.square(values), axis=[1, 2, 3])

    return mean(xx) + 2 * mean(xy) + mean(yy)


@keras.saving.register_keras_serializable(package="stnkit")
def local_correlation_loss(fixed: Any, warped: Any, window_px: int = 9) -> Any:
    r"""Return 1 less the mean squared local correlation of two images, per item, in [0, 1].

    $$1 - \frac{1}{N} \sum_p \frac{\mathrm{cov}_p(f, w)^2}{\mathrm{var}_p(f) \,
    \mathrm{var}_p(w) + \epsilon}$$

    Blind to brightness and contrast, as images of different devices need it. A window in which one
    of the images is flat counts as one without correlation: an image that was pushed out of the
    frame must not look like a good match.

    Args:
        fixed: `[batch, height, width, channels]`.
        warped: The same shape.
        window_px: Side of the window in which the correlation is taken.

    Returns:
        `[batch]`.

    Source:
        Balakrishnan et al. 2019, VoxelMorph, eq. 5.
    """

    def local_mean(image: Any) -> Any:
        # The count of pixels inside differs at the border: average pooling takes care of it.
        return tf.nn.avg_pool2d(image, window_px, 1, "SAME")

    mean_f, mean_w = local_mean(fixed), local_mean(warped)
    cross = local_mean(fixed * warped) - mean_f * mean_w
    var_f = tf.maximum(local_mean(fixed * fixed) - mean_f * mean_f, 0.0)
    var_w = tf.maximum(local_mean(warped * warped) - mean_w * mean_w, 0.0)
    # Far above the rounding of a flat window, far below the product of any two that are not.
    correlation = cross * cross / (var_f * var_w + 1e-9)
    return 1.0 - tf.reduce_mean(correlation, axis=[1, 2, 3])
