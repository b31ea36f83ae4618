"""Every transform, sampler mode, padding and align_corners goes to both targets and is proven.

The whole product is slow; without it each value of each column still meets both formats.
"""

from __future__ import annotations

import itertools

import keras
import pytest

import stnkit.runtime as runtime
from stnkit.convert import ConversionOptions, convert, source_from_keras
from stnkit.models import (
    Affine,
    Attention,
    DenseFlow,
    DiffeomorphicFlow,
    InverseSpatialTransformer,
    Projective,
    Similarity,
    SpatialTransformer,
    ThinPlateSpline,
    Translation,
)

TRANSFORMS = {
    transform.name: transform
    for transform in (
        Translation(),
        Attention(),
        Similarity(),
        Affine(),
        Projective(bounds=0.2),
        ThinPlateSpline(3),
        DenseFlow((5, 4)),
        DiffeomorphicFlow((5, 4), steps=3),
    )
}
INTERPOLATIONS = ("bilinear", "nearest", "bicubic")
PADDING_MODES = ("zeros", "border", "reflection")

PRODUCT = list(itertools.product(TRANSFORMS, INTERPOLATIONS, PADDING_MODES, (False, True)))
# One row for each transform, through every mode in turn: all three columns meet all their values.
EACH_ONCE = [
    (name, INTERPOLATIONS[i % 3], PADDING_MODES[(i // 2) % 3], i % 2 == 0)
    for i, name in enumerate(TRANSFORMS)
]


def model_of(transform, output_size=(16, 12), **modes):
    """Return a model that warps a photo by a theta that it is given."""
    photo = keras.Input((16, 14, 2), name="photo")
    theta = keras.Input((transform.num_params,), name="theta")
    layer = SpatialTransformer(name="stn", transform=transform, output_size=output_size, **modes)
    return keras.Model([photo, theta], layer([photo, theta]))


def prove(model, folder, batches=(1, 3)):
    """Convert for an open batch, for fixed ones, and with each ONNX op that samplers can become.

    Converting raises what differs.
    """
    source = source_from_keras(model)
    choices = [ConversionOptions(batch=batch) for batch in (None, *batches)]
    # Before opset 19 there is no DeformConv.
    choices += [ConversionOptions(formats=("onnx",), opset=18)]
    choices += [ConversionOptions(formats=("onnx",), sampler="gather")]
    for number, options in enumerate(choices):
        bundle = folder / f"{number}.bundle"
        result = convert(source, bundle, options)
        assert len(result.reports) == len(options.formats)
        for artifact in result.manifest.artifacts:
            summary = runtime.summarize((bundle / artifact.file).read_bytes())
            assert summary.foreign_ops == ()
            # Neither the grid (16 x 12 points) nor what a spline is made of is baked in.
            assert summary.largest_constant.bytes < 4 * 16 * 12


@pytest.mark.parametrize(
    ("name", "interpolation", "padding_mode", "align_corners"), EACH_ONCE, ids=str
)
def test_each_value_once(name, interpolation, padding_mode, align_corners, tmp_path):
    model = model_of(
        TRANSFORMS[name],
        interpolation=interpolation,
        padding_mode=padding_mode,
        align_corners=align_corners,
    )
    prove(model, tmp_path, batches=(3,))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "interpolation", "padding_mode", "align_corners"), PRODUCT, ids=str
)
def test_the_whole_product(name, interpolation, padding_mode, align_corners, tmp_path):
    model = model_of(
        TRANSFORMS[name],
        interpolation=interpolation,
        padding_mode=padding_mode,
        align_corners=align_corners,
    )
    prove(model, tmp_path)


def test_antialiasing_and_the_way_back(tmp_path):
    """A photo is cropped, made smaller with anti-aliasing, and pasted back into its frame."""
    photo = keras.Input((16, 14, 2), name="photo")
    theta = keras.Input((3,), name="theta")
    crop = SpatialTransformer(
        name="crop", transform="attention", output_size=(8, 7), antialias=True
    )
    back = InverseSpatialTransformer(name="back", transform="attention", output_size=(16, 14))
    model = keras.Model([photo, theta], back([crop([photo, theta]), theta]))
    result = convert(source_from_keras(model), tmp_path / "b")
    names = {tap.name for tap in result.manifest.taps}
    assert names == {"crop/theta", "crop/warped", "back/theta", "back/warped"}
