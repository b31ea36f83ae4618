"""Transforms by name, and as configuration."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

from stnkit.models.transforms.base import Transform
from stnkit.models.transforms.chain import Chain
from stnkit.models.transforms.flow import DenseFlow, DiffeomorphicFlow
from stnkit.models.transforms.linear import Affine, Attention, Similarity, Translation
from stnkit.models.transforms.projective import Projective
from stnkit.models.transforms.thin_plate_spline import ThinPlateSpline

_CLASSES: dict[str, type[Transform]] = {
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
        Chain,
    )
}


TransformClass = TypeVar("TransformClass", bound=type[Transform])


def register_transform(cls: TransformClass) -> TransformClass:
    """Make a transform of your own known by its name, so that layers with it save and load.

    A decorator. What is loaded is made by `cls(**config)` from what its `get_config` returned. The
    same class registered again, as a notebook's cell does that is run twice, replaces the former.

    Args:
        cls: A subclass of `Transform` with a `name` of its own and nothing left abstract.

    Returns:
        The class.

    Raises:
        ValueError: If it is no such class, or its name is taken by another.
    """
    if not (isinstance(cls, type) and issubclass(cls, Transform)):
        raise ValueError(f"cannot register {cls!r}: expected a subclass of Transform")
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise ValueError(f"cannot register {cls.__qualname__}: it does not define {missing}")
    name = getattr(cls, "name", None)
    if not (isinstance(name, str) and name):
        raise ValueError(
            f"cannot register {cls.__qualname__}: its name is {name!r}, expected a text, "
            'e.g. name = "swirl"'
        )
    known = _CLASSES.get(name)
    if known is not None and not _is_same(cls, known):
        raise ValueError(
            f"cannot register {cls.__qualname__}: its name {name!r} is that of "
            f"{known.__module__}.{known.__qualname__}; give it a name of its own"
        )
    _CLASSES[name] = cls
    return cls


def _is_same(cls: type[Transform], known: type[Transform]) -> bool:
    return (cls.__module__, cls.__qualname__) == (known.__module__, known.__qualname__)


def transform_names() -> tuple[str, ...]:
    """Return the names of all transforms, the simplest first and those of your own last."""
    return tuple(_CLASSES)


def as_transform(transform: Any) -> Transform:
    """Return the transform that an object, a name or a configuration stands for.

    Args:
        transform: A `Transform`; a name, for one with its defaults; or what `describe` returns.

    Raises:
        ValueError: If it is none of them, the arguments are wrong, or its class is not registered.
    """
    if isinstance(transform, Transform):
        # Now, and not when the model is saved: Keras has emptied the file by then.
        _check_registered(transform)
        return transform
    name, arguments = transform, {}
    if isinstance(transform, Mapping):
        arguments = {key: value for key, value in transform.items() if key != "name"}
        name = transform.get("name")
    if not isinstance(name, str) or name not in _CLASSES:
        known = ", ".join(repr(known) for known in _CLASSES)
        raise ValueError(
            f"transform is {transform!r}: expected a Transform or one of {known}. One of your own "
            "is known when the module that decorates it with stnkit.models.register_transform has "
            "been imported (on the command line: --custom-objects module:*)"
        )
    try:
        return _CLASSES[name](**arguments)
    except TypeError as exc:
        example = "(size=(28, 28))" if issubclass(_CLASSES[name], DenseFlow) else "()"
        raise ValueError(
            f"transform {name!r} cannot be made from {arguments} ({exc}): make the object "
            f"yourself, e.g. {_CLASSES[name].__name__}{example}"
        ) from exc


def describe(transform: Transform) -> dict[str, Any]:
    """Return a transform as JSON values, which `as_transform` reads.

    Raises:
        ValueError: If its class is not registered: nothing could make it again from its name.
    """
    _check_registered(transform)
    return {"name": transform.name, **transform.get_config()}


def _check_registered(transform: Transform) -> None:
    cls = type(transform)
    name = getattr(cls, "name", None)
    known = _CLASSES.get(name) if isinstance(name, str) else None
    if known is None or not _is_same(cls, known):
        raise ValueError(
            f"transform is a {cls.__qualname__}, whose class is not registered: a layer with it "
            "could not be loaded again. Decorate the class with stnkit.models.register_transform "
            'and give it a name of its own, e.g. name = "swirl"'
        )
