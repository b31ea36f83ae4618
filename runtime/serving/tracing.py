"""Trace requests with OpenTelemetry where it is set up, and with nothing elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

__all__ = ["CARRIED", "Tracer"]

CARRIED = ("traceparent", "tracestate", "baggage")
"""Headers, and keys of gRPC's metadata, in which a caller names its own span (W3C)."""


# A provider that is set up while the server runs is noticed within this time.
_LOOK_S = 1.0


class Tracer:
    """Opens a span a request; where nobody listens to spans it opens none.

    Where they go is the business of OpenTelemetry's own SDK and environment variables, as
    `opentelemetry-instrument` sets them up.
    """

    def __init__(self) -> None:
        self._look_again = 0.0
        try:
            self._installed = find_spec("opentelemetry.trace") is not None
        except ModuleNotFoundError:  # its parent package is not there
            self._installed = False
        self._tracer: Any = None

    @property
    def on(self) -> bool:
        """Whether spans go anywhere: OpenTelemetry is installed, and has a provider."""
        if self._tracer is None and self._installed and time.monotonic() >= self._look_again:
            from opentelemetry import trace

            # Asked with every request: looking takes as long as a part of answering it.
            self._look_again = time.monotonic() + _LOOK_S

            # Without one the API hands out spans that nobody gets, at 10 microseconds each.
            if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
                self._tracer = trace.get_tracer("stnkit.serving")
        return self._tracer is not None

    @contextmanager
    def span(self, model: str, carrier: Mapping[str, str] | None) -> Iterator[Any]:
        """Open the span of one inference; only where `on`.

        Args:
            model: the model's name.
            carrier: what the client sent of `CARRIED`.
        """
        from opentelemetry import propagate, trace

        with self._tracer.start_as_current_span(
            f"infer {model}",
            context=propagate.extract(dict(carrier or {})),
            kind=trace.SpanKind.SERVER,
            attributes={"stnkit.model": model},
        ) as span:
            yield span
