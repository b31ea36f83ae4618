"""The core, asked as both protocols ask it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
import time

import numpy as np
import pytest

from stnkit.runtime.serving import BundleSource
from stnkit.runtime.serving.errors import (
    DeadlineError,
    InvalidRequestError,
    NotFoundError,
    NotReadyError,
    OverloadedError,
    UnauthenticatedError,
)
from stnkit.runtime.serving.inference import InferRequest

PATIENCE_S = 60


@pytest.fixture
def request_of(toy):
    """Return `request_of(seed, count)`: a request and the probabilities it has to give."""

    def make(seed=1, count=1, **options):
        images = toy.images(count, seed=seed)
        request = InferRequest("toy", "", {"image": images}, **options)
        return request, toy.run(images)["probabilities"]

    return make


class Gate:
    """Holds the runs of a core's only model; `with` it opened in the end."""

    def __init__(self, core):
        (model,) = core.repository.models()
        (session,) = model._sessions
        self.started, self.go = threading.Semaphore(0), threading.Event()
        self._session, self._run = session, session._runner.run
        session._runner.run = self

    def __call__(self, *arguments):
        self.started.release()
        assert self.go.wait(PATIENCE_S)
        return self._run(*arguments)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.go.set()

    async def occupy(self, core, request):
        """Return a task whose request runs, and stays there."""
        task = asyncio.create_task(core.infer(request))
        assert await asyncio.to_thread(self.started.acquire, timeout=PATIENCE_S)
        return task


def check(response, expected):
    np.testing.assert_allclose(response.outputs[0].array, expected, atol=1e-6)


async def until(condition):
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)


def test_many_at_once_each_get_their_own(core_served, bundle_path, request_of):
    core = core_served(bundle_path)

    async def test():
        pairs = [request_of(seed, 1 + seed % 3) for seed in range(100)]
        answers = await asyncio.gather(*(core.infer(request) for request, _ in pairs))
        for answer, (_, expected) in zip(answers, pairs, strict=True):
            check(answer, expected)

    asyncio.run(test())
    (stats,) = core.statistics("toy")["model_stats"]
    assert stats["inference_stats"]["success"]["count"] == 100
    assert stats["inference_count"] == sum(1 + seed % 3 for seed in range(100))
    assert stats["execution_count"] < 100  # they shared batches


def test_a_deadline_while_waiting(core_served, bundle_path, request_of):
    core = core_served(bundle_path)

    async def test():
        with Gate(core) as gate:
            running = await gate.occupy(core, request_of()[0])
            with pytest.raises(DeadlineError):
                await core.infer(request_of(timeout_ms=20)[0])
            model = core.repository.get("toy")
            # Its place and its memory are free again, though nothing has run since.
            assert model.batcher.depth == 0
            assert model.statistics.failures == {"deadline": 1}
            gate.go.set()
            check(await running, request_of()[1])

    asyncio.run(test())


def test_a_deadline_while_running(core_served, bundle_path, request_of):
    core = core_served(bundle_path)

    async def test():
        with Gate(core) as gate:
            with pytest.raises(DeadlineError, match="time was over after"):
                await core.infer(request_of(timeout_ms=20)[0])
            gate.go.set()
            request, expected = request_of(2)
            check(await core.infer(request), expected)

    asyncio.run(test())
    statistics = core.repository.get("toy").statistics
    assert (statistics.success, statistics.failures) == (1, {"deadline": 1})


def test_the_shorter_of_both_times_counts(core_served, bundle_path, request_of):
    core = core_served(bundle_path, timeout_ms=20)

    async def test():
        with Gate(core), pytest.raises(DeadlineError):
            await core.infer(request_of(timeout_ms=PATIENCE_S * 1000)[0])

    asyncio.run(test())


def test_who_goes_away_while_waiting_costs_no_run(core_served, bundle_path, request_of):
    core = core_served(bundle_path)

    async def test():
        model = core.repository.get("toy")
        with Gate(core) as gate:
            running = await gate.occupy(core, request_of()[0])
            gone = [asyncio.create_task(core.infer(request_of(seed)[0])) for seed in (2, 3)]
            kept = asyncio.create_task(core.infer(request_of(4)[0]))
            await until(lambda: model.batcher.depth == 3)
            for task in gone:
                task.cancel()
            await until(lambda: model.batcher.depth == 1)
            gate.go.set()
            check(await running, request_of()[1])
            check(await kept, request_of(4)[1])
            for task in gone:
                with pytest.raises(asyncio.CancelledError):
                    await task
        statistics = model.statistics
        assert (statistics.items, statistics.failures) == (2, {"cancelled": 2})

    asyncio.run(test())


