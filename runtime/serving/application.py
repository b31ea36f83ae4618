"""Make the ASGI application for other servers to host."""

from __future__ import annotations

import os
from collections.abc import Sequence

from stnkit.runtime.serving.core import ServingCore
from stnkit.runtime.serving.http.app import ServingApp
from stnkit.runtime.serving.limits import Limits
from stnkit.runtime.serving.options import BundleSource, ModelOptions, parse_source

__all__ = ["app"]

_Bundle = str | os.PathLike[str] | BundleSource


def app(
    bundles: _Bundle | Sequence[_Bundle],
    options: ModelOptions | None = None,
    limits: Limits | None = None,
    *,
    management_token: str | None = None,
    log_requests: bool = False,
) -> ServingApp:
    """Return an ASGI application that serves bundles over HTTP.

    The host's lifespan loads the models; a host without one calls `core.open()` first. What only a
    connection knows, the length of headers and how long a client takes, is the host's to bound.

    Args:
        bundles: one or several, each as on the command line, `BUNDLE`, `NAME=BUNDLE` or
            `NAME@VERSION=BUNDLE`.
        options: how they are served.
        limits: what clients may send.
        management_token: opens the repository's routes to who presents it.
        log_requests: whether every request leaves a line in the log.

    Raises:
        InputError: a version 0.
    """
    several = [bundles] if isinstance(bundles, str | os.PathLike | BundleSource) else bundles
    sources = [
        it if isinstance(it, BundleSource) else parse_source(os.fspath(it)) for it in several
    ]
    core = ServingCore(sources, options, limits, management_token=management_token)
    return ServingApp(core, log_requests=log_requests)
