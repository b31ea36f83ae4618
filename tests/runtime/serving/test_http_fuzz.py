"""Whatever a client sends: no crash, no 5xx but 503, no growing memory, and right answers after."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

GROWTH_BYTES_MAX = 100 * 2**20
ALLOWED = {100, 200, 503, *range(400, 500)}
LEAKS = (b"Traceback", b"site-packages", b".py", b"/tmp", b"0x7f", b"toy.bundle", b"root:")


# Behind every case: answered where the case has left the connection in step.
LAST = b"GET /v2/health/live HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"


def send(raw_http, port, case):
    """Send a case; return what was answered, and the connection where it is to be held."""
    client = raw_http.Client(port)
    for part in case.parts:
        if not client.send(part):
            break
    if case.then == "hold":
        return [], client
    if case.then == "reset":
        client.reset()
        return [], None
    try:
        if case.then == "wait":
            client.send(LAST)
        if case.then != "close":
            client.half_close()
            return client.answers(), None
        return [], None
    finally:
        client.close()


def check(case, answers):
    for answer in answers:
        assert answer.status in ALLOWED, (case, answer)
        assert not [leak for leak in LEAKS if leak in answer.body], (case, answer)
        if answer.status >= 400 and answer.body:
            assert list(json.loads(answer.body)) == ["error"], (case, answer)
    assert len(answers) <= case.more.get("most", 10_000) + 1, (case, answers)


def check_right(raw_http, toy, port, number):
    """Assert that a valid request is answered correctly, as JSON and as bytes."""
    image = toy.images(2, seed=number)
    expected = toy.run(image)["probabilities"]
    wanted = {"name": "probabilities", "parameters": {"binary_data": number % 2 == 1}}
    body = raw_http.infer_body(image, outputs=[wanted], id=str(number))
    answer = raw_http.ask(port, raw_http.request("POST", "/v2/models/toy/infer", body))
    assert answer.status == 200, answer
    length = int(answer.headers.get("inference-header-content-length", len(answer.body)))
    found = json.loads(answer.body[:length])
    assert found["id"] == str(number)
    values = found["outputs"][0].get("data") or np.frombuffer(answer.body[length:], "<f4")
    np.testing.assert_allclose(np.reshape(values, (2, 3)), expected, atol=1e-6)


def fuzz(server, raw_http, mutations, toy, seed, count):
    """Send cases in batches of a hundred; return how often each status was answered."""
    statuses = Counter()
    warm, warm_bytes = max(100, count // 10), 0
    held = []
    for number, case in enumerate(mutations.cases(seed, count), 1):
        answers, client = send(raw_http, server.port, case)
        check(case, answers)
        statuses.update((case.name, answer.status) for answer in answers)
        statuses.update((case.name, "none") for _ in [0] if not answers)
        if client is not None:
            held.append(client)
        if number % 100 == 0 or number == count:
            for client in held:
                client.close()
            held.clear()
            assert server.alive, server.stderr()
            check_right(raw_http, toy, server.port, number)
            if number == warm:
                warm_bytes = server.rss_bytes()
    grown = server.rss_bytes() - warm_bytes
    assert grown < GROWTH_BYTES_MAX, f"{grown / 2**20:.0f} MiB more"
    print(f"{count} cases, {grown / 2**20:.1f} MiB more than after {warm}")
    return statuses


@pytest.fixture
def server(http_process, toy_served):
    return http_process(
        toy_served, limits={"body_bytes_max": 4 * 2**20}, token="a token of the tests"
    )


def test_hundreds_of_requests(server, raw_http, http_mutations, toy):
    statuses = fuzz(server, raw_http, http_mutations, toy, seed=1, count=400)
    # Every kind got through to somewhere.
    assert {name for name, _ in statuses} == {
        case.name for case in http_mutations.cases(1, len(http_mutations.KINDS))
    }
    found = {status for _, status in statuses}
    assert {200, 400, 401, 404, 405, 413, 415} <= found, statuses


@pytest.mark.slow
def test_ten_thousand_requests(server, raw_http, http_mutations, toy):
    statuses = fuzz(server, raw_http, http_mutations, toy, seed=2, count=10_000)
    for name, status in sorted(statuses, key=str):
        print(f"{name:12} {status:5} {statuses[name, status]}")


def test_the_same_seed_gives_the_same_requests(http_mutations):
    first = list(http_mutations.cases(5, 200))
    list(http_mutations.cases(6, 200))  # leaves nothing behind
    assert list(http_mutations.cases(5, 200)) == first
    assert list(http_mutations.cases(6, 200)) != first
