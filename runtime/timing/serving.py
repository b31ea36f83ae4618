"""Time a served bundle next to the bare session that serves it.

The server is a process of its own, as a user starts it, and so is the load generator; the bare
session runs in this one, with the same artifact and threads. They have turns.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stnkit.runtime.bundle import Bundle, open_bundle
from stnkit.runtime.errors import InputError, StnkitError, one_line
from stnkit.runtime.serving.options import ModelOptions
from stnkit.runtime.serving.warming import MAX_BATCH_CPU, WarmModel, open_warm
from stnkit.runtime.timing.inputs import inputs_for
from stnkit.runtime.timing.load import LoadPlan, LoadResult, infer_request, measure_load
from stnkit.runtime.timing.machine import Machine, this_machine
from stnkit.runtime.timing.results import Quartiles

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["CONNECTIONS", "CallerTiming", "ServingReport", "time_serving"]

CONNECTIONS = (1, 8, 32)
"""Requests at a time where nobody asks for other numbers."""

_TURN_S = 1.5
_WARM_UP_S = 0.3
_ROUNDS = 5
_READY_S = 120.0
_STOP_S = 15.0


@dataclass(frozen=True)
class CallerTiming:
    """What some callers got, each of whom asks again when it has its answer.

    Attributes:
        callers: how many: threads around the bare session, connections to the server.
        requests_per_s: answers a second; quartiles over the rounds.
        p50_ms: median time of an answer, likewise.
        p90_ms: nine of ten were at most this.
        p99_ms: 99 of 100 were.
    """

    callers: int
    requests_per_s: Quartiles
    p50_ms: Quartiles
    p90_ms: Quartiles
    p99_ms: Quartiles

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values."""
        return {
            "callers": self.callers,
            "requests_per_s": self.requests_per_s.to_json(),
            "p50_ms": self.p50_ms.to_json(),
            "p90_ms": self.p90_ms.to_json(),
            "p99_ms": self.p99_ms.to_json(),
        }


