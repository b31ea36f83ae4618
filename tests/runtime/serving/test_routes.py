"""What a method and a path ask for."""

from __future__ import annotations

import pytest

from stnkit.runtime.serving.errors import NotFoundError
from stnkit.runtime.serving.http.routes import MethodError, Route, find_route
from stnkit.runtime.serving.limits import Limits

LIMITS = Limits()
ROUTES = {
    ("GET", "/v2"): Route("server"),
    ("GET", "/v2/"): Route("server"),
    ("HEAD", "/v2"): Route("server"),
    ("GET", "/v2/health/live"): Route("live"),
    ("GET", "/v2/health/ready/"): Route("ready"),
    ("GET", "/v2/openapi.json"): Route("openapi"),
    ("GET", "/metrics"): Route("metrics"),
    ("GET", "/v2/models/stats"): Route("stats"),
    ("GET", "/v2/models/m"): Route("metadata", "m"),
    ("GET", "/v2/models/m/ready"): Route("model_ready", "m"),
    ("GET", "/v2/models/m/config"): Route("config", "m"),
    ("GET", "/v2/models/m/stats"): Route("stats", "m"),
    ("POST", "/v2/models/m/infer"): Route("infer", "m"),
    ("POST", "/v2/models/m/classify"): Route("classify", "m"),
    ("GET", "/v2/models/m/versions/3"): Route("metadata", "m", "3"),
    ("GET", "/v2/models/m/versions/3/ready"): Route("model_ready", "m", "3"),
    ("GET", "/v2/models/m/versions/3/config"): Route("config", "m", "3"),
    ("GET", "/v2/models/m/versions/3/stats"): Route("stats", "m", "3"),
    ("POST", "/v2/models/m/versions/3/infer"): Route("infer", "m", "3"),
    ("POST", "/v2/models/m/versions/3/classify"): Route("classify", "m", "3"),
    ("POST", "/v2/repository/index"): Route("index"),
    ("POST", "/v2/repository/models/m/load"): Route("load", "m"),
    ("POST", "/v2/repository/models/m/unload"): Route("unload", "m"),
    ("POST", "/v2/models/infer/infer"): Route("infer", "infer"),
    ("POST", "/v2/models/versions/versions/1/infer"): Route("infer", "versions", "1"),
    ("POST", "/v2/models/ñ o.%/infer"): Route("infer", "ñ o.%"),
    ("POST", "/v2/models/../infer"): Route("infer", ".."),  # a name like others, of no model
}

NOWHERE = (
    *("", "/", "//", "v2", "/v1", "/V2", "/v2/nothing", "//v2", "/v2//models/m", "/v2/models"),
    *("/v2/models/", "/v2/models//infer", "/v2/models/m/versions", "/v2/models/m/versions/"),
    *("/v2/models/m/versions//infer", "/v2/models/m/versions/1/infer/x", "/v2/models/m/nothing"),
    *("/v2/models/m/infer//", "/v2/health", "/v2/health/live/x", "/metrics/", "/metrics/x"),
    *(
        "/v2/repository",
        "/v2/repository/models/m",
        "/v2/repository/models/m/x/load",
        "/favicon.ico",
    ),
    *("/v2/models/" + "m" * 257, "/v2/models/m/versions/" + "1" * 257, "/v2" + "/x" * 10_000),
)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_routes(method, path):
    assert find_route(method, path, limits=LIMITS) == ROUTES[method, path]


@pytest.mark.parametrize("path", NOWHERE, ids=lambda path: path[:40])
def test_no_routes(path):
    for method in ("GET", "POST", "BREW"):
        with pytest.raises(NotFoundError, match="nothing at this path"):
            find_route(method, path, limits=LIMITS)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_other_methods(method, path):
    allowed = ("POST",) if method == "POST" else ("GET", "HEAD")
    for other in {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "x" * 100} - set(allowed):
        with pytest.raises(MethodError) as caught:
            find_route(other, path, limits=LIMITS)
        assert caught.value.allowed == allowed
        assert caught.value.status == 405
        assert str(caught.value) == (
            f"this path does not take {other[:16]!r}: expected {' or '.join(allowed)}"
        )
