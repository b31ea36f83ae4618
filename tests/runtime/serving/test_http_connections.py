"""What a client may do to a connection: how long, how much, in which order."""

from __future__ import annotations

import contextlib
import re
import time

import pytest

LIMITS = {
    "receive_timeout_s": 1.0,
    "idle_timeout_s": 2.0,
    "connections_max": 12,
    "header_bytes_max": 8192,
    "body_bytes_max": 2**20,
    "bodies_bytes_max": 3 * 2**20,
}
SLOW_S = 8.0  # a deadline of 1 s, looked at once a second, on a busy machine
INFER = "/v2/models/toy/infer"


@pytest.fixture(scope="module")
def server(http_process, toy_served):
    return http_process(toy_served, limits=LIMITS)


@pytest.fixture
def connect(server, raw_http):
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(raw_http.Client(server.port))
    assert server.alive


@pytest.fixture
def good(raw_http, toy):
    return raw_http.request("POST", INFER, raw_http.infer_body(toy.images(2)))


def refused(client, status):
    answer = client.answer()
    assert answer is not None
    assert answer.status == status, answer
    assert list(answer.json()) == ["error"]
    return answer


def test_a_connection_serves_many_requests(connect, good):
    client = connect()
    for _ in range(20):
        client.send(good)
        assert client.answer().status == 200


def test_an_idle_connection_is_closed(connect, good):
    client = connect()
    client.send(good)
    assert client.answer().status == 200
    assert 1.5 < client.closed_within(SLOW_S) < 4


def test_a_client_that_says_nothing(connect):
    assert "in time" in refused(connect(), 408).json()["error"]


@pytest.mark.parametrize("cut", [1, 30, -1], ids=["a letter", "in the headers", "in the body"])
@pytest.mark.parametrize("before", [0, 1], ids=["the first", "the second"])
def test_a_request_that_stops(connect, good, before, cut):
    client = connect()
    for _ in range(before):
        client.send(good)
        assert client.answer().status == 200
    client.send(good[:cut])
    started = time.monotonic()
    refused(client, 408)
    assert time.monotonic() - started > 0.9
    assert client.answer() is None


def test_slow_loris(connect, good):
    """Every byte comes soon after the other, and the whole never."""
    client = connect()
    started = time.monotonic()
    for byte in good:
        if not client.send(bytes([byte])):
            break
        time.sleep(0.02)
    assert time.monotonic() - started < SLOW_S
    refused(client, 408)


@pytest.mark.parametrize("after", [b"\r\n", b"\r\n\r\n"])
def test_empty_lines_keep_no_connection_open(connect, good, after):
    client = connect()
    client.send(good)
    assert client.answer().status == 200
    client.send(after)
    client.closed_within(SLOW_S)


def test_a_body_that_was_refused_and_never_comes(connect, raw_http):
    client = connect()
    client.send(raw_http.request("POST", INFER, headers=[("Content-Length", str(2**40))]))
    refused(client, 413)
    client.closed_within(SLOW_S)  # and no second answer


def test_a_body_that_was_refused_and_comes(connect, raw_http, good):
    body = b"x" * (2**20 + 1)
    client = connect()
    client.send(raw_http.request("POST", INFER, body))
    refused(client, 413)
    client.send(good)
    assert client.answer().status == 200
    # The last byte of a refused body stops no clock.
    client.send(raw_http.request("POST", INFER, body))
    refused(client, 413)
    client.closed_within(SLOW_S)


def test_a_refusal_may_come_before_the_body(connect, raw_http, good):
    client = connect()
    body = b"{}" * 1000
    whole = raw_http.request("POST", "/v2/models/nobody/infer", body)
    client.send(whole[:-1500])
    refused(client, 404)
    client.send(whole[-1500:] + good)
    assert client.answer().status == 200


def test_expect_100_continue(connect, raw_http, toy):
    body = raw_http.infer_body(toy.images(1))
    headers = [("Expect", "100-continue"), ("Content-Length", str(len(body)))]
    client = connect()
    client.send(raw_http.request("POST", INFER, headers=headers))
    assert client.answer().status == 100
    client.send(body)
    assert client.answer().status == 200
    client.send(raw_http.request("GET", "/v2"))
    assert client.answer().status == 200
    # Refused, the client sends no body: what came next would be taken for it.
    client = connect()
    headers = [("Expect", "100-continue"), ("Content-Length", str(2**40))]
    client.send(raw_http.request("POST", INFER, headers=headers))
    assert refused(client, 413).headers["connection"] == "close"
    assert client.answer() is None


