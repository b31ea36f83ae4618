"""Names under which a graph shows what its spatial transformers computed.

A tap is an identity node with a fixed name. It costs nothing (every converter removes it) and it
survives tracing, `model.export` and freezing, so that the proof finds theta and the warped image in
a model of any kind, without the Python class that made them.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

THETA_MARK = "stnkit_theta"
WARPED_MARK = "stnkit_warped"


def mark_theta(theta: Any) -> Any:
    """Mark the parameters of a spatial transformer, so that conversion compares them too.

    Call it inside the layer's `call`; the tap takes its name from the layer.

    Args:
        theta: Tensor of any shape, batch first, e.g. `[batch, 2, 3]`.

    Returns:
        `theta` itself, passed through a named identity.
    """
    return tf.identity(theta, name=THETA_MARK)


def mark_warped(image: Any) -> Any:
    """Mark the image that a spatial transformer made, so that conversion compares it too.

    Args:
        image: Tensor `[batch, height, width, channels]`.

    Returns:
        `image` itself, passed through a named identity.
    """
    return tf.identity(image, name=WARPED_MARK)
