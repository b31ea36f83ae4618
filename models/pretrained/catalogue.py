"""Where the shipped models lie, and what lies beside them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

NAMES = ("digits",)
"""Names accepted wherever a model path is."""

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Samples:
    """Real images with their labels.

    Attributes:
        images: `[count, height, width, channels]` uint8.
        labels: `[count]` uint8, the index of each image's class.
        class_names: Name of every class, in the order of the model's scores.
    """

    images: np.ndarray[Any, np.dtype[np.uint8]]
    labels: np.ndarray[Any, np.dtype[np.uint8]]
    class_names: tuple[str, ...]


def _file(name: str, suffix: str) -> Path:
    if name not in NAMES:
        raise ValueError(f"no shipped model is called {name!r}: there is {', '.join(NAMES)}")
    return _FOLDER / f"{name}{suffix}"


def model_file(name: str) -> Path:
    """Return the `.keras` file of a shipped model.

    Raises:
        ValueError: If no model has that name.
    """
    return _file(name, ".keras")


def provenance(name: str) -> dict[str, Any]:
    """Return how a shipped model was made: command, seed, data checksums, versions, accuracy.

    Raises:
        ValueError: If no model has that name.
    """
    content: dict[str, Any] = json.loads(_file(name, ".provenance.json").read_text("utf-8"))
    return content


def samples(name: str) -> Samples:
    """Return the sample images shipped with a model.

    Raises:
        ValueError: If no model has that name.
    """
    with np.load(_file(name, ".samples.npz"), allow_pickle=False) as data:
        return Samples(
            images=data["images"],
            labels=data["labels"],
            class_names=tuple(str(text) for text in data["class_names"]),
        )
