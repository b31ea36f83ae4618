"""Finding out that an optional part of stnkit is missing before it fails inside."""

from __future__ import annotations

from importlib.util import find_spec


def require_convert() -> None:
    """Check that what the `[convert]` extra brings is installed.

    Raises:
        BackendMissingError: If TensorFlow, tf2onnx or onnx is not there.
    """
    from stnkit.runtime.errors import BackendMissingError

    for package in ("tensorflow", "tf2onnx", "onnx"):
        if find_spec(package) is None:
            raise BackendMissingError(backend="convert", package=package, extra="convert")
