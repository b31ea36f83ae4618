"""Write the server's log: one JSON object or one line of text an event."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, TextIO

__all__ = ["LOG_FORMATS", "RequestLog", "set_up_logging"]

LOG_FORMATS = ("text", "json")

_LOG = logging.getLogger("stnkit.serving.requests")


class RequestLog:
    """Logs requests that were answered.

    Args:
        on: whether all of them; without it only those that the server failed on (500).
    """

    def __init__(self, on: bool) -> None:
        self.on = on

    def write(self, scope: dict[str, Any], status: int, body_bytes: int, elapsed_ns: int) -> None:
        """Log one request.

        Args:
            scope: ASGI's; `"stnkit.id"` in it is the id that the client gave the request.
            status: what was answered.
            body_bytes: size of the answer.
            elapsed_ns: time that it took.
        """
        # A header of the proxy in front names a request that gave itself no name.
        request_id = scope.get("stnkit.id") or next(
            (
                value.decode("latin-1")[:256]
                for name, value in scope["headers"]
                if name == b"x-request-id"
            ),
            "",
        )
        _LOG.log(
            logging.WARNING if status >= 500 else logging.INFO,
            "%s %s %d",
            scope["method"],
            scope["path"][:256],
            status,
            extra={
                "fields": {
                    "request_id": request_id,
                    "client": (scope.get("client") or ("",))[0],
                    "status": status,
                    "bytes": body_bytes,
                    "ms": round(elapsed_ns / 1e6, 3),
                }
            },
        )


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": f"{_clock(record)}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=True)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        tail = "".join(f" {key}={value!s}" for key, value in fields.items() if value != "")
        # What a client chose must not start a line of its own, or move a terminal's cursor.
        text = "".join(c if c.isprintable() else "?" for c in record.getMessage() + tail)
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return f"{_clock(record)}Z {record.levelname.lower()} {text}"


def _clock(record: logging.LogRecord) -> str:
    at = time.gmtime(record.created)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', at)}.{int(record.msecs):03d}"


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what is stderr now: while models are loaded it is another stream than after."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def set_up_logging(log_format: str, level: str) -> None:
    """Send the server's log to stderr.

    Args:
        log_format: one of `LOG_FORMATS`.
        level: `"debug"`, `"info"`, `"warning"` or `"error"`.
    """
    handler = _StderrHandler()
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    for name in ("stnkit", "uvicorn", "grpc"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        # uvicorn tells of its own start and end, which is told better here.
        logger.setLevel(level.upper() if name == "stnkit" else logging.ERROR)
