"""Networks that people build with a spatial transformer, as functions and by name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stnkit.models.zoo.backbone import backbone_network, vgg16_network
    from stnkit.models.zoo.catalogue import ENTRIES, Entry, entry, make
    from stnkit.models.zoo.paper import paper_network
    from stnkit.models.zoo.parallel import parallel_network
    from stnkit.models.zoo.registration import registration_network
    from stnkit.models.zoo.registration_losses import bending_energy, local_correlation_loss
    from stnkit.models.zoo.segmentation import segmentation_network
    from stnkit.models.zoo.stages import transformer_stages
    from stnkit.models.zoo.tutorial import tutorial_network

__all__ = [
    "ENTRIES",
    "Entry",
    "backbone_network",
    "bending_energy",
    "entry",
    "local_correlation_loss",
    "make",
    "paper_network",
    "parallel_network",
    "registration_network",
    "segmentation_network",
    "transformer_stages",
    "tutorial_network",
    "vgg16_network",
]

_HOME = {
    "ENTRIES": "catalogue",
    "Entry": "catalogue",
    "backbone_network": "backbone",
    "bending_energy": "registration_losses",
    "entry": "catalogue",
    "local_correlation_loss": "registration_losses",
    "make": "catalogue",
    "paper_network": "paper",
    "parallel_network": "parallel",
    "registration_network": "registration",
    "segmentation_network": "segmentation",
    "transformer_stages": "stages",
    "tutorial_network": "tutorial",
    "vgg16_network": "backbone",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
