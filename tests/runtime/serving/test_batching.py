"""The batcher on a real event loop: models that are slow, that fail, that wait until told."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref

import numpy as np
import pytest

from stnkit.runtime.errors import BackendError
from stnkit.runtime.serving.batching import Batcher
from stnkit.runtime.serving.buckets import BatchPlan
from stnkit.runtime.serving.errors import DeadlineError, InferenceError, OverloadedError
from stnkit.runtime.serving.statistics import ModelStatistics
from stnkit.runtime.serving.work import RetiredError, Work

PATIENCE_S = 60
FLAT = {1: 100, 2: 110, 4: 120, 8: 130}
"""Costs as on a GPU: filling up is cheaper than another run."""
STEEP = {1: 100, 2: 200, 4: 400, 8: 800}
"""Costs as on a CPU: a batch takes the time of its items."""


class Model:
    """Doubles its input, notes what it was given, and waits where it is told to."""

    def __init__(self, *, held=False):
        self.batches = []
        self.started = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.held = held
        self.error = None

    def __call__(self, inputs):
        self.batches.append({name: np.array(value) for name, value in inputs.items()})
        self.started.release()
        if self.held:
            assert self.go.acquire(timeout=PATIENCE_S)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return {"y": inputs["x"] * 2, "first": inputs["x"][:, 0].copy()}

    @property
    def rows(self):
        """First numbers of the rows of every batch."""
        return [batch["x"].reshape(len(batch["x"]), -1)[:, 0].tolist() for batch in self.batches]

    def wait_started(self):
        assert self.started.acquire(timeout=PATIENCE_S)

    def let_go(self):
        self.held = False
        self.go.release(1000)


def items(*values, width=3):
    """Return an input with one row a value, all of whose numbers are that value."""
    return {"x": np.repeat(np.array(values, np.float32)[:, None], width, axis=1)}


def work(*values, key=(), timeout_ms=PATIENCE_S * 1000.0, width=3):
    return Work(items(*values, width=width), len(values), key, timeout_ms)


async def answer(request):
    async with asyncio.timeout(PATIENCE_S):
        return await request.future


async def first(request):
    """Return the first numbers of a request's answer, which has to be the doubled input."""
    outputs = await answer(request)
    np.testing.assert_array_equal(outputs["y"], request.inputs["x"] * 2)
    np.testing.assert_array_equal(outputs["first"], request.inputs["x"][:, 0])
    return outputs["first"].tolist()


async def until(condition):
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
def make():
    """Return `make(*models, costs=…, …)`: a batcher, retired in the end."""
    made = []

    def build(*models, costs=FLAT, queue=100, batchable=True, max_delay_ms=0.0, at_once=None):
        batcher = Batcher(
            models,
            BatchPlan.of(costs),
            max_delay_ms=max_delay_ms,
            queue=queue,
            batchable=batchable,
            statistics=ModelStatistics(),
            name="fake",
            at_once=at_once,
        )
        made.append((batcher, models))
        return batcher

    yield build
    for batcher, models in made:
        for model in models:
            if isinstance(model, Model):
                model.let_go()
        assert batcher.retire(PATIENCE_S)


def blocked(batcher, model):
    """Give the batcher a request that occupies its only thread."""
    model.held, model.go, model.started = True, threading.Semaphore(0), threading.Semaphore(0)
    request = work(-1)
    batcher.submit(request)
    model.wait_started()
    return request


def test_a_lone_request_runs_at_once_as_it_is(make):
    model, seen = Model(), []

    def run(inputs):
        seen.append(inputs["x"])
        return model(inputs)

    async def test():
        batcher = make(run)
        request = work(5)
        batcher.submit(request)
        assert await first(request) == [5]
        assert seen[0] is request.inputs["x"]

    asyncio.run(test())


def test_what_waits_becomes_one_batch_filled_up_with_its_last_item(make):
    async def test():
        model = Model()
        batcher = make(model)
        head = blocked(batcher, model)
        requests = [work(1), work(2), work(3)]
        for request in requests:
            batcher.submit(request)
        assert batcher.depth == 3
        model.let_go()
        assert [await first(it) for it in [head, *requests]] == [[-1], [1], [2], [3]]
        assert model.rows == [[-1], [1, 2, 3, 3]]

    asyncio.run(test())


