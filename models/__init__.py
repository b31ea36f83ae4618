"""TensorFlow side of stnkit: spatial transformers, their parts, and the models shipped with it.

The names below are imported on first use, so that the data files of this package can be read on a
machine without TensorFlow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stnkit.models.grids import AffineGridGenerator, affine_grid
    from stnkit.models.layer import SpatialTransformer
    from stnkit.models.localization import localization_cnn
    from stnkit.models.sampling import GridSampler, grid_sample
    from stnkit.models.taps import mark_theta, mark_warped
    from stnkit.models.theta_head import ThetaHead

__all__ = [
    "AffineGridGenerator",
    "GridSampler",
    "SpatialTransformer",
    "ThetaHead",
    "affine_grid",
    "grid_sample",
    "localization_cnn",
    "mark_theta",
    "mark_warped",
]

_HOME = {
    "AffineGridGenerator": "grids",
    "GridSampler": "sampling",
    "SpatialTransformer": "layer",
    "ThetaHead": "theta_head",
    "affine_grid": "grids",
    "grid_sample": "sampling",
    "localization_cnn": "localization",
    "mark_theta": "taps",
    "mark_warped": "taps",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
