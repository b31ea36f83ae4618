"""SIGTERM under gRPC load: what the server took is answered, all else is told UNAVAILABLE.

A client cannot tell a call that the server dropped from one that it never took. So the server keeps
a ledger here: the id of each request, written when the core is asked and before anything else is
done with it. What stands in it was taken, and has to be answered; what failed must not stand in it,
for its client sends it again elsewhere.
"""

from __future__ import annotations

import collections
import itertools
import random
import threading
import time

import numpy as np
import pytest

from stnkit.runtime import load

triton = pytest.importorskip("tritonclient.grpc")
triton_errors = pytest.importorskip("tritonclient.utils")

UNAVAILABLE = "StatusCode.UNAVAILABLE"
PATIENCE_S = 60
GRACE_S = 20
REFUSAL = "the server is about to end"
IN_FLIGHT = 8
"""Requests of the busy stream that wait for their answers."""

LEDGER = """
import os

def keep_ledger():
    from stnkit.runtime.serving.core import ServingCore

    infer = ServingCore.infer
    ledger = open(os.environ["STNKIT_TEST_LEDGER"], "w", buffering=1)

    async def noted(core, request):
        ledger.write(request.id + "\\n")
        return await infer(core, request)

    ServingCore.infer = noted

keep_ledger()
"""


@pytest.fixture(scope="module")
def digits(digits_served):
    """Return images, of one and of two digits, and their answers."""
    rng = np.random.default_rng(1)
    images = [rng.random((1 + i % 2, 28, 28, 1), np.float32) for i in range(4)]
    with load(digits_served, artifact="onnx", threads=1) as session:
        return images, [session.run({"image": it})["probabilities"] for it in images]


@pytest.fixture
def end_under_load(process_served, helpers_served, digits_served, digits, tmp_path, monkeypatch):
    """Return `end_under_load(seed, drain_ms, max_delay_ms)`: one round, with all its checks."""
    monkeypatch.setattr(helpers_served, "LAUNCHER", LEDGER + helpers_served.LAUNCHER)

    def end(seed, drain_ms, max_delay_ms):
        ledger = tmp_path / f"ledger-{seed}.txt"
        server = process_served(
            digits_served,
            *("--threads", 1, "--instances", 1, "--http-port", -1, "--grpc-port", 0),
            *("--timeout-ms", 1000 * PATIENCE_S, "--grace-s", GRACE_S),
            *("--drain-ms", drain_ms, "--max-delay-ms", max_delay_ms),
            environment={"STNKIT_TEST_LEDGER": str(ledger)},
        )
        clients = Clients(server.addresses["grpc"].netloc, *digits)
        with clients:
            clients.wait_answered(random.Random(seed).randint(50, 300))
            assert clients.failed == {}
            told = time.monotonic()
            server.send()
            assert server.end() == 0
            # Who is not answered is cancelled after the grace time: nobody was.
            assert time.monotonic() - told < drain_ms / 1000 + GRACE_S
        taken = ledger.read_text("utf-8").split()
        assert clients.wrong == set()
        # None was lost, and none ran twice.
        assert set(taken) - clients.answered == set()
        assert len(taken) == len(set(taken))
        assert {status for status, _ in clients.failed.values()} == {UNAVAILABLE}, clients.failed
        assert clients.ended == dict.fromkeys(clients.begun, UNAVAILABLE)
        assert "ended" in server.log
        for trouble in ("Traceback", "destroyed", "warning", "error"):
            assert trouble not in server.log
        server.close()

    return end