def test_order_is_the_order_of_arrival(make):
    async def test():
        model = Model()
        batcher = make(model, costs={1: 100, 2: 110})
        head = blocked(batcher, model)
        requests = [work(number) for number in range(1, 8)]
        for request in requests:
            batcher.submit(request)
        model.let_go()
        await asyncio.gather(*(first(it) for it in [head, *requests]))
        assert model.rows == [[-1], [1, 2], [3, 4], [5, 6], [7]]

    asyncio.run(test())


@pytest.mark.parametrize(
    ("costs", "batches"), [(FLAT, [[1, 2, 3, 4, 5, 5, 5, 5]]), (STEEP, [[1, 2, 3, 4], [5]])]
)
def test_filling_up_is_weighed_against_a_second_run(make, costs, batches):
    async def test():
        model = Model()
        batcher = make(model, costs=costs)
        head = blocked(batcher, model)
        requests = [work(number) for number in range(1, 6)]
        for request in requests:
            batcher.submit(request)
        model.let_go()
        await asyncio.gather(*(first(it) for it in [head, *requests]))
        assert model.rows[1:] == batches

    asyncio.run(test())


def test_requests_of_several_items_stay_whole(make):
    async def test():
        model = Model()
        batcher = make(model)
        head = blocked(batcher, model)
        requests = [work(1, 2, 3), work(4, 5, 6), work(7, 8, 9), work(10)]
        for request in requests:
            batcher.submit(request)
        model.let_go()
        answers = await asyncio.gather(*(first(it) for it in [head, *requests]))
        assert answers == [[-1], [1, 2, 3], [4, 5, 6], [7, 8, 9], [10]]
        # Three and three fit into eight, a third three does not, and nothing overtakes.
        assert model.rows == [[-1], [1, 2, 3, 4, 5, 6, 6, 6], [7, 8, 9, 10]]

    asyncio.run(test())


def test_a_request_larger_than_the_planned_batch_runs_whole(make):
    async def test():
        model = Model()
        batcher = make(model, costs=STEEP)
        request = work(1, 2, 3, 4, 5)
        batcher.submit(request)
        assert await first(request) == [1, 2, 3, 4, 5]
        assert model.rows == [[1, 2, 3, 4, 5, 5, 5, 5]]

    asyncio.run(test())


def test_only_equal_keys_share_a_batch_and_nothing_overtakes(make):
    async def test():
        model = Model()
        batcher = make(model)
        head = blocked(batcher, model)
        requests = [
            work(1, key=(3,)),
            work(2, key=(3,)),
            work(3, key=(5,), width=5),
            work(4, key=(3,)),
            work(5, key=(5,), width=5),
        ]
        for request in requests:
            batcher.submit(request)
        model.let_go()
        await asyncio.gather(*(first(it) for it in [head, *requests]))
        assert model.rows == [[-1], [1, 2], [3], [4], [5]]
        assert [batch["x"].shape[1] for batch in model.batches] == [3, 3, 5, 3, 5]

    asyncio.run(test())


def test_what_is_not_batchable_runs_alone(make):
    async def test():
        model = Model()
        batcher = make(model, costs={1: 100}, batchable=False)
        head = blocked(batcher, model)
        # Arrays of any first dimension: it counts no items.
        requests = [Work(items(1, 2, 3), 1, None, 1e4), Work(items(4), 1, None, 1e4)]
        for request in requests:
            batcher.submit(request)
        model.let_go()
        assert [await first(it) for it in [head, *requests]] == [[-1], [1, 2, 3], [4]]
        assert model.rows == [[-1], [1, 2, 3], [4]]

    asyncio.run(test())


def test_an_artifact_for_one_batch_size_always_gets_it(make):
    async def test():
        model = Model()
        batcher = make(model, costs={4: 100})
        request = work(1)
        batcher.submit(request)
        assert await first(request) == [1]
        requests = [work(2, 3), work(4, 5, 6)]
        for request in requests:
            batcher.submit(request)
        await asyncio.gather(*(first(it) for it in requests))
        assert {len(rows) for rows in model.rows} == {4}

    asyncio.run(test())


