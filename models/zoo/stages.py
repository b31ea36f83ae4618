"""Spatial transformers in sequence, in front of a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from stnkit.models.composition import ComposeTheta
from stnkit.models.layer import SpatialTransformer
from stnkit.models.localization import localization_cnn
from stnkit.models.theta_head import ThetaHead
from stnkit.models.transforms.registry import as_transform
from stnkit.models.zoo.arguments import check_choice, check_count

RESAMPLING = ("once", "each")
_SMALLEST_MAP_PX = 7
_FILTERS = (8, 16, 32, 32, 32, 32, 32, 32)


def localization_for(height: int, width: int, name: str, units: int = 64) -> Any:
    """Return a localisation network that fits images of a size.

    It halves the image until its shorter side is below 14 px, once at least, so that neither the
    network nor its dense layer grows with the image.
    """
    side, blocks = min(height, width) // 2, 1
    while side // 2 >= _SMALLEST_MAP_PX and blocks < len(_FILTERS):
        side, blocks = side // 2, blocks + 1
    return localization_cnn(_FILTERS[:blocks], units=units, kernel_size=3, name=name)


def transformer_stages(
    image: Any,
    count: int = 1,
    *,
    transform: Any = "affine",
    resampling: str = "once",
    output_size: Any = None,
    make_localization_net: Callable[[int], Any] | None = None,
    **options: Any,
) -> Any:
    """Return a Keras tensor: `image` behind `count` spatial transformers.

    Each stage sees what the stages before it made of the image and corrects it. With "once" the
    stages' thetas are composed and every stage reads the original image: nothing is blurred twice,
    and what one stage pushed out of the frame the next can bring back. With "each" every stage
    resamples what the one before it made.

    Args:
        image: Keras tensor `[batch, height, width, channels]` of known size.
        count: How many, at least 1.
        transform: What theta means; for "once" one that can be composed.
        resampling: "once" or "each".
        output_size: `(height, width)` of the result, px; None keeps that of the image.
        make_localization_net: From the number of the stage (0 first) to its localisation network; a
            small convolutional one by default.
        **options: Further arguments of `SpatialTransformer`, e.g. `padding_mode`.

    Returns:
        Keras tensor `[batch, *output_size, channels]`. The layers are called
        `spatial_transformer_1` and so on; a single one has no number.

    Raises:
        ValueError: If an argument is wrong, or the thetas of `transform` cannot be composed.

    Source:
        "each": Jaderberg et al. 2015, section 3.4. "once": Lin and Lucey 2017.
    """
    check_count(count, "transformers")
    check_choice(resampling, "resampling", RESAMPLING)
    family = as_transform(transform)
    theta, warped = None, image
    for number in range(count):
        suffix = f"_{number + 1}" if count > 1 else ""
        net = (
            localization_for(warped.shape[1], warped.shape[2], f"localization{suffix}")
            if make_localization_net is None
            else make_localization_net(number)
        )
        layer = {
            "transform": family,
            "output_size": output_size,
            "name": f"spatial_transformer{suffix}",
            **options,
        }
        if resampling == "each":
            warped = SpatialTransformer(net, **layer)(warped)
            continue
        step = ThetaHead(family, name=f"theta_head{suffix}")(net(warped))
        if theta is not None:
            step = ComposeTheta(family, name=f"compose{suffix}")([theta, step])
        theta = step
        warped = SpatialTransformer(**layer)([image, theta])
    return warped


def image_input(shape: tuple[int, int, int], name: str = "image") -> Any:
    """Return the input of a network: an image in [0, 1]."""
    return keras.Input(shape, name=name)
