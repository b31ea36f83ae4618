"""The numbers for Prometheus: those that were counted, in a form that its own parser reads."""

from __future__ import annotations

import asyncio
from collections import Counter

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from stnkit.runtime.serving.errors import InvalidRequestError
from stnkit.runtime.serving.inference import InferRequest
from stnkit.runtime.serving.metrics import Metrics


def read(metrics):
    content_type, text = metrics.text()
    assert content_type.startswith(b"text/plain")
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


@pytest.fixture
def core(core_served, bundle_path):
    return core_served(bundle_path, max_batch=4)


def infer(core, image, **fields):
    return asyncio.run(core.infer(InferRequest("toy", "", {"image": image}, **fields)))


def test_before_the_first_request(core):
    found = read(Metrics(core, Counter()))
    of = (("model", "toy"), ("version", "1"))
    assert found["stnkit_ready",] == 1
    for name in ("requests_total", "items_total", "batches_total", "padded_items_total"):
        assert found[(f"stnkit_{name}", *of)] == 0
    assert found[("stnkit_request_seconds_count", *of)] == 0
    assert found[("stnkit_queue_depth", *of)] == 0
    assert found["process_resident_memory_bytes",] > 1e6


def test_after_some(core, toy):
    responses = Counter({200: 3, 503: 1})
    metrics = Metrics(core, responses)
    for count in (1, 4, 3):
        infer(core, toy.images(count))
    with pytest.raises(InvalidRequestError):
        infer(core, np.zeros((1, 2), np.float32))
    found = read(metrics)
    of = (("model", "toy"), ("version", "1"))
    assert found[("stnkit_requests_total", *of)] == 3
    assert found[("stnkit_items_total", *of)] == 8
    batches = found[("stnkit_batches_total", *of)]
    padded = found[("stnkit_padded_items_total", *of)]
    assert batches == 3
    assert padded in (0, 1)  # three items run as four, or as whatever was faster
    assert found[("stnkit_failures_total", ("model", "toy"), ("reason", "invalid"), of[1])] == 1
    assert found["stnkit_http_responses_total", ("status", "200")] == 3
    assert found["stnkit_http_responses_total", ("status", "503")] == 1
    for name in ("request", "queue"):
        assert found[(f"stnkit_{name}_seconds_count", *of)] == 3
        assert found[(f"stnkit_{name}_seconds_sum", *of)] > 0
    assert found[("stnkit_compute_seconds_count", *of)] == batches
    assert found[("stnkit_batch_size_sum", *of)] == 8 + padded
    # Histograms are cumulative, and end with all.
    for name in ("request_seconds", "queue_seconds", "compute_seconds", "batch_size"):
        steps = [
            (float(dict(key[1:])["le"]), value)
            for key, value in found.items()
            if key[0] == f"stnkit_{name}_bucket"
        ]
        values = [value for _, value in sorted(steps)]
        assert values == sorted(values)
        assert values[-1] == 3
        assert sorted(steps)[-1][0] == np.inf


def test_a_server_that_ends_is_not_ready(core):
    core.drain()
    assert read(Metrics(core, Counter()))["stnkit_ready",] == 0


def test_over_http(http_process, toy_served, raw_http, toy):
    server = http_process(toy_served)
    body = raw_http.infer_body(toy.images(2))
    raw_http.ask(server.port, raw_http.request("POST", "/v2/models/toy/infer", body))
    raw_http.ask(server.port, raw_http.request("GET", "/nothing"))
    answer = raw_http.ask(server.port, raw_http.request("GET", "/metrics"))
    assert answer.headers["content-type"].startswith("text/plain; version=")
    text = answer.body.decode()
    assert 'stnkit_requests_total{model="toy",version="1"} 1.0' in text
    assert 'stnkit_http_responses_total{status="404"} 1.0' in text
