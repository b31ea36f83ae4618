"""A small U-Net: what segmentation and registration are computed with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


def unet(
    image: Any, filters: Sequence[int], *, levels_up: int | None = None, name: str = "unet"
) -> Any:
    """Return features for every pixel of `image`.

    Each entry of `filters` but the first halves the image on the way down and doubles it on the way
    up, where the features of the way down are concatenated.

    Args:
        image: Keras tensor `[batch, height, width, channels]`; its sides are multiples of
            2 ** (len(filters) - 1).
        filters: Channels of each level, the finest first.
        levels_up: How many levels the way up climbs; all by default. One less gives features at
            half the resolution.
        name: What the names of the layers start with.

    Returns:
        Keras tensor `[batch, height, width, filters[0]]`, or of a coarser level.

    Source:
        Ronneberger et al. 2015, U-Net, with one convolution in each block.
    """
    layers = keras.layers

    def block(x: Any, count: int, label: str) -> Any:
        x = layers.Conv2D(count, 3, padding="same", use_bias=False, name=f"{name}_{label}_conv")(x)
        # The default of 0.99 remembers its start of 1 for hundreds of steps. The features of a dark
        # image vary by a hundredth: what trained well would infer badly until then.
        x = layers.BatchNormalization(momentum=0.9, name=f"{name}_{label}_norm")(x)
        return layers.ReLU(name=f"{name}_{label}_relu")(x)

    skips = []
    x = image
    for level, count in enumerate(filters):
        if level:
            x = layers.MaxPooling2D(2, name=f"{name}_pool{level}")(x)
        x = block(x, count, f"down{level}")
        skips.append(x)
    climbs = len(filters) - 1 if levels_up is None else levels_up
    for level in reversed(range(len(filters) - 1 - climbs, len(filters) - 1)):
        x = layers.UpSampling2D(2, name=f"{name}_grow{level}")(x)
        x = layers.Concatenate(name=f"{name}_join{level}")([x, skips[level]])
        x = block(x, filters[level], f"up{level}")
    return x
