"""Registration of image pairs: an affine map, then a flow, in one sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from stnkit.models.composition import DisplacementField
from stnkit.models.layer import SpatialTransformer
from stnkit.models.theta_head import ThetaHead
from stnkit.models.transforms.chain import Chain
from stnkit.models.transforms.flow import DenseFlow, DiffeomorphicFlow
from stnkit.models.transforms.linear import Affine
from stnkit.models.zoo.arguments import check_choice, check_filters, check_input_shape
from stnkit.models.zoo.stages import image_input, localization_for
from stnkit.models.zoo.unet import unet

FLOWS = ("diffeomorphic", "dense")


def registration_network(
    input_shape: Any = (64, 64, 1),
    flow: str = "diffeomorphic",
    filters: Sequence[int] = (16, 32, 32),
    steps: int = 7,
    padding_mode: str = "zeros",
) -> Any:
    """Return a network that warps a moving image onto a fixed one.

    An affine transformer brings the moving image near, a U-Net looks at the result beside the fixed
    image and gives a flow at half the resolution, and both maps together are applied to the moving
    image, which is sampled once. Untrained, the network returns the moving image.

    Args:
        input_shape: `(height, width, channels)` of both images; multiples of
            2 ** (len(filters) - 1).
        flow: "diffeomorphic": the U-Net's output is a stationary velocity field, and the flow can
            be inverted; "dense": it is the displacement itself.
        filters: Channels of the U-Net's levels, the finest first, two at least.
        steps: Squarings of the diffeomorphic flow.
        padding_mode: What is read outside of the moving image.

    Returns:
        Functional model from {"moving", "fixed"} `[batch, *input_shape]` float32 in [0, 1] to
        {"warped": `[batch, *input_shape]`, "flow": `[batch, height, width, 2]`}. The flow is the
        displacement of the whole map, affine part included, (x, y) in normalised units: the same
        map is applied to a label image by `grid_sample(labels, identity_grid + flow)`.

    Raises:
        ValueError: If an argument is wrong.

    Source:
        Balakrishnan et al. 2019, VoxelMorph; Dalca et al. 2018 (the diffeomorphic form).
    """
    check_choice(flow, "flow", FLOWS)
    filters = check_filters(filters, 2)
    shape = check_input_shape(input_shape, multiple=2 ** (len(filters) - 1))
    half = (shape[0] // 2, shape[1] // 2)
    affine = Affine()
    bend = DiffeomorphicFlow(half, steps) if flow == "diffeomorphic" else DenseFlow(half)
    both = Chain([affine, bend])
    layers = keras.layers
    moving, fixed = image_input(shape, "moving"), image_input(shape, "fixed")
    pair = layers.Concatenate(name="pair")([moving, fixed])
    theta = ThetaHead(affine, name="theta_head")(
        localization_for(shape[0], shape[1], "localization")(pair)
    )
    near = SpatialTransformer(transform=affine, padding_mode=padding_mode, name="affine_stage")(
        [moving, theta]
    )
    near_pair = layers.Concatenate(name="near_pair")([near, fixed])
    features = unet(near_pair, filters, levels_up=len(filters) - 2)
    # Zero, so that training starts from the affine map alone; float32, as every coordinate.
    field = layers.Conv2D(
        2, 3, padding="same", kernel_initializer="zeros", dtype="float32", name="field"
    )(features)
    flat = [
        layers.Reshape((affine.num_params,), dtype="float32", name="affine_flat")(theta),
        layers.Reshape((bend.num_params,), dtype="float32", name="field_flat")(field),
    ]
    whole = layers.Concatenate(dtype="float32", name="whole_theta")(flat)
    warp = SpatialTransformer(transform=both, padding_mode=padding_mode, name="flow_stage")
    return keras.Model(
        {"moving": moving, "fixed": fixed},
        {
            "warped": warp([moving, whole]),
            "flow": DisplacementField(both, shape[:2], name="flow")(whole),
        },
        name="registration",
    )