@dataclass(frozen=True)
class ServingReport:
    """Times of a bare session and of the server around it.

    Attributes:
        bundle: the bundle's name.
        artifact: what ran.
        backend: what ran it.
        device: where.
        batch: items in one request.
        threads: threads that shared one run; None where that is not the CPU's affair.
        instances: batches that ran at once.
        bare: of the session itself, by callers.
        served: over HTTP with binary tensors, by connections.
        added_ms: median time that the server adds for a lone client; quartiles over the rounds.
        share: the server's best answers a second over the bare session's best; likewise.
        machine: where it was timed.
    """

    bundle: str
    artifact: str
    backend: str
    device: str
    batch: int
    threads: int | None
    instances: int
    bare: tuple[CallerTiming, ...]
    served: tuple[CallerTiming, ...]
    added_ms: Quartiles
    share: Quartiles
    machine: Machine

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values."""
        return {
            "bundle": self.bundle,
            "artifact": self.artifact,
            "backend": self.backend,
            "device": self.device,
            "batch": self.batch,
            "threads": self.threads,
            "instances": self.instances,
            "bare": [it.to_json() for it in self.bare],
            "served": [it.to_json() for it in self.served],
            "added_ms": self.added_ms.to_json(),
            "share": self.share.to_json(),
            "machine": self.machine.to_json(),
        }


@dataclass(frozen=True)
class _Turn:
    """One turn: answers a second, and how long they took."""

    per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float


def time_serving(
    bundle: str | os.PathLike[str] | Bundle,
    options: ModelOptions | None = None,
    *,
    batch: int = 1,
    connections: Sequence[int] = CONNECTIONS,
    rounds: int | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> ServingReport:
    """Serve a bundle on this machine, load the server, and time the bare session beside it.

    Args:
        bundle: the bundle's folder, or a bundle that is open already.
        options: how it is served; the bare session runs alike.
        batch: items in one request, >= 1.
        connections: requests at a time, >= 1 each; the first one is what `added_ms` is of where it
            is 1.
        rounds: turns of each, >= 1; None for 5 of 1.5 s.
        on_stage: is told what happens, to show progress.

    Raises:
        InputError: options that do not fit the bundle, or numbers below 1.
        BackendError: the backend fails.
        StnkitError: the server does not start, or answers wrongly.
    """
    options = options or ModelOptions()
    if options.max_batch is None and batch > MAX_BATCH_CPU:
        options = replace(options, max_batch=batch)  # a request has to fit in one run
    for name, numbers in (("batch", [batch]), ("rounds", [rounds]), ("connections", connections)):
        for number in numbers:
            if number is not None and number < 1:
                raise InputError(f"{name} is {number}: expected at least 1")
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    machine = this_machine()
    say = on_stage or (lambda _text: None)
    say("loading the session")
    warm = open_warm(opened, options)
    session = warm.sessions[0]
    try:
        inputs = inputs_for(opened.manifest.signature, opened.golden(), batch).arrays
        expected = session.run(inputs)
        callers = tuple(dict.fromkeys((1, len(warm.sessions))))
        bare: dict[int, list[_Turn]] = {count: [] for count in callers}
        served: dict[int, list[_Turn]] = {count: [] for count in dict.fromkeys((1, *connections))}
        say("starting the server")
        with _served(opened, options, warm) as port:
            request = infer_request(opened.manifest.name, inputs)
            for number in range(rounds or _ROUNDS):
                say(f"round {number + 1} of {rounds or _ROUNDS}")
                for count, turns in bare.items():
                    turns.append(_bare_turn(warm, inputs, count))
                for count, turns in served.items():
                    plan = LoadPlan(
                        port=port,
                        request=request,
                        connections=count,
                        duration_s=_TURN_S,
                        warm_up_s=_WARM_UP_S,
                        timeout_s=60.0,
                        expected=expected,
                    )
                    turns.append(_served_turn(measure_load(plan)))
    finally:
        for it in dict.fromkeys(warm.sessions):
            it.close()
    best_bare = [max(turns[i].per_s for turns in bare.values()) for i in range(len(bare[1]))]
    best = [max(turns[i].per_s for turns in served.values()) for i in range(len(bare[1]))]
    pairs = list(zip(served[1], bare[1], strict=True))
    return ServingReport(
        bundle=opened.manifest.name,
        artifact=session.artifact.file,
        backend=f"{session.backend} {session.backend_version}",
        device=session.device,
        batch=batch,
        threads=warm.threads,
        instances=len(warm.sessions),
        bare=tuple(_timing(count, turns) for count, turns in bare.items()),
        served=tuple(_timing(count, turns) for count, turns in served.items()),
        added_ms=Quartiles.of([over.p50_ms - under.p50_ms for over, under in pairs]),
        share=Quartiles.of([over / under for over, under in zip(best, best_bare, strict=True)]),
        machine=machine,
    )


def _timing(callers: int, turns: Sequence[_Turn]) -> CallerTiming:
    return CallerTiming(
        callers,
        Quartiles.of([turn.per_s for turn in turns]),
        Quartiles.of([turn.p50_ms for turn in turns]),
        Quartiles.of([turn.p90_ms for turn in turns]),
        Quartiles.of([turn.p99_ms for turn in turns]),
    )


def _turn(times_ns: npt.NDArray[np.int64], per_s: float) -> _Turn:
    p50, p90, p99 = (float(it) for it in np.percentile(times_ns, [50, 90, 99]) / 1e6)
    return _Turn(per_s, p50, p90, p99)


def _bare_turn(warm: WarmModel, inputs: Mapping[str, npt.NDArray[Any]], callers: int) -> _Turn:
    """Run the sessions from some threads for the time of a turn."""
    times: list[list[int]] = [[] for _ in range(callers)]
    errors: list[BaseException] = []
    until_ns = time.perf_counter_ns() + int(_TURN_S * 1e9)

    def call(number: int) -> None:
        run, own = warm.sessions[number].run, times[number]
        try:
            while True:
                before = time.perf_counter_ns()
                run(inputs)
                after = time.perf_counter_ns()
                own.append(after - before)
                if after >= until_ns:
                    return
        except BaseException as exc:
            errors.append(exc)

    started = time.perf_counter()
    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    took = time.perf_counter() - started
    every = np.concatenate([np.asarray(own, np.int64) for own in times])
    return _turn(every, every.size / took)


def _served_turn(result: LoadResult) -> _Turn:
    quantiles = result.latency_ms()
    if result.errors or quantiles is None:
        kinds = ", ".join(f"{count} x {kind}" for kind, count in result.errors.items())
        raise StnkitError(
            f"the server did not answer every request: {kinds or 'no answer at all'}"
            f"{'' if result.problem is None else f' ({result.problem})'}"
        )
    return _Turn(result.answered_per_s, quantiles.p50, quantiles.p90, quantiles.p99)


@contextmanager
def _served(bundle: Bundle, options: ModelOptions, warm: WarmModel) -> Iterator[int]:
    """Serve a bundle as `stnkit serve` does, on a free port, which is yielded."""
    session = warm.sessions[0]
    command = [
        *(sys.executable, "-m", "stnkit.cli", "serve"),
        f"{bundle.manifest.name}={bundle.path.resolve()}",
        *("--http-port", "0", "--grpc-port", "-1", "--log-level", "error", "--drain-ms", "0"),
        *("--device", session.device, "--artifact", session.artifact.file),
        *("--max-batch", str(warm.plan.largest), "--instances", str(len(warm.sessions))),
        *("--max-delay-ms", str(options.max_delay_ms), "--queue", str(options.queue)),
        *("--timeout-ms", str(options.timeout_ms)),
    ]
    if warm.threads is not None:
        command += ["--threads", str(warm.threads)]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            yield _port(process, errors)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _port(process: subprocess.Popen[str], errors: Any) -> int:
    """Wait until the server listens, and return where.

    Raises:
        StnkitError: it ended before, or took too long.
    """
    assert process.stdout is not None
    timer = threading.Timer(_READY_S, process.kill)
    timer.start()
    try:
        line = process.stdout.readline()
    finally:
        timer.cancel()
    if line.startswith("serving on http://"):
        port = int(line.rsplit(":", 1)[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == 200:
                return port
        finally:
            connection.close()
    errors.seek(0)
    said = one_line(errors.read()[-400:].decode("utf-8", "replace")) or "it said nothing"
    raise StnkitError(f"the server did not start: {said}")
