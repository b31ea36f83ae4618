"""Names under which a graph shows what its spatial transformers computed.

A tap is an identity node with a fixed name. It costs nothing (every converter removes it) and it
survives tracing, `model.export` and freezing, so that the proof finds theta and the warped image in
a model of any kind, without the Python class that made them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

if TYPE_CHECKING:
    from stnkit.models.sampling.pixel_grid import PixelGrid

THETA_MARK = "stnkit_theta"
WARPED_MARK = "stnkit_warped"
SAMPLED_MARK = "stnkit_sampled"


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


def mark_sampled(sampled: Any, image: Any, grid: PixelGrid, padding_mode: str) -> Any:
    """Mark what the sampler computed from what, so that an exporter can put one op in its place.

    The mark is an op that hands all of it on, of which only the first output is used. Its name
    ends in the padding mode, and in what says where: "points" in pixels, or the kind of a theta,
    see `PixelGrid.origin`.

    Args:
        sampled: The sampled image.
        image: The image that was read.
        grid: Where.
        padding_mode: How points outside were read.

    Returns:
        `sampled` itself.
    """
    kind, where = grid.origin or ("points", grid.dense())
    # What is handed on beside the result has no gradient.
    rest = [tf.stop_gradient(image), tf.stop_gradient(where)]
    name = f"{SAMPLED_MARK}_{padding_mode}_{kind}"
    marked: Any = tf.raw_ops.IdentityN(input=[sampled, *rest], name=name)[0]
    return tf.ensure_shape(marked, sampled.shape)