class Clients:
    """Calls on three connections, on ever new ones, and in two streams, one of them idle.

    Each client sends one request after the other, without a pause. A stream ends when it is told
    to; who calls goes on for as long as it is the server that says so.

    Args:
        address: the server's.
        images: what to send.
        expected: what has to come back for each.

    Attributes:
        answered: ids of the requests that were.
        wrong: ids of those whose answer was another one's.
        failed: id -> status and text, of those that were not answered.
        begun: names of the clients.
        ended: name -> status, of those that were told.
    """

    def __init__(self, address, images, expected):
        self.answered = set()
        self.failed = {}
        self.wrong = set()
        self.begun = set()
        self.ended = {}
        self._served = set()
        self._changed = threading.Condition()
        self._address = address
        self._known = []
        for image, want in zip(images, expected, strict=True):
            given = triton.InferInput("image", image.shape, "FP32")
            given.set_data_from_numpy(image)
            self._known.append((given, want))
        self._shared = [self._connect() for _ in range(3)]
        self._threads = []
        for index in range(6):
            self._add(f"call{index}", self._call, lambda i=index: self._shared[i % 3])
        self._add("new", self._call, None)
        self._streams = [self._connect() for _ in range(2)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        for index, client in enumerate(self._streams):
            self._open_stream(f"stream{index}", client, IN_FLIGHT if index else 1, bool(index))
        return self

    def __exit__(self, *error):
        for thread in self._threads:
            thread.join(PATIENCE_S)
        for client in (*self._streams, *self._shared):
            client.close()
        assert not any(thread.is_alive() for thread in self._threads)

    def wait_answered(self, count):
        """Wait until so many requests are answered, and some of each client."""

        def reached():
            return self.failed or (len(self.answered) >= count and self._served == self.begun)

        with self._changed:
            assert self._changed.wait_for(reached, PATIENCE_S), (self._served, self.wrong)

    def _add(self, name, target, *arguments):
        self.begun.add(name)
        self._threads.append(threading.Thread(target=target, args=(name, *arguments)))

    def _connect(self):
        # Else gRPC has one connection for all channels of a process.
        return triton.InferenceServerClient(
            self._address, channel_args=[("grpc.use_local_subchannel_pool", 1)]
        )

    def _call(self, name, shared):
        for number in itertools.count():
            request_id = f"{name}-{number}"
            given, want = self._known[number % len(self._known)]
            client = shared() if shared else self._connect()
            try:
                result = client.infer(
                    "digits", [given], request_id=request_id, client_timeout=PATIENCE_S
                )
            except triton_errors.InferenceServerException as error:
                self._note_end(name, [request_id], error)
                if REFUSAL in error.message():
                    continue
                return
            finally:
                if not shared:
                    client.close()
            self._note(name, request_id, want, result)

    def _open_stream(self, name, client, window, busy):
        self.begun.add(name)
        numbers = itertools.count()
        waiting = collections.deque()
        in_order = threading.RLock()

        def send():
            with in_order:
                number = next(numbers)
                given, want = self._known[number % len(self._known)]
                waiting.append((f"{name}-{number}", want))
                client.async_stream_infer("digits", [given], request_id=waiting[-1][0])

        def come(result, error):
            if error is not None:
                self._note_end(name, [request_id for request_id, _ in waiting], error)
                return
            self._note(name, *waiting.popleft(), result)
            if busy:
                send()

        client.start_stream(come, stream_timeout=PATIENCE_S)
        for _ in range(window):
            send()

    def _note(self, name, request_id, want, result):
        right = result.get_response().id == request_id and np.allclose(
            result.as_numpy("probabilities"), want, atol=1e-5
        )
        with self._changed:
            self._served.add(name)
            (self.answered if right else self.wrong).add(request_id)
            self._changed.notify_all()

    def _note_end(self, name, unanswered, error):
        with self._changed:
            self.ended[name] = error.status()
            self.failed |= dict.fromkeys(unanswered, (error.status(), error.message()))
            self._changed.notify_all()


@pytest.mark.parametrize(("drain_ms", "max_delay_ms"), [(0, 0), (200, 300)])
def test_sigterm_under_load_loses_no_call(drain_ms, max_delay_ms, end_under_load):
    end_under_load(0, drain_ms, max_delay_ms)


@pytest.mark.slow
def test_sigterm_under_load_twenty_times(end_under_load):
    for seed in range(20):
        end_under_load(seed, (0, 200)[seed % 2], (0, 300)[seed // 2 % 2])
