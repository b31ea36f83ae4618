"""Hand out the OpenAPI description of what is served."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

__all__ = ["openapi"]


@cache
def openapi() -> bytes:
    """Return the description, OpenAPI 3.1 as JSON."""
    return files(__package__).joinpath("openapi.json").read_bytes()
