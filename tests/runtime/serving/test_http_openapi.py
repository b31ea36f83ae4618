"""The server does what its own OpenAPI description says; schemathesis makes the requests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stnkit.runtime.serving.datatypes import NUMPY_TYPES
from stnkit.runtime.serving.http.description import openapi

TOKEN = "a token of the tests"


@pytest.fixture(scope="module")
def server(http_process, toy_served):
    return http_process(toy_served, f"spare={toy_served}", token=TOKEN)


@pytest.fixture
def description(server, raw_http):
    return raw_http.ask(server.port, raw_http.request("GET", "/v2/openapi.json")).json()


def drive(server, description, folder, *arguments):
    """Run schemathesis; any failure is told in what it prints."""
    (folder / "openapi.json").write_text(json.dumps(description))
    # 413 and 431 refuse what is over a limit.
    (folder / "schemathesis.toml").write_text(
        '[checks.negative_data_rejection]\nexpected-statuses = ["4xx"]\n'
    )
    command = [
        *(Path(sys.executable).with_name("schemathesis"), "run", "openapi.json"),
        *("--url", f"http://127.0.0.1:{server.port}", "--header", f"Authorization: Bearer {TOKEN}"),
        *("--max-examples", "6", "--seed", "1", "--generation-deterministic"),
        *("--phases", "coverage,fuzzing", "--no-color"),
        *("--continue-on-failure", "--request-timeout", "20"),
    ]
    result = subprocess.run(
        [*command, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "passed" in result.stdout
    operations = sum(len(set(it) & {"get", "post"}) for it in description["paths"].values())
    assert f"selected / {operations} total" in result.stdout


def test_any_requests(server, description, tmp_path):
    """Of models that there are not, mostly; what is right by the description may be refused."""
    drive(server, description, tmp_path, "--exclude-checks", "positive_data_acceptance")


def test_right_requests_are_answered(server, description, tmp_path):
    """What is right by a description of this very server is answered with 200."""
    parts = description["components"]
    parts["parameters"]["Model"]["schema"] = {"enum": ["toy"]}
    parts["parameters"]["Version"]["schema"] = {"enum": ["1"]}
    schemas = parts["schemas"]
    values = {"type": "array", "items": {"type": "number", "minimum": -1e30, "maximum": 1e30}}
    schemas["RequestInput"] = {
        "type": "object",
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": {"const": "image"},
            "datatype": {"const": "FP32"},
            "shape": {"const": [1, 4, 4, 1]},
            "data": {**values, "minItems": 16, "maxItems": 16},
        },
    }
    schemas["RequestOutput"]["properties"]["name"] = {"enum": ["features", "probabilities"]}
    request = schemas["InferenceRequest"]["properties"]
    request["inputs"]["maxItems"] = request["outputs"]["maxItems"] = 1
    # A request that is given one microsecond is answered with 503.
    del request["parameters"]["properties"]["timeout"]
    for path, item in description["paths"].items():
        for operation in (it for key, it in item.items() if key != "parameters"):
            # What lies behind the JSON is not described: a length of it would be wrong.
            body = operation["requestBody"]["content"] if "requestBody" in operation else {}
            if "application/json" in body:
                body.pop("application/octet-stream", None)
                operation["parameters"] = []
        if path.endswith(("/load", "/unload")):  # of another model than the one that is asked
            spare = {"name": "model", "in": "path", "required": True, "schema": {"enum": ["spare"]}}
            item["parameters"] = [spare]
    # Random bytes are no image.
    drive(server, description, tmp_path, "--exclude-path-regex", "/classify$")


def test_the_description_names_every_datatype():
    schemas = json.loads(openapi())["components"]["schemas"]
    assert schemas["Datatype"]["enum"] == list(NUMPY_TYPES)
    assert schemas["ResponseOutput"]["properties"]["datatype"]["enum"] == [*NUMPY_TYPES, "BYTES"]


def test_the_description_names_every_route(server, description, raw_http):
    for path, item in description["paths"].items():
        filled = path.replace("{model}", "toy").replace("{version}", "1")
        methods = {it.upper() for it in item if it in ("get", "post")}
        assert len(methods) == 1
        answer = raw_http.ask(server.port, raw_http.request("PATCH", filled))
        assert answer.status == 405, path
        allowed = set(answer.headers["allow"].split(", "))
        assert methods == allowed - {"HEAD"}
        assert ("HEAD" in allowed) == ("GET" in allowed)
