"""The log: one line an event, whatever a client puts into its names."""

from __future__ import annotations

import json
import logging
import re

import pytest

from stnkit.runtime.serving.request_log import RequestLog, set_up_logging

SCOPE = {
    "method": "POST",
    "path": "/v2/models/m/infer",
    "headers": [(b"x-request-id", b"from the proxy")],
    "client": ("10.0.0.1", 5),
}


@pytest.fixture
def log(capsys):
    """Return `log(format)`: sets the log up, and returns what reads its lines."""
    before = {
        name: (logging.getLogger(name).handlers, logging.getLogger(name).propagate)
        for name in ("stnkit", "uvicorn", "grpc")
    }
    levels = {name: logging.getLogger(name).level for name in before}

    def set_up(log_format, level="info"):
        set_up_logging(log_format, level)
        return lambda: capsys.readouterr().err.splitlines()

    yield set_up
    for name, (handlers, propagate) in before.items():
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(levels[name])


def test_a_line_of_text(log):
    lines = log("text")
    RequestLog(True).write({**SCOPE, "stnkit.id": "mine"}, 200, 17, 1_234_567)
    (line,) = lines()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info POST /v2/models/m/infer 200 "
        r"request_id=mine client=10\.0\.0\.1 status=200 bytes=17 ms=1\.235",
        line,
    )


def test_a_line_of_json(log):
    lines = log("json")
    RequestLog(True).write(SCOPE, 503, 17, 1_000_000)
    (line,) = lines()
    found = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("time"))
    assert found == {
        "level": "warning",
        "logger": "stnkit.serving.requests",
        "message": "POST /v2/models/m/infer 503",
        "request_id": "from the proxy",
        "client": "10.0.0.1",
        "status": 503,
        "bytes": 17,
        "ms": 1.0,
    }


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_client_writes_no_lines_of_its_own(log, log_format):
    lines = log(log_format)
    evil = "a\n2026-01-01T00:00:00.000Z info forged\r\x1b[2J\u2028\u202e\x00 %s {} ñ"
    scope = {**SCOPE, "path": "/" + evil, "stnkit.id": evil, "client": None}
    RequestLog(True).write(scope, 200, 0, 0)
    (line,) = lines()
    assert not re.search(r"[\x00-\x1f\x7f\u2028\u202e]", line)


def test_long_names_are_cut(log):
    lines = log("text")
    headers = [(b"x-request-id", b"y" * 30_000)]
    RequestLog(True).write({**SCOPE, "path": "/" + "x" * 30_000, "headers": headers}, 200, 0, 0)
    (line,) = lines()
    assert len(line) < 700


def test_a_traceback_stays_in_the_log(log):
    for log_format in ("text", "json"):
        lines = log(log_format)
        try:
            raise RuntimeError("inside")
        except RuntimeError:
            logging.getLogger("stnkit.serving").exception("a request failed on a bug")
        found = lines()
        if log_format == "json":
            (line,) = found
            assert "RuntimeError: inside" in json.loads(line)["traceback"]
        else:
            assert found[-1] == "RuntimeError: inside"


def test_levels(log):
    lines = log("text", "warning")
    RequestLog(True).write(SCOPE, 200, 0, 0)
    assert lines() == []
    RequestLog(True).write(SCOPE, 500, 0, 0)
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    assert len(lines()) == 1
    logging.getLogger("uvicorn.error").error("something of its own")
    assert len(lines()) == 1


def test_a_server_logs_its_requests(http_process, toy_served, raw_http, toy):
    server = http_process(toy_served, log="info", server={"log_requests": True})
    body = raw_http.infer_body(toy.images(1), id="mine")
    raw_http.ask(server.port, raw_http.request("POST", "/v2/models/toy/infer", body))
    raw_http.ask(server.port, raw_http.request("GET", "/nothing", headers=[("X-Request-Id", "p")]))
    server.process.terminate()
    server.process.wait(20)
    lines = [line for line in server.stderr().splitlines() if "request_id" in line]
    assert "POST /v2/models/toy/infer 200 request_id=mine client=127.0.0.1" in lines[0]
    assert "GET /nothing 404 request_id=p client=127.0.0.1" in lines[1]
    assert len(lines) == 2
