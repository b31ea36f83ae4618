"""Serve bundles with the Open Inference Protocol, over HTTP and gRPC.

The names below are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stnkit.runtime.serving.application import app
    from stnkit.runtime.serving.core import ServingCore
    from stnkit.runtime.serving.limits import Limits
    from stnkit.runtime.serving.options import BundleSource, ModelOptions
    from stnkit.runtime.serving.server import ServerOptions, run_server

__all__ = [
    "BundleSource",
    "Limits",
    "ModelOptions",
    "ServerOptions",
    "ServingCore",
    "app",
    "run_server",
]

_HOMES = {
    "BundleSource": "options",
    "Limits": "limits",
    "ModelOptions": "options",
    "ServerOptions": "server",
    "ServingCore": "core",
    "app": "application",
    "run_server": "server",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
