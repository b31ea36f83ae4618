"""Sessions are opened and run at every batch size before anybody asks."""

from __future__ import annotations

import pytest

from stnkit.runtime.bundle import open_bundle
from stnkit.runtime.errors import BackendMissingError, InputError
from stnkit.runtime.manifest import Signature, TensorSpec
from stnkit.runtime.purposes import usable_cores
from stnkit.runtime.serving import ModelOptions, warming
from stnkit.runtime.serving.warming import is_batchable, open_warm
from stnkit.runtime.session import Session


@pytest.fixture
def runs(monkeypatch):
    """Return a list of the batch sizes that sessions run."""
    sizes = []
    run = Session.run

    def noted(self, inputs, **options):
        sizes.append(len(next(iter(inputs.values()))))
        return run(self, inputs, **options)

    monkeypatch.setattr(Session, "run", noted)
    return sizes


def opened(path, **options):
    warm = open_warm(open_bundle(path), ModelOptions(**options))
    for session in warm.sessions:
        session.close()
    return warm


def test_every_bucket_runs_on_every_session(bundle_path, runs):
    warm = opened(bundle_path, threads=1, instances=2, max_batch=6)
    assert list(warm.plan.costs_ns) == [1, 2, 4, 6]
    assert all(cost > 0 for cost in warm.plan.costs_ns.values())
    assert set(runs) == {1, 2, 4, 6}
    # ONNX Runtime's session serves any number of threads.
    assert len(warm.sessions) == 2
    assert len(set(warm.sessions)) == 1
    assert (warm.threads, warm.batchable) == (1, True)


def test_litert_has_an_interpreter_for_each_thread(digits_served, runs):
    warm = opened(digits_served, backend="litert", threads=1, instances=3, max_batch=2)
    assert len(set(warm.sessions)) == 3
    assert {session.backend for session in warm.sessions} == {"litert"}
    # At least the first run and a timed one, of each size, on each of them.
    assert min(runs.count(1), runs.count(2)) >= 2 * 3


@pytest.mark.parametrize(("run_ns", "rooms"), [(999_999, (2, 1, 1)), (1_000_000, (3, 1, 1))])
def test_as_many_instances_as_there_is_room_for(run_ns, rooms, bundle_path, monkeypatch):
    """A quick model leaves a core to the event loops, which have as much to do as it has."""
    monkeypatch.setattr(warming, "usable_cores", lambda: 6)
    monkeypatch.setattr(warming, "_run_ns", lambda *arguments: run_ns)
    found = [len(opened(bundle_path, threads=threads).sessions) for threads in (2, 4, 9)]
    assert tuple(found) == rooms
    assert len(opened(bundle_path, threads=2, instances=5).sessions) == 5


def test_each_run_has_a_thread_of_its_own_where_nobody_asks_for_more(bundle_path, monkeypatch):
    monkeypatch.setattr(warming, "usable_cores", lambda: 4)
    monkeypatch.setattr(warming, "_run_ns", lambda *arguments: 10**7)
    warm = opened(bundle_path)
    assert (warm.threads, len(warm.sessions)) == (1, 4)
    warm = opened(bundle_path, threads=4)
    assert (warm.threads, len(warm.sessions)) == (4, 1)


def test_one_core(bundle_path, monkeypatch):
    monkeypatch.setattr(warming, "usable_cores", lambda: 1)
    warm = opened(bundle_path)
    assert (warm.threads, len(warm.sessions)) == (1, 1)


def test_onnx_is_served_before_tflite_where_both_can_run(digits_served, monkeypatch):
    def taken(**options):
        return opened(digits_served, threads=1, instances=1, max_batch=1, **options).sessions[0]

    assert taken().artifact.format == "onnx"
    assert taken(backend="litert").artifact.format == "tflite"
    assert taken(artifact="tflite").artifact.format == "tflite"
    for module in ("stnkit.runtime.serving.warming", "stnkit.runtime.choice"):
        monkeypatch.setattr(f"{module}.available", lambda name: name == "litert")
    assert taken().artifact.format == "tflite"


def test_what_cannot_be_served(bundle_path, monkeypatch):
    with pytest.raises(InputError, match="runs tflite"):
        opened(bundle_path, backend="litert")
    with pytest.raises(InputError, match=r"nothing\.onnx"):
        opened(bundle_path, artifact="nothing.onnx")
    for module in ("stnkit.runtime.serving.warming", "stnkit.runtime.choice"):
        monkeypatch.setattr(f"{module}.available", lambda name: False)
    with pytest.raises(BackendMissingError, match="onnxruntime is not installed"):
        opened(bundle_path)


def spec(*shape):
    return TensorSpec("x", "float32", shape)


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        ([("batch", 3)], [("batch", 2)], True),
        ([("batch", "height", "width", 3)], [("batch", 2)], True),
        ([("batch", 3), ("batch",)], [("batch",), ("batch", 2)], True),
        ([("batch", 3), (3,)], [("batch", 2)], False),
        ([("batch", 3)], [(2, "batch")], False),
        ([("batch", 3)], [("rows", 2)], False),
        ([("batch", "batch")], [("batch", 2)], False),
        ([(1, 3)], [(1, 2)], False),
        ([()], [("batch",)], False),
    ],
)
def test_what_counts_items(inputs, outputs, expected):
    signature = Signature(tuple(spec(*it) for it in inputs), tuple(spec(*it) for it in outputs))
    assert is_batchable(signature) is expected


def test_cores():
    assert usable_cores() >= 1
