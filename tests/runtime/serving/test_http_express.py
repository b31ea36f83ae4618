"""The way around ASGI: what it answers is what ASGI's side answers, to the byte.

A query asks for nothing on the infer route, and sends a request the long way.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import threading
import time

import pytest

SHORT = "/v2/models/toy/infer"
LONG = f"{SHORT}?long"
LAST = b"GET /v2/health/live HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
SLOW_S = 10.0
LIMITS = {"body_bytes_max": 2**20, "json_bytes_max": 2**17, "receive_timeout_s": 20.0}


def read_all(client):
    """Return everything until the server closes the connection."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := client.recv(65536):
            parts.append(part)
    return b"".join(parts)


def talk(port, *parts, end=False):
    """Send parts on a connection of their own; return every byte that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=SLOW_S) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            for part in parts:
                client.sendall(part)
                if len(parts) > 1:
                    time.sleep(0.002)
            if end:
                client.shutdown(socket.SHUT_WR)
        return read_all(client)


def both(port, make, **options):
    """Return what a request is answered on either way, which has to be the same."""
    found = [talk(port, *make(path), **options) for path in (SHORT, LONG, SHORT)]
    assert found[0] == found[1]
    assert found[2] == found[1]
    return found[0]


def metric(raw_http, port, name, *labels):
    text = raw_http.ask(port, raw_http.request("GET", "/metrics")).body.decode()
    lines = [
        line
        for line in text.splitlines()
        if line.startswith(name) and all(x in line for x in labels)
    ]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def wait_for(condition):
    until = time.monotonic() + SLOW_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def learn(raw_http, port):
    """Have the server know the path: the first request to it takes the long way."""
    raw_http.ask(port, raw_http.request("POST", SHORT, b"{"))


@pytest.fixture(scope="module")
def server(http_process, toy_served, raw_http):
    server = http_process(toy_served, limits=LIMITS)
    learn(raw_http, server.port)
    return server


def binary(raw_http, path, image, *headers, length=None, size=None, **fields):
    """Return a request whose tensor lies behind its JSON."""
    data = image.astype("<f4").tobytes()
    tensor = {"name": "image", "datatype": "FP32", "shape": list(image.shape)}
    tensor["parameters"] = {"binary_data_size": len(data) if size is None else size}
    head = json.dumps({"inputs": [tensor], **fields}).encode()
    length = str(len(head)) if length is None else length
    return raw_http.request(
        "POST", path, head + data, [("Inference-Header-Content-Length", length), *headers]
    )


ALL_BINARY = {"parameters": {"binary_data_output": True}}
BODIES = {
    "binary": lambda http, path, x: binary(http, path, x),
    "binary, both ways": lambda http, path, x: binary(http, path, x, **ALL_BINARY),
    "named": lambda http, path, x: binary(http, path, x, id="mine", **ALL_BINARY),
    "one output": lambda http, path, x: binary(http, path, x, outputs=[{"name": "probabilities"}]),
    "classes": lambda http, path, x: binary(
        http, path, x, outputs=[{"name": "probabilities", "parameters": {"classification": 2}}]
    ),
    "its own time": lambda http, path, x: binary(http, path, x, parameters={"timeout": 9_000_000}),
    "no such output": lambda http, path, x: binary(http, path, x, outputs=[{"name": "no"}]),
    "wrong shape": lambda http, path, x: binary(http, path, x[:, :3]),
    "too many items": lambda http, path, x: binary(http, path, x.repeat(20, 0)),
    "no items": lambda http, path, x: binary(http, path, x[:0]),
    "fewer bytes": lambda http, path, x: binary(http, path, x, size=8),
    "more bytes": lambda http, path, x: binary(http, path, x, size=10**6),
    "no size": lambda http, path, x: binary(http, path, x, size=[1]),
    "a length that is none": lambda http, path, x: binary(http, path, x, length="+5"),
    "a length of nothing": lambda http, path, x: binary(http, path, x, length="0"),
    "a length beyond the body": lambda http, path, x: binary(http, path, x, length="100000"),
    "two lengths": lambda http, path, x: binary(
        http, path, x, ("Inference-Header-Content-Length", "7")
    ),
    "closed": lambda http, path, x: binary(http, path, x, ("Connection", "close")),
    "closed, and wrong": lambda http, path, x: binary(
        http, path, x[:, :2], ("Connection", "close")
    ),
    "kept": lambda http, path, x: binary(http, path, x, ("Connection", "keep-alive")),
    "HTTP 1.0": lambda http, path, x: binary(http, path, x).replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    "HTTP 1.0, kept": lambda http, path, x: binary(
        http, path, x, ("Connection", "keep-alive")
    ).replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    "JSON": lambda http, path, x: http.request("POST", path, http.infer_body(x)),
    "JSON that is named": lambda http, path, x: http.request(
        "POST", path, http.infer_body(x, id="a\u00e9")
    ),
    "no JSON": lambda http, path, x: http.request("POST", path, b"{"),
    "no object": lambda http, path, x: http.request("POST", path, b"[1]"),
    "no inputs": lambda http, path, x: http.request("POST", path, b"{}"),
    "too much JSON": lambda http, path, x: http.request("POST", path, b" " * (2**17 + 1)),
    "too large": lambda http, path, x: http.request("POST", path, b"x" * (2**20 + 1)),
    "nothing": lambda http, path, x: http.request("POST", path),
    "no length": lambda http, path, x: f"POST {path} HTTP/1.1\r\nHost: t\r\n\r\n".encode(),
    "a long length": lambda http, path, x: http.request(
        "POST", path, b"{}", [("Content-Length", "0" * 30 + "2")]
    ),
    "in chunks": lambda http, path, x: http.request(
        "POST", path, b"2\r\n{}\r\n0\r\n\r\n", [("Transfer-Encoding", "chunked")]
    ),
    "squeezed": lambda http, path, x: http.request(
        "POST", path, b"{}", [("Content-Encoding", "gzip")]
    ),
    "another method": lambda http, path, x: http.request("PUT", path, b"{}"),
    "a long header": lambda http, path, x: http.request("POST", path, b"{}", [("X", "y" * 40000)]),
}


@pytest.mark.parametrize("name", BODIES)
def test_both_ways_say_the_same(server, raw_http, toy, name):
    image = toy.images(2)

    def make(path):
        return [BODIES[name](raw_http, path, image) + LAST]

    answer = both(server.port, make)
    assert answer.startswith(b"HTTP/1.1 ")
    if name in ("binary", "JSON", "kept", "named"):
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize("name", ["binary", "JSON", "wrong shape", "closed", "too large"])
def test_in_small_pieces(server, raw_http, toy, name):
    def make(path):
        whole = BODIES[name](raw_http, path, toy.images(2)) + LAST
        step = max(7, len(whole) // 60)
        return [whole[at : at + step] for at in range(0, len(whole), step)]

    both(server.port, make)


def test_many_on_one_connection(server, raw_http, toy):
    """Right and wrong ones by turns, each sent once the last is answered."""
    with raw_http.Client(server.port) as client:
        for number in range(60):
            image = toy.images(1 + number % 3, seed=number)
            client.send(binary(raw_http, SHORT, image, id=str(number)))
            answer = client.answer()
            assert answer.status == 200
            found = answer.json()
            assert found["id"] == str(number)
            expected = toy.run(image)["probabilities"]
            assert found["outputs"][0]["data"] == pytest.approx(expected.ravel().tolist(), abs=1e-5)
            client.send(binary(raw_http, SHORT, image[:, :2]))
            assert client.answer().status == 400


def test_large_bodies(http_process, digits_served, raw_http):
    import numpy as np

    server = http_process(digits_served, options={"max_batch": 64, "artifact": "onnx"})
    path = "/v2/models/digits/infer"
    learn_as = raw_http.request("POST", path, b"{")
    raw_http.ask(server.port, learn_as)
    image = np.random.default_rng(1).random((64, 28, 28, 1), np.float32)
    whole = binary(raw_http, path, image)
    long = binary(raw_http, path + "?long", image)
    answers = []
    for request, step in ((whole, 10**9), (long, 10**9), (whole, 30_000), (long, 30_000)):
        parts = [request[at : at + step] for at in range(0, len(request), step)]
        answers.append(talk(server.port, *parts, LAST))
    assert answers[0].startswith(b"HTTP/1.1 200")
    assert set(answers) == {answers[0]}


@pytest.mark.parametrize("middle", ["binary", "wrong shape", "JSON"])
def test_requests_sent_ahead(server, raw_http, toy, middle):
    def make(path):
        one = binary(raw_http, path, toy.images(1), id="1")
        three = binary(raw_http, path, toy.images(3), id="3")
        return [one + BODIES[middle](raw_http, path, toy.images(2)) + three + LAST]

    answer = both(server.port, make)
    assert answer.count(b"HTTP/1.1 ") == 4
    assert answer.index(b'"id":"1"') < answer.index(b'"id":"3"')


def test_a_body_that_is_longer_than_it_says(server, raw_http, toy):
    answer = both(
        server.port, lambda path: [binary(raw_http, path, toy.images(1)) + b"and more\r\n\r\n"]
    )
    assert [line[9:12] for line in re.findall(rb"HTTP/1.1 [^\r]*", answer)] == [b"200", b"400"]


@pytest.mark.parametrize("cut", [1, 60, -1])
def test_a_body_that_is_shorter(server, raw_http, toy, cut):
    found = both(server.port, lambda path: [binary(raw_http, path, toy.images(1))[:cut]], end=True)
    assert found == b""


@pytest.mark.parametrize("count", [1, 3])
def test_a_client_that_closes_its_side(server, raw_http, toy, count):
    """The end of its side may be seen before the answer is sent or after: it need not say so."""
    found = set()
    for path in (SHORT, LONG, SHORT):
        answer = talk(server.port, binary(raw_http, path, toy.images(1)) * count, end=True)
        assert answer.count(b"HTTP/1.1 200") == count
        found.add(answer.replace(b"connection: close\r\n", b""))
    assert len(found) == 1


def test_a_path_that_is_quoted_and_one_of_a_version(server, raw_http, toy):
    image = toy.images(1)
    expected = talk(server.port, binary(raw_http, SHORT, image) + LAST)
    for path in ("/v2/models/t%6fy/infer", "/v2/models/toy/versions/1/infer", f"{SHORT}/"):
        for _ in range(3):
            assert talk(server.port, binary(raw_http, path, image) + LAST) == expected


def test_what_arrives_in_time_and_late(http_process, toy_served, raw_http):
    """A body that stops: the same 408, and what it held is given back."""
    limits = {"receive_timeout_s": 0.5, "body_bytes_max": 10**6, "bodies_bytes_max": 10**6}
    server = http_process(toy_served, limits=limits)
    learn(raw_http, server.port)
    for _ in range(2):
        answer = both(
            server.port,
            lambda path: [
                raw_http.request("POST", path, headers=[("Content-Length", "900000")]) + b"{"
            ],
        )
        assert answer.startswith(b"HTTP/1.1 408")


@pytest.fixture(scope="module")
def waiting(http_process, toy_served, raw_http):
    """A server whose requests wait 20 s for company, with room for two."""
    options = {"max_delay_ms": 20_000, "timeout_ms": 60_000, "queue": 2}
    server = http_process(toy_served, options=options)
    learn(raw_http, server.port)
    return server


def depth(raw_http, server):
    return metric(raw_http, server.port, "stnkit_queue_depth")


def failures(raw_http, server, reason):
    return metric(raw_http, server.port, "stnkit_failures_total", f'reason="{reason}"')


@pytest.mark.parametrize("path", [SHORT, LONG])
@pytest.mark.parametrize("end", ["close", "reset", "half_close"])
def test_a_client_that_goes_away(waiting, raw_http, toy, path, end):
    before = failures(raw_http, waiting, "cancelled")
    with raw_http.Client(waiting.port) as client:
        client.send(binary(raw_http, path, toy.images(1)))
        wait_for(lambda: depth(raw_http, waiting) == 1)
        getattr(client, end)()
        wait_for(lambda: failures(raw_http, waiting, "cancelled") == before + 1)
        assert depth(raw_http, waiting) == 0
    with raw_http.Client(waiting.port) as client:  # in the middle of its body: nobody's failure
        client.send(binary(raw_http, path, toy.images(1))[:-4])
        getattr(client, end)()
    assert failures(raw_http, waiting, "cancelled") == before + 1


def test_a_time_of_its_own(waiting, raw_http, toy):
    before = failures(raw_http, waiting, "deadline")
    found = []
    for path in (SHORT, LONG):
        for timeout_ms in (300, 30):  # the later one is due first
            request = binary(
                raw_http, path, toy.images(1), parameters={"timeout": timeout_ms * 1000}
            )
            started = time.monotonic()
            answer = talk(waiting.port, request + LAST)
            assert timeout_ms / 1e3 - 0.01 < time.monotonic() - started < timeout_ms / 1e3 + 0.25
            found.append(re.sub(rb"after \d+ ms", b"after N ms", answer))
    assert found[0].startswith(b"HTTP/1.1 503")
    assert b"retry-after: 1" in found[0]
    lengths = [re.sub(rb"content-length: \d+", b"", it) for it in found]
    assert set(lengths) == {lengths[0]}
    assert failures(raw_http, waiting, "deadline") == before + 4


def test_times_of_their_own_at_once(waiting, raw_http, toy):
    """One timer for all: each is ended at its own time."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(raw_http.Client(waiting.port)) for _ in range(2)]
        started = time.monotonic()
        for client, timeout_ms in zip(clients, (500, 150), strict=True):
            timeout = {"timeout": timeout_ms * 1000}
            client.send(binary(raw_http, SHORT, toy.images(1), parameters=timeout))
        assert clients[1].answer().status == 503
        assert 0.14 < time.monotonic() - started < 0.45
        assert clients[0].answer().status == 503
        assert 0.49 < time.monotonic() - started < 0.9


