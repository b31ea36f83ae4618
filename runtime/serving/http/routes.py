"""Find out what a method and a path ask for.

Source: Open Inference Protocol (KServe V2), HTTP/REST, and its extensions.
"""

from __future__ import annotations

from dataclasses import dataclass

from stnkit.runtime.serving.errors import NotFoundError, ServingError
from stnkit.runtime.serving.limits import Limits

__all__ = ["MethodError", "Route", "find_route"]


@dataclass(frozen=True, slots=True)
class Route:
    """What is asked for.

    Attributes:
        action: e.g. `"infer"`.
        model: name of the model, "" where it is none's affair.
        version: its version, "" for the newest.
    """

    action: str
    model: str = ""
    version: str = ""


class MethodError(ServingError):
    """The path takes another method.

    Args:
        method: the one that was used.
        allowed: the ones that it takes.
    """

    status = 405
    grpc_code = "UNIMPLEMENTED"

    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        super().__init__(
            f"this path does not take {method[:16]!r}: expected {' or '.join(allowed)}"
        )
        self.allowed = allowed


_GET = ("GET", "HEAD")
_POST = ("POST",)

# Path below /v2 -> action and methods.
_PLAIN = {
    ("health", "live"): ("live", _GET),
    ("health", "ready"): ("ready", _GET),
    (): ("server", _GET),
    ("models", "stats"): ("stats", _GET),
    ("repository", "index"): ("index", _POST),
    ("openapi.json",): ("openapi", _GET),
}
# What follows /v2/models/NAME or /v2/models/NAME/versions/VERSION.
_OF_MODEL = {
    (): ("metadata", _GET),
    ("ready",): ("model_ready", _GET),
    ("config",): ("config", _GET),
    ("stats",): ("stats", _GET),
    ("infer",): ("infer", _POST),
    ("classify",): ("classify", _POST),
}


def find_route(method: str, path: str, *, limits: Limits) -> Route:
    """Return what a request asks for.

    Args:
        method: HTTP's method.
        path: its path, unquoted, without the query.
        limits: the longest name.

    Raises:
        NotFoundError: there is no such path.
        MethodError: the path takes another method.
    """
    if path == "/metrics":
        return _route(method, ("metrics", _GET))
    parts = tuple(path.split("/"))
    if parts[-1] == "":
        parts = parts[:-1]
    if parts[:2] != ("", "v2") or any(len(part) > limits.text_length_max for part in parts):
        raise _nothing()
    rest = parts[2:]
    plain = _PLAIN.get(rest)
    if plain is not None:
        return _route(method, plain)
    if rest[:2] == ("repository", "models") and len(rest) == 4 and rest[3] in ("load", "unload"):
        return _route(method, (rest[3], _POST), rest[2])
    if rest[:1] == ("models",) and len(rest) > 1:
        model, version, rest = rest[1], "", rest[2:]
        if rest[:1] == ("versions",) and len(rest) > 1:
            version, rest = rest[1], rest[2:]
        found = _OF_MODEL.get(rest)
        if found is not None and model and (version or "versions" not in parts[4:5]):
            return _route(method, found, model, version)
    raise _nothing()


def _route(
    method: str, found: tuple[str, tuple[str, ...]], model: str = "", version: str = ""
) -> Route:
    action, methods = found
    if method not in methods:
        raise MethodError(method, methods)
    return Route(action, model, version)


def _nothing() -> NotFoundError:
    return NotFoundError("there is nothing at this path: expected one of the protocol's, as /v2")