def test_several_inputs_are_put_together_alike(make):
    async def test():
        model = Model()
        batcher = make(model)
        head = blocked(batcher, model)
        requests = []
        for number in (1, 2, 3):
            request = work(number)
            request.inputs["z"] = np.full((1, 2, 2), number * 10, np.int32)
            requests.append(request)
            batcher.submit(request)
        model.let_go()
        await asyncio.gather(*(first(it) for it in [head, *requests]))
        assert model.batches[1]["z"][:, 0, 0].tolist() == [10, 20, 30, 30]
        assert model.batches[1]["z"].dtype == np.int32

    asyncio.run(test())


def test_time_that_is_over_while_waiting_costs_no_run(make):
    async def test():
        model = Model()
        batcher = make(model)
        head = blocked(batcher, model)
        late, other = work(1, timeout_ms=1), work(2)
        # Not refused: the plan's costs say that there is time.
        batcher.submit(late)
        batcher.submit(other)
        await asyncio.sleep(0.01)
        model.let_go()
        with pytest.raises(DeadlineError, match="time was over after"):
            await answer(late)
        assert [await first(head), await first(other)] == [[-1], [2]]
        assert model.rows == [[-1], [2]]

    asyncio.run(test())


def test_time_that_is_over_while_running_leaves_the_others_their_answers(make):
    async def test():
        model = Model(held=True)
        batcher = make(model)
        head = blocked(batcher, model)
        late, other = work(1), work(2)
        batcher.submit(late)
        batcher.submit(other)
        model.go.release()
        model.wait_started()
        late.expire()
        model.let_go()
        with pytest.raises(DeadlineError):
            await answer(late)
        assert await first(other) == [2]
        assert model.rows == [[-1], [1, 2]]
        await first(head)
        await until(lambda: batcher._statistics.executions == 2)
        assert batcher._statistics.success == 2

    asyncio.run(test())


def test_cancelled_while_waiting_is_not_run(make):
    async def test():
        model = Model()
        batcher = make(model)
        head = blocked(batcher, model)
        requests = [work(1), work(2), work(3)]
        for request in requests:
            batcher.submit(request)
        requests[0].future.cancel()
        requests[2].future.cancel()
        model.let_go()
        assert [await first(head), await first(requests[1])] == [[-1], [2]]
        await until(lambda: not batcher.busy)
        assert model.rows == [[-1], [2]]

    asyncio.run(test())


def test_cancelled_while_running_leaves_the_others_their_answers(make):
    async def test():
        model = Model()
        batcher = make(model)
        head = blocked(batcher, model)
        requests = [work(1), work(2)]
        for request in requests:
            batcher.submit(request)
        model.go.release()
        model.wait_started()
        requests[0].future.cancel()
        model.let_go()
        assert [await first(head), await first(requests[1])] == [[-1], [2]]
        await until(lambda: batcher._statistics.executions == 2)
        # The one that went away is not counted as answered.
        assert batcher._statistics.success == 2
        assert batcher._statistics.items == 3

    asyncio.run(test())


def test_withdrawn_gives_its_place_and_its_memory_back(make):
    async def test():
        model = Model()
        batcher = make(model, queue=2)
        head = blocked(batcher, model)
        kept, gone = work(1), work(2)
        batcher.submit(kept)
        batcher.submit(gone)
        with pytest.raises(OverloadedError):
            batcher.submit(work(3))
        gone.future.cancel()
        batcher.withdraw(gone)
        batcher.withdraw(gone)  # a second time changes nothing
        batcher.withdraw(head)  # nor does one that runs
        array = weakref.ref(gone.inputs["x"])
        del gone
        gc.collect()
        assert array() is None
        assert batcher.depth == 1
        other = work(3)
        batcher.submit(other)
        model.let_go()
        assert [await first(it) for it in (head, kept, other)] == [[-1], [1], [3]]
        assert batcher._waiting_items == batcher._running_items == 0 or batcher.busy

    asyncio.run(test())


def where(seen, model):
    """Return `model`, noting the thread of each run."""

    def run(inputs):
        seen.append(threading.current_thread())
        return model(inputs)

    return run


