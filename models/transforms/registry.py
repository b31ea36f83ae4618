"""Transforms by name, and as configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stnkit.models.transforms.base import Transform
from stnkit.models.transforms.flow import DenseFlow, DiffeomorphicFlow
from stnkit.models.transforms.linear import Affine, Attention, Similarity, Translation
from stnkit.models.transforms.projective import Projective
from stnkit.models.transforms.thin_plate_spline import ThinPlateSpline

_CLASSES: Mapping[str, type[Transform]] = {
    cls.name: cls
    for cls in (
        Translation,
        Attention,
        Similarity,
        Affine,
        Projective,
        ThinPlateSpline,
        DenseFlow,
        DiffeomorphicFlow,
    )
}


def transform_names() -> tuple[str, ...]:
    """Return the names of all transforms, the simplest first."""
    return tuple(_CLASSES)


def as_transform(transform: Any) -> Transform:
    """Return the transform that an object, a name or a configuration stands for.

    Args:
        transform: A `Transform`; a name, for one with its defaults; or what `describe` returns.

    Raises:
        ValueError: If it is none of them, or the arguments are wrong.
    """
    if isinstance(transform, Transform):
        return transform
    name, arguments = transform, {}
    if isinstance(transform, Mapping):
        arguments = {key: value for key, value in transform.items() if key != "name"}
        name = transform.get("name")
    if not isinstance(name, str) or name not in _CLASSES:
        known = ", ".join(repr(known) for known in _CLASSES)
        raise ValueError(f"transform is {transform!r}: expected a Transform or one of {known}")
    try:
        return _CLASSES[name](**arguments)
    except TypeError as exc:
        example = "(size=(28, 28))" if issubclass(_CLASSES[name], DenseFlow) else "()"
        raise ValueError(
            f"transform {name!r} cannot be made from {arguments} ({exc}): make the object "
            f"yourself, e.g. {_CLASSES[name].__name__}{example}"
        ) from exc


def describe(transform: Transform) -> dict[str, Any]:
    """Return a transform as JSON values, which `as_transform` reads."""
    return {"name": transform.name, **transform.get_config()}