def test_too_much_is_refused_before_its_body(waiting, raw_http, toy):
    with contextlib.ExitStack() as stack:
        holders = [stack.enter_context(raw_http.Client(waiting.port)) for _ in range(2)]
        for client in holders:
            client.send(binary(raw_http, SHORT, toy.images(1)))
        wait_for(lambda: depth(raw_http, waiting) == 2)
        body = b"x" * 300_000
        before = failures(raw_http, waiting, "overloaded")
        answers = []
        for path in (SHORT, LONG):
            whole = raw_http.request("POST", path, body)
            with socket.create_connection(("127.0.0.1", waiting.port), timeout=SLOW_S) as client:
                client.sendall(whole[:-200_000])
                first = client.recv(65536)
                assert first.startswith(b"HTTP/1.1 503")
                assert b"retry-after: " in first
                # The rest of it is read and dropped; then the connection is as good as new.
                client.sendall(whole[-200_000:] + raw_http.request("GET", "/v2") + LAST)
                answers.append(first + read_all(client))
            # All of it at once, twice, with what comes after.
            answers.append(talk(waiting.port, whole * 2 + LAST))
        assert answers[0] == answers[2]
        assert answers[1] == answers[3]
        assert answers[0].count(b"HTTP/1.1 200") == 2
        assert answers[1].count(b"HTTP/1.1 503") == 2
        assert failures(raw_http, waiting, "overloaded") == before + 6
        closing = raw_http.request("POST", SHORT, b"{}", [("Connection", "close")])
        assert b"connection: close" in talk(waiting.port, closing)
        for client in holders:
            client.close()
        wait_for(lambda: depth(raw_http, waiting) == 0)