async def one_by_one(batcher, count):
    for number in range(count):
        request = work(number)
        batcher.submit(request)
        assert await first(request) == [number]
        # A thread that has handed its answer over is not done yet, and what comes is not alone.
        await until(lambda: not batcher.busy)


def test_lone_requests_of_a_quick_model_run_on_the_loop_once_there_were_some(make):
    async def test():
        model, seen = Model(), []
        run = where(seen, model)
        batcher = make(run, at_once=run)
        await one_by_one(batcher, 30)
        here = threading.current_thread()
        assert here not in seen[:5]
        assert seen[-1] is here
        # Several at once are for the threads again, and so is what follows them.
        before = len(seen)
        several = [work(number) for number in range(3)]
        for request in several:
            batcher.submit(request)
        assert await asyncio.gather(*(first(it) for it in several)) == [[0], [1], [2]]
        await one_by_one(batcher, 1)
        assert here not in seen[before:]

    asyncio.run(test())


@pytest.mark.parametrize("options", [{}, {"at_once": True, "max_delay_ms": 0.01}])
def test_other_models_never_run_on_the_loop(make, options):
    async def test():
        model, seen = Model(), []
        run = where(seen, model)
        batcher = make(run, **{**options, **({"at_once": run} if options else {})})
        await one_by_one(batcher, 30)
        assert threading.current_thread() not in seen

    asyncio.run(test())


def test_a_run_on_the_loop_that_fails_fails_its_request_alone(make):
    async def test():
        model, seen = Model(), []
        run = where(seen, model)
        batcher = make(run, at_once=run)
        await one_by_one(batcher, 30)
        model.error = BackendError("no")
        request = work(1)
        batcher.submit(request)
        with pytest.raises(InferenceError, match="the model failed"):
            await answer(request)
        assert seen[-1] is threading.current_thread()
        await one_by_one(batcher, 2)
        assert not batcher.busy

    asyncio.run(test())


def test_a_request_that_goes_away_before_its_run_on_the_loop_is_not_run(make):
    async def test():
        model = Model()
        batcher = make(model, at_once=model)
        await one_by_one(batcher, 30)
        runs = len(model.batches)
        request = work(1)
        batcher.submit(request)
        request.future.cancel()
        batcher.withdraw(request)
        await asyncio.sleep(0)
        await one_by_one(batcher, 1)
        assert len(model.batches) == runs + 1
        assert not batcher.busy

    asyncio.run(test())


def test_retiring_waits_for_a_run_on_a_loop(make):
    """Else the session would be closed under it."""
    model = Model()
    batcher = make(model, at_once=model)
    quick = threading.Event()

    async def test():
        await one_by_one(batcher, 30)
        while model.started.acquire(blocking=False):
            pass
        model.held = True
        request = work(7)
        batcher.submit(request)
        quick.set()
        assert await first(request) == [7]

    loop = threading.Thread(target=asyncio.run, args=(test(),))
    loop.start()
    assert quick.wait(PATIENCE_S)
    model.wait_started()
    assert not batcher.retire(0.05)
    model.let_go()
    assert batcher.retire(PATIENCE_S)
    loop.join(PATIENCE_S)
    assert not loop.is_alive()