def test_a_full_queue(core_served, bundle_path, request_of):
    core = core_served(bundle_path, queue=2)

    async def test():
        model = core.repository.get("toy")
        with Gate(core) as gate:
            running = await gate.occupy(core, request_of()[0])
            waiting = [asyncio.create_task(core.infer(request_of(seed)[0])) for seed in (2, 3)]
            await until(lambda: model.batcher.depth == 2)
            with pytest.raises(OverloadedError) as found:
                await core.infer(request_of(4)[0])
            assert found.value.retry_after_s >= 1
            gate.go.set()
            for task, seed in zip([running, *waiting], (1, 2, 3), strict=True):
                check(await task, request_of(seed)[1])
        assert model.statistics.failures == {"overloaded": 1}

    asyncio.run(test())


def test_a_wrong_request_is_counted_and_costs_no_run(core_served, bundle_path, request_of):
    core = core_served(bundle_path)
    request = request_of()[0]
    request.inputs["image"] = request.inputs["image"][:, :3]
    with pytest.raises(InvalidRequestError):
        asyncio.run(core.infer(request))
    statistics = core.repository.get("toy").statistics
    assert (statistics.executions, statistics.failures) == (0, {"invalid": 1})


def test_reloading_under_load_loses_nothing(core_served, bundle_path, request_of, tmp_path):
    core = core_served(bundle_path)
    answered = 0
    spoilt = tmp_path / "spoilt"

    async def client(seed, end):
        nonlocal answered
        request, expected = request_of(seed)
        while not end.is_set():
            check(await core.infer(request), expected)
            answered += 1

    async def test():
        end = asyncio.Event()
        clients = [asyncio.create_task(client(seed, end)) for seed in range(6)]
        for number in range(10):
            before = answered
            if number % 2:
                shutil.move(bundle_path / "golden.npz", spoilt)
                with pytest.raises(InvalidRequestError):
                    await core.load("toy")
                shutil.move(spoilt, bundle_path / "golden.npz")
            else:
                await core.load("toy")
            await until(lambda before=before: answered > before + 20)
        end.set()
        await asyncio.gather(*clients)

    asyncio.run(test())
    (stats,) = core.statistics("toy")["model_stats"]
    assert stats["inference_stats"]["success"]["count"] == answered
    assert stats["inference_stats"]["fail"]["count"] == 0


def test_reloading_answers_what_the_old_one_was_given(core_served, bundle_path, request_of):
    core = core_served(bundle_path)

    async def test():
        with Gate(core) as gate:
            old = core.repository.get("toy")
            requests = [request_of(seed) for seed in range(5)]
            tasks = [await gate.occupy(core, requests[0][0])]
            tasks += [asyncio.create_task(core.infer(request)) for request, _ in requests[1:]]
            await until(lambda: old.batcher.depth == 4)
            loading = asyncio.create_task(core.load("toy"))
            await until(lambda: core.repository.get("toy") is not old)
            # The new one answers while the old one still has work.
            request, expected = request_of(9)
            check(await core.infer(request), expected)
            assert not loading.done()
            gate.go.set()
            for task, (_, expected) in zip(tasks, requests, strict=True):
                check(await task, expected)
            await loading

    asyncio.run(test())


def test_unloading_under_load_answers_or_says_so(core_served, bundle_path, request_of):
    core = core_served(bundle_path)

    async def client(seed, found):
        request, expected = request_of(seed)
        while True:
            try:
                check(await core.infer(request), expected)
            except NotReadyError:
                found.append(seed)
                return

    async def test():
        found = []
        clients = [asyncio.create_task(client(seed, found)) for seed in range(4)]
        await until(lambda: core.repository.get("toy").statistics.success > 20)
        await core.unload("toy")
        await asyncio.wait_for(asyncio.gather(*clients), PATIENCE_S)
        assert sorted(found) == [0, 1, 2, 3]
        assert not core.model_ready("toy")
        with pytest.raises(NotReadyError):
            core.model_metadata("toy")
        await core.load("toy")
        assert core.model_ready("toy")
        request, expected = request_of(1)
        check(await core.infer(request), expected)

    asyncio.run(test())


