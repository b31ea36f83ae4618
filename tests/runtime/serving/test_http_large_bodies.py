"""Bodies that take another way than small ones: from the connection straight into the tensors."""

from __future__ import annotations

import json
import socket

import numpy as np
import pytest

from stnkit.runtime import load
from stnkit.runtime.timing.load import infer_request

ITEMS = 64


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).random((ITEMS, 28, 28, 1), np.float32)


@pytest.fixture(scope="module")
def expected(digits_served, images):
    with load(digits_served, device="cpu", artifact="onnx", threads=1) as session:
        return session.run({"image": images})["probabilities"]


@pytest.fixture(scope="module")
def server(http_process, digits_served):
    limits = {"receive_timeout_s": 20.0, "bodies_bytes_max": 650_000}
    return http_process(
        digits_served, options={"max_batch": ITEMS, "artifact": "onnx"}, limits=limits
    )


@pytest.fixture
def connection(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        yield client


def answer(reader):
    """Read one answer; return the status and, of 200, the probabilities."""
    status = int(reader.readline().split()[1])
    headers = {}
    while (line := reader.readline()) != b"\r\n":
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    body = reader.read(int(headers["content-length"]))
    if status != 200:
        return status, None
    at = int(headers["inference-header-content-length"])
    (output,) = json.loads(body[:at])["outputs"]
    return status, np.frombuffer(body[at:], np.float32).reshape(output["shape"])


@pytest.mark.parametrize("size", [10**9, 65_536, 50_000, 12_345])
def test_the_answer_is_the_sessions(connection, images, expected, size):
    request = infer_request("digits", {"image": images})
    assert len(request) > 200_000
    with connection.makefile("rb") as reader:
        for _ in range(3):
            for start in range(0, len(request), size):
                connection.sendall(request[start : start + size])
            status, found = answer(reader)
            assert status == 200
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_requests_sent_ahead(connection, images, expected):
    """Their bodies come while the ones before are answered."""
    requests = [infer_request("digits", {"image": np.roll(images, n, 0)}) for n in range(3)]
    small = infer_request("digits", {"image": images[:1]})
    connection.sendall(small + b"".join(requests) + small)
    with connection.makefile("rb") as reader:
        assert answer(reader)[0] == 200
        for number in range(3):
            status, found = answer(reader)
            assert status == 200
            np.testing.assert_allclose(found, np.roll(expected, number, 0), atol=1e-5)
        np.testing.assert_allclose(answer(reader)[1], expected[:1], atol=1e-5)


def test_clients_that_go_away_in_the_middle_leave_nothing(server, images, expected):
    """What they announced is given back: else the fourth of them would fill what may be held."""
    request = infer_request("digits", {"image": images})
    for cut in (0.3, 0.6, 0.9, 0.5, 0.7):
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
            client.sendall(request[: int(len(request) * cut)])
            # A whole request on another connection comes after the server has read this one.
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as other:
                other.sendall(request)
                with other.makefile("rb") as reader:
                    status, found = answer(reader)
            assert status == 200
            np.testing.assert_allclose(found, expected, atol=1e-5)
    assert server.alive


def test_a_length_over_the_limit_is_refused_before_the_body(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        client.sendall(
            b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\n"
            b"Content-Length: 99999999999\r\n\r\n"
        )
        with client.makefile("rb") as reader:
            assert answer(reader)[0] == 413