def test_a_request_behind_one_that_waits(waiting, raw_http, toy):
    """It came while the first was answered: it waits for its turn, on the same connection."""
    with raw_http.Client(waiting.port) as client:
        client.send(binary(raw_http, SHORT, toy.images(1), parameters={"timeout": 400_000}))
        wait_for(lambda: depth(raw_http, waiting) == 1)
        client.send(raw_http.request("GET", "/v2/health/live"))
        client.send(binary(raw_http, SHORT, toy.images(1)[:, :2]))
        assert [client.answer().status for _ in range(3)] == [503, 200, 400]
        client.send(binary(raw_http, SHORT, toy.images(1)[:, :3]))
        assert client.answer().status == 400


def test_the_counts_are_the_same(http_process, toy_served, raw_http, toy):
    names = ("stnkit_http_responses_total", "stnkit_requests_total", "stnkit_items_total",
             "stnkit_failures_total")  # fmt: skip
    found = []
    for path in (SHORT, LONG):
        server = http_process(toy_served, limits=LIMITS)
        learn(raw_http, server.port)
        for make in BODIES.values():
            talk(server.port, make(raw_http, path, toy.images(2)) + LAST)
        timeout = {"timeout": 1}
        talk(server.port, binary(raw_http, path, toy.images(1), parameters=timeout) + LAST)
        text = raw_http.ask(server.port, raw_http.request("GET", "/metrics")).body.decode()
        found.append([line for line in text.splitlines() if line.startswith(names)])
    assert found[0] == found[1]
    assert any('status="400"' in line for line in found[0])
    assert any('reason="deadline"' in line for line in found[0])
    assert any('reason="invalid"' in line for line in found[0])


