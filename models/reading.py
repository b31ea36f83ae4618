"""Reading theta and the warped image out of a model while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

_RECORDER: ContextVar[list[tuple[str, Any, Any]] | None] = ContextVar("recorder", default=None)


@dataclass(frozen=True)
class Transformation:
    """What one call of a spatial transformer did.

    Attributes:
        layer: Name of the layer.
        theta: `[batch, *theta_shape]`.
        warped: `[batch, height, width, channels]`.
    """

    layer: str
    theta: np.ndarray[Any, Any]
    warped: np.ndarray[Any, Any]


def record(layer: str, theta: Any, warped: Any) -> None:
    """Tell `read_transformers`, if it is waiting, what a layer computed."""
    recorder = _RECORDER.get()
    if recorder is not None:
        recorder.append((layer, theta, warped))


@contextmanager
def _recording() -> Iterator[list[tuple[str, Any, Any]]]:
    found: list[tuple[str, Any, Any]] = []
    token = _RECORDER.set(found)
    try:
        yield found
    finally:
        _RECORDER.reset(token)


def read_transformers(model: Any, inputs: Any) -> list[Transformation]:
    """Run a model on inputs and return what each spatial transformer inside did.

    Args:
        model: A built Keras model with `SpatialTransformer` layers, however deep.
        inputs: What the model takes, e.g. images `[batch, height, width, channels]`.

    Returns:
        One entry for every call of a transformer, in the order of the calls.

    Raises:
        ValueError: If the model has no spatial transformer.
    """
    with _recording() as found:
        model(inputs, training=False)
    if not found:
        raise ValueError(f"the model {model.name!r} has no SpatialTransformer inside")
    return [
        Transformation(name, np.asarray(theta), np.asarray(warped)) for name, theta, warped in found
    ]