def test_closing_while_requests_come_neither_hangs_nor_spins(core_served, bundle_path, request_of):
    core = core_served(bundle_path)

    async def client(seed):
        request, expected = request_of(seed)
        with contextlib.suppress(NotReadyError):
            while True:
                check(await core.infer(request), expected)

    async def test():
        clients = [asyncio.create_task(client(seed)) for seed in range(4)]
        await until(lambda: core.repository.get("toy").statistics.success > 20)
        await asyncio.to_thread(core.close)
        await asyncio.wait_for(asyncio.gather(*clients), PATIENCE_S)

    asyncio.run(test())


def test_it_can_be_opened_again(core_served, bundle_path, request_of):
    core = core_served(bundle_path)
    core.drain()
    core.close()
    assert not core.ready()
    core.open()
    core.open()  # a second time does nothing
    assert core.ready()
    assert not core.draining
    assert core.repository.versions("toy") == ["1"]
    request, expected = request_of()
    check(asyncio.run(core.infer(request)), expected)


def test_health(core_served, bundle_path):
    core = core_served(bundle_path)
    assert (core.live(), core.ready(), core.model_ready("toy"), core.model_ready("toy", "1")) == (
        True,
        True,
        True,
        True,
    )
    with pytest.raises(NotFoundError):
        core.model_ready("nothing")
    with pytest.raises(NotFoundError):
        core.model_ready("toy", "2")
    core.drain()
    assert (core.live(), core.ready(), core.model_ready("toy")) == (True, False, False)


def test_what_it_says_of_itself_and_of_all_models(core_served, bundle_path):
    core = core_served(bundle_path, BundleSource(bundle_path, "other"), BundleSource(bundle_path))
    metadata = core.server_metadata()
    assert metadata["name"] == "stnkit"
    assert {"binary_tensor_data", "statistics", "model_repository"} <= set(metadata["extensions"])
    assert core.model_metadata("toy")["versions"] == ["1", "2"]
    assert core.model_config("toy", "1")["name"] == "toy"

    def named(found):
        return [(entry["name"], entry["version"]) for entry in found["model_stats"]]

    assert named(core.statistics()) == [("toy", "1"), ("toy", "2"), ("other", "1")]
    assert named(core.statistics("toy")) == [("toy", "1"), ("toy", "2")]
    assert named(core.statistics("toy", "2")) == [("toy", "2")]
    for ask in (core.statistics, core.model_config, core.model_metadata):
        with pytest.raises(NotFoundError):
            ask("nothing")


@pytest.mark.parametrize(
    "sent", [None, "", "Bearer", "Bearer ", "secret-of-16-chars", "Bearer other", "Bearer é",
             "bearer secret-of-16-chars", "Bearer secret-of-16-chars "]
)  # fmt: skip
def test_management_takes_the_token(sent, core_served, bundle_path):
    core = core_served(bundle_path, token="secret-of-16-chars")
    core.check_management("Bearer secret-of-16-chars")
    with pytest.raises(UnauthenticatedError):
        core.check_management(sent)


def test_management_is_off_without_a_token(core_served, bundle_path):
    core = core_served(bundle_path)
    for sent in (None, "Bearer ", "Bearer None"):
        with pytest.raises(NotFoundError, match="--model-control explicit"):
            core.check_management(sent)


def test_requests_from_two_loops(core_served, bundle_path, request_of):
    core = core_served(bundle_path)

    async def ask(start):
        for seed in range(start, start + 50):
            request, expected = request_of(seed)
            check(await core.infer(request), expected)

    threads = [threading.Thread(target=asyncio.run, args=(ask(start),)) for start in (0, 100)]
    for thread in threads:
        thread.start()
    until_s = time.monotonic() + PATIENCE_S
    for thread in threads:
        thread.join(until_s - time.monotonic())
        assert not thread.is_alive()
    assert core.repository.get("toy").statistics.success == 100
