"""What HTTP answers: status, headers and body, whichever way a request took through the server."""

from __future__ import annotations

import logging
from typing import Any

import orjson

from stnkit.runtime.serving.errors import ServingError
from stnkit.runtime.serving.http.codec import BINARY_HEADER, encode_response
from stnkit.runtime.serving.http.routes import MethodError
from stnkit.runtime.serving.inference import InferResponse

__all__ = ["Answer", "Headers", "error_answer", "infer_answer", "json_answer"]

Headers = list[tuple[bytes, bytes]]
Answer = tuple[int, Headers, bytes]
"""Status; headers, without those that every answer has; body."""

_LOG = logging.getLogger("stnkit.serving")

_JSON = (b"content-type", b"application/json")
_BINARY = (b"content-type", b"application/octet-stream")


def json_answer(status: int, value: Any) -> Answer:
    """Return an answer in JSON.

    Args:
        status: HTTP's.
        value: what orjson can write.
    """
    return status, [_JSON], orjson.dumps(value)


def infer_answer(response: InferResponse) -> Answer:
    """Return the answer to an inference request.

    Args:
        response: what the model said.
    """
    body, head_bytes = encode_response(response)
    if head_bytes is None:
        return 200, [_JSON], body
    return 200, [_BINARY, (BINARY_HEADER, b"%d" % head_bytes)], body


def error_answer(exc: Exception) -> Answer:
    """Return what a client is told in place of an answer; a bug is told to the log alone.

    Args:
        exc: what was raised.
    """
    if not isinstance(exc, ServingError):
        _LOG.error("a request failed on a bug", exc_info=exc)
        return json_answer(500, {"error": "the server failed on this request"})
    status, headers, body = json_answer(exc.status, {"error": str(exc)})
    if exc.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % exc.retry_after_s))
    if isinstance(exc, MethodError):
        headers.append((b"allow", ", ".join(exc.allowed).encode()))
    elif exc.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return status, headers, body