@pytest.mark.parametrize("path", [SHORT, LONG])
def test_sigterm_while_a_request_waits(http_process, toy_served, raw_http, toy, path):
    server = http_process(toy_served, options={"max_delay_ms": 1200})
    learn(raw_http, server.port)
    found = []
    request = binary(raw_http, path, toy.images(1))
    thread = threading.Thread(target=lambda: found.append(talk(server.port, request)))
    thread.start()
    wait_for(lambda: depth(raw_http, server) == 1)
    server.process.send_signal(signal.SIGTERM)
    thread.join(SLOW_S)
    (answer,) = found
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer
    assert server.process.wait(SLOW_S) == 0


def test_the_end_of_the_grace_time(process_served, toy_served, raw_http, toy):
    found = []
    for path in (SHORT, LONG):
        server = process_served(
            toy_served, "--drain-ms", 0, "--grace-s", 0.3, "--max-delay-ms", 60_000
        )
        learn(raw_http, server.port)
        with socket.create_connection(("127.0.0.1", server.port), timeout=SLOW_S) as client:
            client.sendall(binary(raw_http, path, toy.images(1)))
            wait_for(lambda server=server: metric(raw_http, server.port, "stnkit_queue_depth") == 1)
            server.send()
            found.append(read_all(client))
        assert server.end() == 0
        assert "1 request(s) were not answered" in server.log or path == LONG
    assert found[0] == found[1]
    assert found[0].startswith(b"HTTP/1.1 500 ")


