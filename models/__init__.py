"""TensorFlow side of stnkit: spatial transformers, their parts, and the models shipped with it.

The names below are imported on first use, so that the data files of this package can be read on a
machine without TensorFlow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stnkit.models.composition import ComposeTheta, DisplacementField
    from stnkit.models.grids import AffineGridGenerator, affine_grid
    from stnkit.models.inverse_layer import InverseSpatialTransformer
    from stnkit.models.layer import SpatialTransformer
    from stnkit.models.localization import localization_cnn
    from stnkit.models.reading import Transformation, read_transformers
    from stnkit.models.sampling import GridSampler, grid_sample
    from stnkit.models.taps import mark_theta, mark_warped
    from stnkit.models.theta_head import ThetaHead
    from stnkit.models.transforms import (
        Affine,
        Attention,
        Chain,
        DenseFlow,
        DiffeomorphicFlow,
        Projective,
        Similarity,
        ThinPlateSpline,
        Transform,
        Translation,
        register_transform,
        transform_names,
    )
    from stnkit.models.transforms.matrices import pixel_matrix_to_theta, theta_to_pixel_matrix

__all__ = [
    "Affine",
    "AffineGridGenerator",
    "Attention",
    "Chain",
    "ComposeTheta",
    "DenseFlow",
    "DiffeomorphicFlow",
    "DisplacementField",
    "GridSampler",
    "InverseSpatialTransformer",
    "Projective",
    "Similarity",
    "SpatialTransformer",
    "ThetaHead",
    "ThinPlateSpline",
    "Transform",
    "Transformation",
    "Translation",
    "affine_grid",
    "grid_sample",
    "localization_cnn",
    "mark_theta",
    "mark_warped",
    "pixel_matrix_to_theta",
    "read_transformers",
    "register_transform",
    "theta_to_pixel_matrix",
    "transform_names",
]

_HOME = {
    "Affine": "transforms",
    "AffineGridGenerator": "grids",
    "Attention": "transforms",
    "Chain": "transforms",
    "ComposeTheta": "composition",
    "DenseFlow": "transforms",
    "DiffeomorphicFlow": "transforms",
    "DisplacementField": "composition",
    "GridSampler": "sampling",
    "InverseSpatialTransformer": "inverse_layer",
    "Projective": "transforms",
    "Similarity": "transforms",
    "SpatialTransformer": "layer",
    "ThetaHead": "theta_head",
    "ThinPlateSpline": "transforms",
    "Transform": "transforms",
    "Transformation": "reading",
    "Translation": "transforms",
    "affine_grid": "grids",
    "grid_sample": "sampling",
    "localization_cnn": "localization",
    "mark_theta": "taps",
    "mark_warped": "taps",
    "pixel_matrix_to_theta": "transforms.matrices",
    "read_transformers": "reading",
    "register_transform": "transforms",
    "theta_to_pixel_matrix": "transforms.matrices",
    "transform_names": "transforms",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