def test_headers_are_bounded(connect, raw_http):
    for headers in (
        [("X", "y" * 9000)],
        [(f"X-{i}", "y" * 20) for i in range(400)],
        [("X", "y" * 10**6)],
    ):
        client = connect()
        client.send(raw_http.request("GET", "/v2", headers=headers))
        refused(client, 431)
        assert client.answer() is None
    client = connect()
    client.send(raw_http.request("GET", "/v2/models/" + "a" * 9000))
    refused(client, 431)
    client = connect()
    client.send(raw_http.request("GET", "/v2", headers=[("X", "y" * 7000)]))
    assert client.answer().status == 200


@pytest.mark.parametrize("start", [b"5\r\nabcde\r\n0\r\n", b"5;"], ids=["trailers", "extension"])
def test_what_stands_around_chunks_is_bounded(connect, raw_http, start):
    client = connect()
    client.send(raw_http.request("POST", INFER, headers=[("Transfer-Encoding", "chunked")]))
    client.send(start)
    for _ in range(100):
        if not client.send(b"X: " + b"y" * 1000 + b"\r\n" if start[-1:] == b"\n" else b"y" * 1000):
            break
        time.sleep(0.005)
    refused(client, 431)


def test_a_trailer_is_no_header(connect, raw_http, toy):
    body = raw_http.infer_body(toy.images(1))
    client = connect()
    client.send(
        raw_http.request("POST", INFER, headers=[("Transfer-Encoding", "chunked")])
        + f"{len(body):x}\r\n".encode()
        + body
        + b"\r\n0\r\nContent-Encoding: gzip\r\nInference-Header-Content-Length: 1\r\n\r\n"
    )
    assert client.answer().status == 200


def test_a_body_in_chunks_is_bounded(connect, raw_http):
    client = connect()
    client.send(raw_http.request("POST", INFER, headers=[("Transfer-Encoding", "chunked")]))
    for _ in range(40):
        if not client.send(b"10000\r\n" + b" " * 65536 + b"\r\n"):
            break
    refused(client, 413)


def test_all_bodies_together_are_bounded(connect, raw_http, good):
    """Those that were announced count: the memory is wanted sooner or later."""
    waiting = []
    for _ in range(3):
        client = connect()
        client.send(raw_http.request("POST", INFER, headers=[("Content-Length", str(2**20))]))
        waiting.append(client)
    time.sleep(0.1)
    client = connect()
    client.send(good)
    answer = refused(client, 503)
    assert answer.headers["retry-after"] == "1"
    for other in waiting:
        other.close()
    deadline = time.monotonic() + 5
    status = 503
    while status == 503 and time.monotonic() < deadline:
        client = connect()
        client.send(good)
        status = client.answer().status
        client.close()
    assert status == 200


def test_connections_are_bounded(connect, raw_http, good):
    taken = [connect() for _ in range(LIMITS["connections_max"])]
    time.sleep(0.1)
    answer = refused(connect(), 503)
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["connection"] == "close"
    taken[0].send(good)
    assert taken[0].answer().status == 200
    for client in taken:
        client.close()
    time.sleep(0.2)
    client = connect()
    client.send(good)
    assert client.answer().status == 200


def test_requests_sent_ahead_are_answered_in_their_order(connect, raw_http, toy):
    client = connect()
    requests = [
        raw_http.request("POST", INFER, raw_http.infer_body(toy.images(1), id=str(i)))
        for i in range(30)
    ]
    client.send(b"".join(requests))
    assert [client.answer().json()["id"] for _ in requests] == [str(i) for i in range(30)]


def test_too_many_requests_sent_ahead(connect, raw_http):
    """One read holds them all; those that are not answered are seen not to be."""
    client = connect()
    client.send(raw_http.request("GET", "/v2/health/live") * 1000)
    answers = client.answers()
    assert 10 < len(answers) < 200
    assert {answer.status for answer in answers} == {200}
    assert [a.headers.get("connection") for a in answers] == [None] * (len(answers) - 1) + ["close"]


