"""`--custom-objects module:attr`: a user's own layers."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stnkit.runtime.errors import InputError, one_line


def resolve_custom_objects(references: Iterable[str]) -> dict[str, Any]:
    """Return the classes and functions that `module:attr` references name, by their own names.

    The working directory is searched as `python -m` would. An attribute may also be a dict of
    objects by name; `module:*` registers what the module decorates with Keras' own
    `register_keras_serializable`, which importing it does.

    Raises:
        InputError: If a reference has another form, its module cannot be imported, or has no such
            attribute.
    """
    found: dict[str, Any] = {}
    for reference in references:
        module_name, colon, attribute = reference.partition(":")
        if not colon or not module_name or not attribute:
            raise InputError(
                f"--custom-objects {reference}: expected module:attr, e.g. my_layers:MyLayer"
            )
        module = _import(module_name, reference)
        if attribute == "*":
            continue
        try:
            value = getattr(module, attribute)
        except AttributeError as exc:
            public = sorted(name for name in vars(module) if not name.startswith("_"))
            raise InputError(
                f"--custom-objects {reference}: {module_name} has no {attribute!r}; it has "
                f"{', '.join(public[:20])}"
            ) from exc
        if isinstance(value, Mapping):
            found.update({str(key): member for key, member in value.items()})
        else:
            found[getattr(value, "__name__", attribute)] = value
    return found


def _import(module_name: str, reference: str) -> Any:
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module_name)
    except Exception as exc:  # the user's module may fail in any way while it is imported
        raise InputError(
            f"--custom-objects {reference}: importing {module_name} failed "
            f"({type(exc).__name__}: {one_line(exc)}); it is looked for in the working directory "
            "and in what is installed"
        ) from exc
    finally:
        if added:
            sys.path.remove(here)
