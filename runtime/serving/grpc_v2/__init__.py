"""The Open Inference Protocol over gRPC.

The names are imported on first use, so that the package costs nothing where gRPC is not served.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stnkit.runtime.serving.grpc_v2.contract import Core
    from stnkit.runtime.serving.grpc_v2.server import GrpcServer

__all__ = ["Core", "GrpcServer"]

_HOMES = {"Core": "contract", "GrpcServer": "server"}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