@pytest.mark.parametrize(
    "bad",
    [
        b"GARBAGE\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: t\r\nX y: z\r\n\r\n",
        b"GET http://[::1/v2 HTTP/1.1\r\nHost: t\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nHost: t\r\nContent-Length: -1\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
    ],
)
def test_what_is_no_http_is_answered_in_its_turn(connect, good, bad):
    client = connect()
    client.send(good * 2 + bad + good)
    answers = client.answers()
    assert [answer.status for answer in answers] == [200, 200, 400]
    assert answers[-1].headers["connection"] == "close"


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: +5",
        "Content-Length: 0x5",
        "Content-Length: 5\r\nContent-Length : 6",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\r\n chunked\r\nContent-Length: 5",
    ],
)
def test_no_request_is_hidden_in_another(connect, headers):
    """A proxy in front may read the lengths in another way than the server."""
    hidden = "GET /v2/models/hidden HTTP/1.1\r\nHost: t\r\n\r\n"
    client = connect()
    client.send(f"POST {INFER} HTTP/1.1\r\nHost: t\r\n{headers}\r\n\r\n0\r\n\r\n{hidden}".encode())
    refused(client, 400)
    assert client.answer() is None


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
def test_no_other_protocol_is_spoken(connect, raw_http, protocol):
    client = connect()
    client.send(
        raw_http.request("GET", "/v2", headers=[("Connection", "Upgrade"), ("Upgrade", protocol)])
    )
    assert client.answer().status == 200
    assert client.answer() is None


def test_http_1_0(connect):
    client = connect()
    client.send(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
    assert client.answer().status == 200
    assert client.answer() is None


def test_head_has_no_body(connect, raw_http, good):
    client = connect()
    client.send(raw_http.request("HEAD", "/v2") + raw_http.request("HEAD", "/nothing") + good)
    answer = client.answer(head=True)
    assert answer.status == 200
    assert int(answer.headers["content-length"]) > 50
    assert client.answer(head=True).status == 404
    assert client.answer().status == 200


def test_a_client_that_closes_its_side_is_answered(connect, good):
    for whole, statuses in (
        (good, [200]),
        (good * 3, [200] * 3),
        (good + b"GET /v2 HT", [200]),
        (good * 2 + good[:-5], [200, 200]),
        (good[:-5], []),
        (good + b"GARBAGE\r\n\r\n", [200, 400]),
        (b"", []),
    ):
        client = connect()
        client.send(whole)
        client.half_close()
        assert [answer.status for answer in client.answers()] == statuses


def test_clients_that_go_away(connect, good):
    for cut in (1, 40, -1, None):
        for end in ("close", "reset"):
            client = connect()
            client.send(good + good[:cut])
            getattr(client, end)()
    client = connect()
    client.send(good)
    assert client.answer().status == 200


def test_a_client_that_reads_no_answers(server, connect, raw_http, good):
    """Its answers fill the buffers; then it is cut off, and what it held is given back."""
    client = connect()
    ask = raw_http.request("GET", "/v2/openapi.json")
    client.socket.settimeout(0.5)
    deadline = time.monotonic() + SLOW_S
    with contextlib.suppress(OSError):
        while time.monotonic() < deadline:
            try:
                client.socket.send(ask * 20)
            except TimeoutError:
                continue
    assert time.monotonic() < deadline, "it may send for ever"
    other = connect()
    other.send(good)
    assert other.answer().status == 200


def test_slow_clients_keep_nobody_waiting(connect, good):
    slow = [connect() for _ in range(LIMITS["connections_max"] - 2)]
    for client in slow:
        client.send(good[:20])
    fast = connect()
    started = time.monotonic()
    for i in range(50):
        fast.send(good)
        assert fast.answer().status == 200
        slow[i % len(slow)].send(good[20 + i // len(slow) :][:1])
    assert time.monotonic() - started < SLOW_S


@pytest.fixture(scope="module")
def waiting_server(http_process, toy_served):
    """A server whose requests wait 20 s for company."""
    return http_process(toy_served, options={"max_delay_ms": 20_000, "timeout_ms": 60_000})


@pytest.mark.parametrize("end", ["close", "reset", "half_close"])
def test_work_of_clients_that_have_gone_is_taken_back(waiting_server, raw_http, good, end):
    def cancelled():
        answer = raw_http.ask(waiting_server.port, raw_http.request("GET", "/metrics"))
        found = re.search(rb'stnkit_failures_total\{.*reason="cancelled".*\} (\S+)', answer.body)
        return float(found[1]) if found else 0.0

    before = cancelled()
    with raw_http.Client(waiting_server.port) as client:
        client.send(good)
        time.sleep(0.2)
        started = time.monotonic()
        getattr(client, end)()
        while cancelled() == before:
            assert time.monotonic() - started < SLOW_S
            time.sleep(0.05)
