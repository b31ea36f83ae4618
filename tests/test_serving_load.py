"""The load generator against small servers of the tests' own: it counts, and it never hangs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from stnkit.runtime.errors import InputError
from stnkit.runtime.timing.load import (
    LoadPlan,
    LoadResult,
    Quantiles,
    answer_problem,
    get_request,
    infer_request,
    measure_load,
    post_request,
    run_load,
)
from stnkit.runtime.timing.load.result import TIMED_OUT
from stnkit.runtime.timing.load.timer import Timer

VALUES = np.array([[0.25, 0.75]], np.float32)
EXPECTED = {"probabilities": VALUES}


def http(body=b"", status=200, *headers):
    lines = [f"HTTP/1.1 {status} Some Reason", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def json_answer(values=VALUES, name="probabilities"):
    output = {"name": name, "datatype": "FP32", "shape": values.shape}
    return http(json.dumps({"outputs": [{**output, "data": values.ravel().tolist()}]}).encode())


def binary_answer(values=VALUES):
    raw = values.tobytes()
    output = {"name": "probabilities", "datatype": "FP32", "shape": values.shape}
    head = json.dumps({"outputs": [{**output, "parameters": {"binary_data_size": len(raw)}}]})
    return http(head.encode() + raw, 200, f"Inference-Header-Content-Length: {len(head)}")


class SmallServer:
    """Reads GET requests and answers what `answer(count)` gives; None closes the connection."""

    def __init__(self, answer):
        self.answer = answer
        self.requests = self.connections = 0
        self.writers = []
        self.ready = threading.Event()
        self.port = None

    async def talk(self, reader, writer):
        self.connections += 1
        self.writers.append(writer)
        ends = ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError
        with contextlib.suppress(*ends):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                given = self.answer(self.requests)
                if asyncio.iscoroutine(given):
                    given = await given
                if given is None:
                    break
                for part in given if isinstance(given, list) else [given]:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0)
        writer.close()

    async def main(self):
        self.loop = asyncio.get_running_loop()
        self.over = asyncio.Event()
        server = await asyncio.start_server(self.talk, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.ready.set()
        await self.over.wait()
        server.close()
        for writer in self.writers:
            writer.transport.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # for transports to see that they are closed


@contextlib.contextmanager
def serving(answer):
    server = SmallServer(answer)
    thread = threading.Thread(target=lambda: asyncio.run(server.main()))
    thread.start()
    assert server.ready.wait(10)
    try:
        yield server
    finally:
        with contextlib.suppress(RuntimeError):  # it has ended already
            server.loop.call_soon_threadsafe(server.over.set)
        thread.join(10)


def plan(server, **options):
    # Where requests are counted, a machine that is busy may take its time.
    short = {"duration_s": 20.0 if "requests_most" in options else 0.2}
    short |= {"warm_up_s": 0.0, "timeout_s": 5.0}
    return LoadPlan(server.port, get_request("/"), **{**short, **options})


async def later(answer, wait_s):
    await asyncio.sleep(wait_s)
    return answer


@pytest.mark.parametrize("uvloop", [True, False])
def test_every_answer_is_counted(uvloop, monkeypatch):
    if not uvloop:
        monkeypatch.setitem(sys.modules, "uvloop", None)
    with serving(lambda count: json_answer()) as server:
        found = run_load(plan(server, connections=3, requests_most=60, expected=EXPECTED))
    assert found.requests == server.requests == 60
    assert server.connections == 3
    assert found.errors == {}
    assert found.problem is None
    assert set(found.status) == {200}
    assert found.received_bytes == 60 * len(json_answer())
    assert found.sent_bytes == 60 * len(get_request("/"))
    assert (found.latency_ns > 0).all()
    assert (found.delay_ns == 0).all()
    assert found.answered_per_s == pytest.approx(60 / found.duration_s)
    assert 0 < found.generator_busy
    latency = found.latency_ms()
    assert latency.count == 60
    assert latency.p50 <= latency.p90 <= latency.p99 <= latency.p99_9 <= latency.largest


def test_a_closed_loop_ends_with_its_time():
    with serving(lambda count: later(http(), 0.01)) as server:
        began = time.monotonic()
        found = run_load(plan(server, connections=2, duration_s=0.3, warm_up_s=0.2))
    assert 0.5 <= time.monotonic() - began < 10
    assert 0 < found.requests == server.requests <= 2 * 50 + 2
    # One connection cannot answer more often than a request takes.
    assert found.latency_ms().p50 >= 10
    assert 0 < found.answered_per_s <= 2 / 0.01
    assert found.latency_ms().count < found.latency_ms(warm_up=True).count


def test_answers_in_pieces_and_empty_ones():
    whole = json_answer()
    pieces = [whole[:5], whole[5:60], whole[60:-1], whole[-1:]]
    with serving(lambda count: pieces if count % 2 else http()) as server:
        found = run_load(plan(server, requests_most=20))
    assert found.requests == 20
    assert found.errors == {}


def test_statuses_are_told_apart():
    statuses = {1: 503, 2: 400}
    with serving(lambda count: http(b"no", statuses.get(count % 4, 200))) as server:
        found = run_load(plan(server, requests_most=40))
    assert found.errors == {"http 400": 10, "http 503": 10}
    assert found.problem == "http 503: no"
    assert found.latency_ms().count == 20
    assert found.latency_ms(503).count == 10
    assert found.latency_ms(404) is None
    assert found.answered_per_s == pytest.approx(20 / found.duration_s)


@pytest.mark.parametrize("kind", ["poisson", "even"])
def test_an_open_loop_keeps_its_rate(kind):
    with serving(lambda count: http()) as server:
        options = {"rate_per_s": 200.0, "arrivals": kind, "connections": 8}
        found = run_load(plan(server, duration_s=0.4, warm_up_s=0.1, **options))
    assert found.requests == server.requests == 100
    assert found.errors == {}
    assert found.offered_per_s == pytest.approx(200, rel=0.35 if kind == "poisson" else 0.02)
    assert (np.diff(np.sort(found.scheduled_ns)) >= 0).all()
    assert found.scheduled_ns.min() >= 0
    assert found.scheduled_ns.max() < 0.5e9
    assert (found.delay_ns >= 0).all()
    assert (found.latency_ns > found.delay_ns).all()


def test_latency_counts_from_when_it_was_due():
    """One connection, 20 ms an answer, all due at once: the tenth has waited for nine others."""
    with serving(lambda count: later(http(), 0.02)) as server:
        options = {"rate_per_s": 1000.0, "arrivals": "even", "duration_s": 0.01}
        found = run_load(plan(server, **options))
    assert found.requests == 10
    waited = np.sort(found.latency_ns) / 1e9
    assert (waited > 0.02 * np.arange(1, 11) - 0.01).all()
    assert found.latency_ms().largest >= 190
    assert found.latency_ms(from_sending=True).p50 < found.latency_ms().p50
    assert found.delay_ms().largest >= 170


def test_a_server_that_closes_connections():
    with serving(lambda count: http() if count % 2 else None) as server:
        found = run_load(plan(server, connections=2, duration_s=0.3))
    assert found.errors["connection closed"] == found.requests - (found.status == 200).sum()
    assert (found.status == 200).sum() >= 2
    assert server.connections > 2


def test_a_server_that_says_that_it_closes_is_asked_again_on_another_connection():
    with serving(lambda count: http(b"", 200, "Connection: close")) as server:
        found = run_load(plan(server, requests_most=20))
    assert found.errors == {}
    assert found.requests == server.requests == 20
    assert server.connections >= 20


@pytest.mark.parametrize(
    "nonsense",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n",
        b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
    ],
    ids=range(9),
)
def test_nonsense_is_counted(nonsense):
    with serving(lambda count: nonsense) as server:
        found = run_load(plan(server, connections=2, duration_s=0.1))
    assert found.errors.pop("malformed answer", 0) > 0
    assert not (found.status == 200).any()
    assert found.answered_per_s == 0
    assert found.latency_ms() is None
    assert found.to_json()["latency_ms"] is None


@pytest.mark.parametrize("rate", [None, 50.0])
@pytest.mark.parametrize("half", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
def test_a_server_that_never_answers_ends_nothing_but_its_requests(rate, half):
    async def never():
        await asyncio.sleep(60)

    with serving(lambda count: [half] if half else never()) as server:
        began = time.monotonic()
        options = {"rate_per_s": rate, "connections": 2, "timeout_s": 0.1}
        found = run_load(plan(server, duration_s=0.3, **options))
    assert time.monotonic() - began < 10
    assert set(found.status) == {TIMED_OUT}
    assert found.errors == {"no answer in time": found.requests}
    assert found.requests >= 4 if rate is None else found.requests == 15


def test_a_server_that_goes_away():
    with serving(lambda count: http()) as server:
        stop = threading.Timer(0.1, lambda: server.loop.call_soon_threadsafe(server.over.set))
        stop.start()
        began = time.monotonic()
        found = run_load(plan(server, connections=2, duration_s=0.4))
        stop.join()
    assert time.monotonic() - began < 10
    assert found.errors["connection refused"] > 0
    assert (found.status == 200).sum() > 0


def test_nothing_listens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        empty = LoadPlan(taken.getsockname()[1], get_request("/"), duration_s=0.1)
        with pytest.raises(InputError, match="nothing listens at"):
            run_load(empty)
        with pytest.raises(InputError, match="nothing listens at"):
            measure_load(empty)


def test_a_wrong_answer_is_an_error_even_in_the_warm_up():
    with serving(lambda count: json_answer(VALUES + 0.1)) as server:
        found = run_load(plan(server, connections=2, requests_most=10, expected=EXPECTED))
    assert found.errors == {"wrong answer": 2}  # the first of each connection is looked at
    assert '"probabilities" is off by 0.1' in found.problem


def test_a_process_of_its_own_gives_the_same():
    with serving(lambda count: binary_answer()) as server:
        asked = plan(server, connections=2, requests_most=30_000, expected=EXPECTED)
        found = measure_load(replace(asked, duration_s=0.3))
    assert found.requests == server.requests > 100  # more than a pipe holds at once
    assert found.errors == {}
    assert found.problem is None
    assert found.to_json()["requests"] == found.requests


def test_results_and_plans_survive_a_pipe():
    asked = LoadPlan(80, b"\x00\xff", 4, rate_per_s=3.5, expected={"x": np.eye(3, dtype="<f2")})
    again = LoadPlan.from_bytes(asked.to_bytes())
    np.testing.assert_array_equal(again.expected["x"], asked.expected["x"])
    assert again.expected["x"].dtype == np.float16
    assert replace(again, expected={}) == replace(asked, expected={})

    times = np.arange(3, dtype=np.int64) * 10**9
    status = np.array([200, -4, 503], np.int16)
    result = LoadResult(times, times, times + 1, status, 0.5, 2.5, 1, 7, 8, 0.1, 0.2, "bad\nend")
    read = LoadResult.from_bytes(result.to_bytes())
    for name in ("scheduled_ns", "delay_ns", "latency_ns", "status"):
        np.testing.assert_array_equal(getattr(read, name), getattr(result, name))
    assert read.to_json() == result.to_json()
    assert read.problem == "bad\nend"


def test_what_is_measured_by_hand():
    """Due at 0, 1, 2, 3 s; answered after 0.5 s each; measured from 1 s for 2 s."""
    half = np.full(4, 500_000_000, np.int64)
    scheduled = np.arange(4, dtype=np.int64) * 10**9
    delay = np.array([0, 100_000_000, 0, 0], np.int64)
    status = np.array([200, 200, 503, 200], np.int16)
    found = LoadResult(scheduled, delay, half, status, 1.0, 2.0, 1, 0, 0, 0.5, 2.0)
    assert found.answered_per_s == 0.5  # the one due at 1 s, done at 1.5; that of 3 s is too late
    assert found.offered_per_s == 1.5
    assert found.sent_per_s == 1.0
    assert found.latency_ms() == Quantiles(2, 500, 500, 500, 500, 500)
    assert found.latency_ms(from_sending=True) == Quantiles(2, 500, 500, 500, 500, 500)
    assert found.delay_ms().largest == 100
    assert found.errors == {"http 503": 1}
    assert found.generator_busy == 0.25
    assert Quantiles.of_ns(np.array([], np.int64)) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": "10.0.0.1"}, "loopback"),
        ({"host": "example.com"}, "loopback"),
        ({"port": 0}, "port is 0"),
        ({"connections": 0}, "connections is 0"),
        ({"duration_s": 0}, "duration_s is 0"),
        ({"duration_s": float("nan")}, "duration_s is nan"),
        ({"warm_up_s": -1}, "warm_up_s is -1"),
        ({"timeout_s": float("inf")}, "timeout_s is inf"),
        ({"rate_per_s": 0.0}, "rate_per_s is 0.0"),
        ({"rate_per_s": float("nan")}, "rate_per_s is nan"),
        ({"rate_per_s": 1e9}, "arrivals in all"),
        ({"arrivals": "bursts"}, "arrivals is"),
        ({"request": b""}, "empty"),
    ],
    ids=str,
)
def test_plans_that_make_no_sense(options, message):
    with pytest.raises(InputError, match=message):
        LoadPlan(**{"port": 80, "request": b"x", **options})


def test_arrivals_meet_the_rate_exactly():
    asked = LoadPlan(80, b"x", duration_s=9.0, warm_up_s=1.0, rate_per_s=100.0)
    for kind in ("poisson", "even"):
        times = replace(asked, arrivals=kind).arrival_times_ns()
        assert times.size == 1000
        assert (np.diff(times) >= 0).all()
        assert times[0] >= 0
        assert times[-1] < 10e9
    gaps = np.diff(asked.arrival_times_ns()) / 1e9
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.2)  # as of an exponential distribution
    np.testing.assert_array_equal(asked.arrival_times_ns(), asked.arrival_times_ns())


def test_requests_are_what_the_protocol_says():
    image = np.arange(4, dtype=np.float32).reshape(1, 2, 2, 1)
    head, _, body = infer_request("a b", {"image": image}).partition(b"\r\n\r\n")
    lines = dict(line.split(": ") for line in head.decode().split("\r\n")[1:])
    assert head.startswith(b"POST /v2/models/a%20b/infer HTTP/1.1\r\n")
    assert int(lines["Content-Length"]) == len(body)
    length = int(lines["Inference-Header-Content-Length"])
    described = json.loads(body[:length])
    assert body[length:] == image.tobytes()
    assert described["inputs"][0] == {
        "name": "image",
        "shape": [1, 2, 2, 1],
        "datatype": "FP32",
        "parameters": {"binary_data_size": 16},
    }
    assert described["parameters"] == {"binary_data_output": True}
    chosen = infer_request("m", {"image": image}, outputs=["y"]).partition(b"\r\n\r\n")[2]
    wanted = json.JSONDecoder().raw_decode(chosen.decode("latin-1"))[0]["outputs"]
    assert wanted == [{"name": "y", "parameters": {"binary_data": True}}]
    plain = infer_request("m", {"image": image}, binary=False).partition(b"\r\n\r\n")[2]
    assert json.loads(plain)["inputs"][0]["data"] == [0, 1, 2, 3]
    posted = post_request("/x", b"body", headers={"A": "b"})
    assert posted == (
        b"POST /x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\nA: b\r\n\r\nbody"
    )
    with pytest.raises(InputError, match="complex64"):
        infer_request("m", {"x": np.zeros(1, np.complex64)})


def problem_of(answer, expected=EXPECTED):
    head, _, body = answer.partition(b"\r\n\r\n")
    return answer_problem(head + b"\r\n", body, expected, 1e-6)


def test_right_answers():
    assert problem_of(json_answer()) is None
    assert problem_of(binary_answer()) is None
    assert problem_of(json_answer(), {}) is None


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (json_answer(VALUES + 1e-3), "is off by 0.001"),
        (binary_answer(VALUES * np.float32("nan")), "is off by nan"),
        (json_answer(VALUES[:, :1]), r"\[1, 1\]: expected float32 \[1, 2\]"),
        (json_answer(name="other"), 'has no "probabilities"'),
        (http(b"{}"), "none of the protocol: KeyError"),
        (http(b"<html>"), "none of the protocol: JSONDecodeError"),
        (http(b"[1]"), "none of the protocol"),
        (http(b'{"outputs": [7]}'), "none of the protocol"),
        (http(b'{"outputs": [{"name": "x", "datatype": "FP99"}]}'), "FP99"),
        (http(b"{}", 200, "Inference-Header-Content-Length: 99"), "of 2 bytes are JSON"),
        (http(b"{}", 200, "Inference-Header-Content-Length: -1"), "of 2 bytes are JSON"),
        (
            http(b'{"outputs": []}left', 200, "Inference-Header-Content-Length: 15"),
            "4 bytes are left over",
        ),
    ],
)
def test_wrong_answers(answer, message):
    assert re.search(message, problem_of(answer))


@pytest.mark.parametrize("native", [True, False])
def test_the_timer_fires_when_it_should(native):
    async def main():
        fired = asyncio.Event()
        timer = Timer(asyncio.get_running_loop(), fired.set)
        if not native:
            timer.close()  # as where the system has no such timers
        try:
            for wait_ns in (2_000_000, -1_000_000):
                fired.clear()
                due = time.monotonic_ns() + wait_ns
                timer.set(due)
                async with asyncio.timeout(5):
                    await fired.wait()
                assert time.monotonic_ns() >= due - 1_100_000  # a loop's own rounds
        finally:
            timer.close()

    asyncio.run(main())
