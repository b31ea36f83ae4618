"""Finding out that an optional part of stnkit is missing before it fails inside."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec


def require_convert() -> None:
    """Check that what the `[convert]` extra brings is installed.

    Raises:
        BackendMissingError: If TensorFlow, Keras, tf2onnx or onnx is not there.
    """
    from stnkit.runtime.errors import BackendMissingError

    for package in ("tensorflow", "keras", "tf2onnx", "onnx"):
        if find_spec(package) is None:
            raise BackendMissingError(backend="convert", package=package, extra="convert")


def require_backends(formats: Iterable[str]) -> None:
    """Check that what runs each format is installed: without it nothing can be proven.

    Raises:
        BackendMissingError: If one is not there.
    """
    from stnkit.runtime.backends import available, backend_for
    from stnkit.runtime.errors import BackendMissingError

    for format in formats:
        info = backend_for(format)
        if not available(info.name):
            raise BackendMissingError(info.name, info.package, info.extra)


def require_serve() -> None:
    """Check that what the `[serve]` extra brings is installed.

    Raises:
        BackendMissingError: If uvicorn, httptools, orjson, grpcio, protobuf or prometheus-client is
            not there.
    """
    from stnkit.runtime.errors import BackendMissingError

    for module, package in (
        ("uvicorn", "uvicorn"),
        ("httptools", "httptools"),
        ("orjson", "orjson"),
        ("grpc", "grpcio"),
        ("google.protobuf", "protobuf"),
        ("prometheus_client", "prometheus-client"),
    ):
        try:
            missing = find_spec(module) is None
        except ModuleNotFoundError:  # its parent package is not there either
            missing = True
        if missing:
            raise BackendMissingError(backend="serve", package=package, extra="serve")