def test_two_loops_with_lone_requests(make):
    """Each may run its own on itself; none is lost, and none runs twice."""
    model = Model()
    batcher = make(model, at_once=model)

    async def test(start):
        for number in range(start, start + 500):
            request = work(number)
            batcher.submit(request)
            assert await first(request) == [number]

    loops = [threading.Thread(target=asyncio.run, args=(test(start),)) for start in (0, 1000, 2000)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join(PATIENCE_S)
        assert not loop.is_alive()
    asked = [int(value) for rows in model.rows for value in rows]
    assert set(asked) == {*range(500), *range(1000, 1500), *range(2000, 2500)}
    patience = time.monotonic() + PATIENCE_S
    while batcher.busy:  # a thread that has handed its answer over is not done yet
        assert time.monotonic() < patience


@pytest.mark.parametrize("batchable", [True, False])
def test_a_model_sees_aligned_arrays(make, batchable):
    """Views of a request's bytes begin wherever the text before them ends."""

    async def test():
        seen = []

        def run(inputs):
            seen.append(inputs["x"].flags.aligned)
            return {"y": inputs["x"] * 2}

        batcher = make(run, batchable=batchable)
        raw = np.zeros(13, np.uint8)
        odd = np.frombuffer(memoryview(raw)[1:], np.float32).reshape(1, 3)
        assert not odd.flags.aligned
        request = Work({"x": odd}, 1, (), PATIENCE_S * 1000.0)
        batcher.submit(request)
        assert (await answer(request))["y"].shape == (1, 3)
        assert seen == [True]

    asyncio.run(test())


def test_a_full_queue_refuses_at_once(make):
    async def test():
        model = Model()
        batcher = make(model, queue=2)
        blocked(batcher, model)
        assert not batcher.full
        batcher.refuse_when_full(10_000.0)
        waiting = [work(1), work(2)]
        for request in waiting:
            batcher.submit(request)
        assert batcher.full
        for refuse in (lambda: batcher.submit(work(3)), lambda: batcher.refuse_when_full(10_000.0)):
            with pytest.raises(OverloadedError, match="2 requests wait") as found:
                refuse()
            assert 1 <= found.value.retry_after_s <= 60
        model.let_go()
        await asyncio.gather(*(first(it) for it in waiting))
        third = work(3)
        batcher.submit(third)
        assert await first(third) == [3]

    asyncio.run(test())


def test_the_wait_is_told_by_what_batches_take_and_not_by_what_they_took_while_loading(make):
    """Under load an item takes longer: by the costs of a quiet start this request would be taken,
    wait, run out of time, and have cost others theirs."""

    async def test():
        model = Model()
        slow = threading.Event()

        def run(inputs):
            slow.wait(0.02)
            return model(inputs)

        batcher = make(run, costs={1: 1000})
        for number in range(60):
            request = work(number)
            batcher.submit(request)
            assert await first(request) == [number]
        model.held = True
        blocker = work(1)
        batcher.submit(blocker)
        await until(lambda: batcher.depth == 0)
        waiting = [work(number) for number in range(9)]
        for request in waiting:
            batcher.submit(request)
        for refuse in (
            lambda: batcher.submit(work(3, timeout_ms=200)),
            lambda: batcher.refuse_when_full(200.0),
        ):
            with pytest.raises(OverloadedError, match="the 9 requests that wait take longer"):
                refuse()
        batcher.refuse_when_full(PATIENCE_S * 1000.0)
        model.let_go()
        await asyncio.gather(*(answer(it) for it in [blocker, *waiting]))

    asyncio.run(test())


def test_what_would_wait_for_longer_than_it_may_is_refused(make):
    async def test():
        model = Model()
        # 8 items take 80 s: one that waits takes 10 s.
        batcher = make(model, costs={1: 10 * 10**9, 8: 80 * 10**9})
        blocked(batcher, model)
        waiting = work(1)
        batcher.submit(waiting)
        with pytest.raises(OverloadedError, match="take longer than this one may") as found:
            batcher.submit(work(2, timeout_ms=15_000))
        assert found.value.retry_after_s == 20
        patient = work(3, timeout_ms=50_000)
        batcher.submit(patient)
        model.let_go()
        assert await first(patient) == [3]

    asyncio.run(test())


@pytest.mark.parametrize("error", [ValueError("no"), BackendError("no"), MemoryError(), OSError()])
def test_an_error_fails_its_batch_alone(make, error, caplog):
    async def test():
        model = Model()
        batcher = make(model)
        head = blocked(batcher, model)
        requests = [work(1), work(2)]
        for request in requests:
            batcher.submit(request)
        model.go.release()
        model.wait_started()
        model.error = error
        after = work(3)
        batcher.submit(after)
        model.let_go()
        for request in requests:
            with pytest.raises(InferenceError, match="the model failed on this request"):
                await answer(request)
        assert [await first(head), await first(after)] == [[-1], [3]]
        await until(lambda: batcher._statistics.success == 2)
        assert batcher._statistics.failures == {"backend": 2}

    asyncio.run(test())
    assert "fake: a batch of 2 failed" in caplog.text


class Bug(BaseException):
    pass


@pytest.mark.parametrize("answer_of", ["no mapping", {"y": np.float32(1)}, Bug()])
def test_a_bug_neither_ends_the_thread_nor_leaves_anybody_waiting(make, answer_of, caplog):
    async def test():
        model = Model()
        once = [answer_of]

        def run(inputs):
            outputs = model(inputs)
            if len(inputs["x"]) == 2 and once:
                found = once.pop()
                if isinstance(found, BaseException):
                    raise found
                return found
            return outputs

        batcher = make(run)
        head = blocked(batcher, model)
        requests = [work(1), work(2)]
        for request in requests:
            batcher.submit(request)
        model.let_go()
        for request in requests:
            with pytest.raises(InferenceError, match="the server failed on this request"):
                await answer(request)
        await first(head)
        after = work(3)
        batcher.submit(after)
        assert await first(after) == [3]

    asyncio.run(test())
    assert "a batch was lost to a bug" in caplog.text


def test_retiring_answers_all_that_waits_and_takes_no_more(make):
    async def test():
        model = Model()
        batcher = make(model)
        head = blocked(batcher, model)
        requests = [work(number) for number in range(20)]
        for request in requests:
            batcher.submit(request)
        retiring = asyncio.create_task(asyncio.to_thread(batcher.retire))
        await until(lambda: batcher._retired)
        with pytest.raises(RetiredError):
            batcher.submit(work(99))
        assert not retiring.done()
        model.let_go()
        answers = await asyncio.gather(*(first(it) for it in [head, *requests]))
        assert answers == [[-1], *([number] for number in range(20))]
        assert await retiring is True
        assert not batcher.busy
        assert not any(thread.is_alive() for thread in batcher._threads)

    asyncio.run(test())


def test_retiring_does_not_wait_for_ever_for_what_hangs(make):
    async def test():
        model = Model()
        batcher = make(model)
        head = blocked(batcher, model)
        assert batcher.retire(0.01) is False
        model.let_go()
        assert await first(head) == [-1]

    asyncio.run(test())


def test_retiring_ends_the_wait_for_company(make):
    async def test():
        model = Model()
        batcher = make(model, max_delay_ms=PATIENCE_S * 1000)
        request = work(1)
        batcher.submit(request)
        assert await asyncio.to_thread(batcher.retire, PATIENCE_S / 2)
        assert await first(request) == [1]

    asyncio.run(test())


def test_a_batch_waits_for_company_where_it_is_told_to(make):
    async def test():
        model = Model()
        batcher = make(model, costs={1: 100, 2: 110, 4: 120}, max_delay_ms=PATIENCE_S * 1000)
        requests = [work(number) for number in range(4)]
        started = time.monotonic()
        for request in requests[:3]:
            batcher.submit(request)
        await asyncio.sleep(0.05)
        assert model.batches == []
        batcher.submit(requests[3])  # full: nothing to wait for
        await asyncio.gather(*(first(it) for it in requests))
        assert time.monotonic() - started < PATIENCE_S / 2
        assert model.rows == [[0, 1, 2, 3]]

    asyncio.run(test())


def test_company_is_not_waited_for_longer_than_told(make):
    async def test():
        model = Model()
        batcher = make(model, max_delay_ms=20)
        request = work(1)
        started = time.monotonic()
        batcher.submit(request)
        assert await first(request) == [1]
        assert time.monotonic() - started >= 0.02
        assert model.rows == [[1]]

    asyncio.run(test())


def test_two_threads_that_wait_for_company_lose_nothing(make):
    async def test():
        models = [Model(), Model()]
        batcher = make(*models, costs={1: 100, 2: 110}, max_delay_ms=5)
        for round_ in range(30):
            requests = [work(round_ * 10 + number) for number in range(5)]
            for request in requests:
                batcher.submit(request)
            await asyncio.gather(*(first(it) for it in requests))

    asyncio.run(test())


def test_a_second_thread_runs_beside_the_first(make):
    async def test():
        models = [Model(held=True), Model(held=True)]
        batcher = make(*models)
        requests = [work(1), work(2)]
        for request in requests:
            batcher.submit(request)
            await until(lambda: not batcher.depth)
        for model in models:
            model.wait_started()
            model.let_go()
        assert [await first(it) for it in requests] == [[1], [2]]

    asyncio.run(test())


def test_nothing_is_kept_of_a_request_that_was_answered(make):
    async def test():
        batcher = make(lambda inputs: {"y": inputs["x"].copy()})
        for values in ([1], [2, 3, 4]):  # as it is, and filled up
            request = work(*values)
            array = weakref.ref(request.inputs["x"])
            batcher.submit(request)
            await answer(request)
            del request
            await until(lambda: not batcher.busy)
            gc.collect()
            assert array() is None

    asyncio.run(test())


def test_answers_belong_to_who_asked_and_stay_as_they_are(make):
    """The arrays of a batch are used again: an answer must not change with the next one."""

    async def test():
        model = Model()
        batcher = make(model)
        head = blocked(batcher, model)
        earlier = [work(1), work(2), work(3)]
        for request in earlier:
            batcher.submit(request)
        model.let_go()
        answers = [await answer(it) for it in earlier]
        await first(head)
        for _ in range(5):
            head = blocked(batcher, model)
            later = [work(100), work(200), work(300)]
            for request in later:
                batcher.submit(request)
            model.let_go()
            await asyncio.gather(*(first(it) for it in [head, *later]))
        for request, outputs in zip(earlier, answers, strict=True):
            np.testing.assert_array_equal(outputs["y"], request.inputs["x"] * 2)

    asyncio.run(test())


def test_several_event_loops_share_a_batch(make):
    model = Model()
    batcher = make(model)
    ready = threading.Barrier(3, timeout=PATIENCE_S)
    found = {}

    async def ask(number):
        request = work(number)
        await asyncio.to_thread(ready.wait)
        batcher.submit(request)
        found[number] = await first(request)

    async def hold():
        head = blocked(batcher, model)
        threads = [
            threading.Thread(target=asyncio.run, args=(ask(number),)) for number in (1, 2, 3)
        ]
        for thread in threads:
            thread.start()
        await until(lambda: batcher.depth == 3)
        model.let_go()
        await first(head)
        for thread in threads:
            await asyncio.to_thread(thread.join, PATIENCE_S)

    asyncio.run(hold())
    assert found == {1: [1], 2: [2], 3: [3]}
    assert sorted(model.rows[1]) == [1, 2, 3, 3] or sorted(model.rows[1][:3]) == [1, 2, 3]


def test_an_answer_for_a_loop_that_has_ended_harms_nobody(make):
    model = Model()
    batcher = make(model)

    async def leave():
        blocked(batcher, model)

    asyncio.run(leave())
    model.let_go()

    async def stay():
        request = work(1)
        batcher.submit(request)
        assert await first(request) == [1]

    asyncio.run(stay())


@pytest.mark.parametrize("max_delay_ms", [0.0, 1.0])
def test_thousands_of_requests_are_each_answered_once(make, max_delay_ms):
    """From several loops, of one to three items, some of which are taken back."""
    models = [Model(), Model(), Model()]
    batcher = make(*models, queue=100_000, max_delay_ms=max_delay_ms)
    answered = []

    async def ask(loop, number, rng):
        values = [loop * 100_000 + number * 10 + i for i in range(int(rng.integers(1, 4)))]
        request = work(*values)
        batcher.submit(request)
        if rng.random() < 0.1:
            request.future.cancel()
            if rng.random() < 0.5:
                batcher.withdraw(request)
            return
        assert await first(request) == values
        answered.append(values[0])

    async def many(loop):
        rng = np.random.default_rng(loop)
        for start in range(0, 1000, 50):
            await asyncio.gather(*(ask(loop, start + i, rng) for i in range(50)))

    threads = [threading.Thread(target=asyncio.run, args=(many(loop),)) for loop in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert len(answered) == len(set(answered))
    assert 3200 < len(answered) < 4000
    assert batcher.retire(PATIENCE_S)
    assert not batcher.busy
    assert batcher._waiting_items == batcher._running_items == 0
    assert batcher._statistics.success >= len(answered)
