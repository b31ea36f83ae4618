"""Transforms: what theta means, and the grid it makes."""

from stnkit.models.transforms.base import MatrixTransform, Transform
from stnkit.models.transforms.chain import Chain
from stnkit.models.transforms.flow import DenseFlow, DiffeomorphicFlow
from stnkit.models.transforms.linear import Affine, Attention, Similarity, Translation
from stnkit.models.transforms.projective import Projective
from stnkit.models.transforms.registry import as_transform, register_transform, transform_names
from stnkit.models.transforms.thin_plate_spline import ThinPlateSpline

__all__ = [
    "Affine",
    "Attention",
    "Chain",
    "DenseFlow",
    "DiffeomorphicFlow",
    "MatrixTransform",
    "Projective",
    "Similarity",
    "ThinPlateSpline",
    "Transform",
    "Translation",
    "as_transform",
    "register_transform",
    "transform_names",
]
