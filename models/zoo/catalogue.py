"""The networks of the zoo by name. Listing them needs no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Entry:
    """A network that can be made by name.

    Attributes:
        name: Name on the command line.
        summary: What it is, in one line.
        function: `module:function` that makes it.
        options: Keyword arguments of the function that the command line offers.
        parameters: Number of parameters with all defaults.
        fixed: Arguments that make the name what it is.
    """

    name: str
    summary: str
    function: str
    options: tuple[str, ...]
    parameters: int
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def make(self, **arguments: Any) -> Any:
        """Return the network, untrained.

        Raises:
            ValueError: If an argument is none of the options, or its value is wrong.
        """
        unknown = [name for name in arguments if name not in self.options]
        if unknown:
            raise ValueError(
                f"the model {self.name!r} has no option {unknown[0]!r}: it takes "
                f"{', '.join(self.options) or 'none'}"
            )
        module, _, function = self.function.partition(":")
        return getattr(import_module(module), function)(**{**self.fixed, **arguments})


_BACKBONE = (
    "input_shape",
    "classes",
    "weights",
    "trainable",
    "transformers",
    "resampling",
    "transform",
    "output_size",
)
_PAPER = "stnkit.models.zoo.paper:paper_network"

ENTRIES: tuple[Entry, ...] = (
    Entry(
        "tutorial",
        "the 28x28 network of a first tutorial, a transformer as its first stage",
        "stnkit.models.zoo.tutorial:tutorial_network",
        ("classes", "transform"),
        27_360,
    ),
    Entry(
        "digits",
        "the network of the shipped digits model",
        "stnkit.models.digits.network:digits_network",
        (),
        155_520,
    ),
    Entry(
        "paper-fcn",
        "the paper's fully connected network for distorted digits",
        _PAPER,
        ("input_shape", "classes"),
        399_566,
        {"kind": "fcn"},
    ),
    Entry(
        "paper-cnn",
        "the paper's convolutional network for distorted digits",
        _PAPER,
        ("input_shape", "classes"),
        399_862,
        {"kind": "cnn"},
    ),
    Entry(
        "paper-st-fcn",
        "paper-fcn with a spatial transformer in front, of the same size",
        _PAPER,
        ("input_shape", "classes", "transform"),
        398_100,
        {"kind": "st_fcn"},
    ),
    Entry(
        "paper-st-cnn",
        "paper-cnn with a spatial transformer in front, of the same size",
        _PAPER,
        ("input_shape", "classes", "transform"),
        399_336,
        {"kind": "st_cnn"},
    ),
    Entry(
        "vgg16",
        "VGG16 with one or more transformers in front",
        "stnkit.models.zoo.backbone:vgg16_network",
        _BACKBONE,
        14_975_968,
    ),
    Entry(
        "backbone",
        "any network of keras.applications (MobileNetV2) with transformers in front",
        "stnkit.models.zoo.backbone:backbone_network",
        ("backbone", *_BACKBONE),
        2_401_248,
    ),
    Entry(
        "parallel",
        "several attention crops side by side, as in the paper's bird model",
        "stnkit.models.zoo.parallel:parallel_network",
        (
            "crops",
            "backbone",
            "input_shape",
            "output_size",
            "classes",
            "shared",
            "weights",
            "trainable",
        ),
        2_905_758,
    ),
    Entry(
        "segmentation",
        "transform, segment in a small frame, transform back",
        "stnkit.models.zoo.segmentation:segmentation_network",
        ("input_shape", "classes", "frame_size", "transform"),
        195_702,
    ),
    Entry(
        "registration",
        "warps a moving image onto a fixed one: affine, then a flow",
        "stnkit.models.zoo.registration:registration_network",
        ("input_shape", "flow"),
        171_056,
    ),
)


def entry(name: str) -> Entry:
    """Return the entry of that name.

    Raises:
        ValueError: If there is none; the message lists those that exist.
    """
    for found in ENTRIES:
        if found.name == name:
            return found
    known = ", ".join(found.name for found in ENTRIES)
    raise ValueError(f"no model is called {name!r}: there is {known}")


def make(name: str, **arguments: Any) -> Any:
    """Return an untrained network by its name.

    Args:
        name: Name of an entry.
        **arguments: Options of that entry, e.g. `classes=5`.

    Raises:
        ValueError: If there is no such entry or option, or a value is wrong.
    """
    return entry(name).make(**arguments)