def test_a_reload_while_a_request_waits(http_process, toy_served, raw_http, toy):
    token = "a token of the tests"
    server = http_process(toy_served, token=token, options={"max_delay_ms": 500})
    learn(raw_http, server.port)
    load = raw_http.request(
        "POST", "/v2/repository/models/toy/load", headers=[("Authorization", f"Bearer {token}")]
    )
    with raw_http.Client(server.port) as client:
        for _ in range(3):
            client.send(binary(raw_http, SHORT, toy.images(1)))
            wait_for(lambda: depth(raw_http, server) == 1)
            assert raw_http.ask(server.port, load).status == 200
            assert client.answer().status == 200
        unload = load.replace(b"/load", b"/unload")
        assert raw_http.ask(server.port, unload).status == 200
        for path in (SHORT, LONG):
            client.send(binary(raw_http, path, toy.images(1)))
            assert client.answer().json() == {"error": "the model 'toy' is not loaded"}
        assert raw_http.ask(server.port, load).status == 200
        client.send(binary(raw_http, SHORT, toy.images(1)))
        assert client.answer().status == 200


def test_with_a_log_of_requests_none_is_missing(http_process, toy_served, raw_http, toy):
    server = http_process(toy_served, server={"log_requests": True}, log="info")
    for number in range(3):
        raw_http.ask(server.port, binary(raw_http, SHORT, toy.images(1), id=f"number {number}"))
    try:
        wait_for(lambda: server.stderr().count(f"POST {SHORT} 200") == 3)
        assert "request_id=number 2" in server.stderr()
    finally:
        server.process.terminate()
        assert server.process.wait(SLOW_S) == 0
