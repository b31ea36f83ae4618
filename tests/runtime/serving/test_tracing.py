"""Traces, where OpenTelemetry is installed; nothing at all where it is not."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest

from stnkit.runtime.serving.tracing import Tracer

HIDDEN = """
import sys
from importlib.machinery import PathFinder

folder, hidden = sys.argv[1:]
sys.path.insert(0, folder)

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == hidden else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
from stnkit.runtime.serving.tracing import Tracer
print(Tracer().on)
"""


@pytest.mark.parametrize("hidden", ["opentelemetry", "opentelemetry.trace"])
def test_without_the_package_there_is_no_tracing(hidden, tmp_path):
    # An empty folder of its name is what an uninstalled package may leave behind.
    (tmp_path / "opentelemetry").mkdir()
    result = subprocess.run(
        [sys.executable, "-c", HIDDEN, str(tmp_path), hidden],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "False\n"


@pytest.fixture
def exporter():
    """Return what collects the spans of this process."""
    pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry's SDK collects the spans")
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    # A process has one provider; a second one is refused with a warning.
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    processor = SimpleSpanProcessor(spans)
    provider.add_span_processor(processor)
    yield spans
    processor.shutdown()


def ask(app, body, headers):
    """Send one request to the application; return the status."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v2/models/toy/infer",
        "query_string": b"",
        "headers": [(b"content-length", str(len(body)).encode()), *headers],
        "client": ("127.0.0.1", 1),
    }
    sent = []

    async def call():
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive():
            if messages:
                return messages.pop()
            await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        await app(scope, receive, send)

    asyncio.run(call())
    return sent[0]["status"]


def test_a_request_is_a_span_below_the_callers(exporter, core_served, bundle_path, toy):
    from stnkit.runtime.serving.http.app import ServingApp

    app = ServingApp(core_served(bundle_path))
    data = toy.images(1).ravel().tolist()
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, 4, 4, 1], "data": data}
    trace_id, parent_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    parent = [(b"traceparent", f"00-{trace_id}-{parent_id}-01".encode())]
    assert ask(app, json.dumps({"inputs": [tensor]}).encode(), parent) == 200
    assert ask(app, json.dumps({"inputs": [{**tensor, "name": "x"}]}).encode(), []) == 400
    good, bad = exporter.get_finished_spans()
    assert good.name == bad.name == "infer toy"
    assert good.attributes["stnkit.model"] == "toy"
    assert f"{good.context.trace_id:032x}" == trace_id
    assert f"{good.parent.span_id:016x}" == parent_id
    assert bad.parent is None
    assert good.status.is_ok
    assert not bad.status.is_ok


def test_the_tracer_is_on_where_spans_go_somewhere(exporter):
    assert Tracer().on


def test_a_provider_that_is_set_up_later_is_noticed(exporter, monkeypatch):
    from opentelemetry import trace

    from stnkit.runtime.serving import tracing

    now = 100.0
    monkeypatch.setattr(tracing.time, "monotonic", lambda: now)
    tracer = Tracer()
    with monkeypatch.context() as patch:
        patch.setattr(trace, "get_tracer_provider", trace.ProxyTracerProvider)
        assert not tracer.on
    assert not tracer.on  # it is not looked for with every request
    now = 101.0
    assert tracer.on
    now = 0.0
    assert tracer.on


def test_the_tracer_is_off_where_nobody_gets_the_spans():
    """The package alone, without a provider, hands out spans for nothing."""
    pytest.importorskip("opentelemetry.trace")
    script = "from stnkit.runtime.serving.tracing import Tracer; print(Tracer().on)"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"


def test_a_call_over_grpc_is_a_span_too(exporter, core_served, bundle_path, toy):
    import tritonclient.grpc as client

    from stnkit.runtime.serving.grpc_v2 import GrpcServer

    server = GrpcServer(core_served(bundle_path))
    port = server.start("127.0.0.1", 0)
    try:
        images = toy.images(1)
        tensor = client.InferInput("image", images.shape, "FP32")
        tensor.set_data_from_numpy(images)
        trace_id = "0af7651916cd43dd8448eb211c80319c"
        with client.InferenceServerClient(f"127.0.0.1:{port}") as connection:
            connection.infer(
                "toy", [tensor], headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
            )
    finally:
        server.stop()
    (span,) = exporter.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == trace_id
