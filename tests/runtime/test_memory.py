"""Which sessions keep what they have freed; what they compute is the same."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from stnkit.runtime import load, verify
from stnkit.runtime.backends import open_runner
from stnkit.runtime.equivalence import file_subject
from stnkit.runtime.equivalence.file_subject import FileSubject, Names

NAMES = Names(
    {"image": "image_in"},
    {"probabilities": "out_p", "features": "out_f"},
    {"st/theta": "loc:0/theta", "st/warped": "sampler/warped"},
)
THETA = np.tile(np.array([2, 0, 0.5, 0, 0, 0], np.float32), (2, 1))


@pytest.fixture
def arenas(monkeypatch):
    """Return the list of what each session was told about its arena."""
    told = []
    opened = ort.InferenceSession

    def session(model, sess_options, **more):
        told.append(sess_options.enable_cpu_mem_arena)
        return opened(model, sess_options=sess_options, **more)

    monkeypatch.setattr(ort, "InferenceSession", session)
    return told


@pytest.mark.parametrize("pool", [True, False])
def test_a_session_has_an_arena_where_memory_is_pooled(arenas, onnx_model, pool):
    open_runner("onnxruntime", onnx_model, NAMES, pool=pool).close()
    assert arenas == [pool]


def test_a_session_that_serves_keeps_its_arena(arenas, bundle_path, toy):
    with load(bundle_path, backend="onnxruntime") as session:
        session.run({"image": toy.images(2)})
        session.run({"image": toy.images(2)}, taps=True)
    assert set(arenas) == {True}


def test_a_comparison_keeps_no_arena(arenas, onnx_model, toy):
    subject = FileSubject("a.onnx", onnx_model, NAMES)
    images = {"image": toy.images(2)}
    subject.run(images)
    subject.run(images, taps=True)
    subject.run(images, taps=True, drives={"st/theta": THETA})
    subject.fetch(images, ["sampler/warped"])
    assert arenas == [False] * 4


def test_the_proof_of_a_bundle_keeps_no_arena(arenas, bundle_path):
    assert verify(bundle_path, "onnx").passed
    assert set(arenas) == {False}


@pytest.mark.parametrize("backend", ["onnxruntime", "litert"])
def test_what_is_computed_is_the_same_to_the_bit(backend, onnx_model, tflite_model, maker, toy):
    model = {"onnxruntime": onnx_model, "litert": tflite_model}[backend]
    found = []
    for pool in (True, False):
        runner = open_runner(backend, model, maker.artifact(model), want_taps=True, pool=pool)
        found.append([runner.run({"image": toy.images(count)}) for count in (1, 7, 2)])
        runner.close()
    for pooled, free in zip(*found, strict=True):
        assert pooled.keys() == free.keys()
        for name, value in pooled.items():
            np.testing.assert_array_equal(free[name], value)


@pytest.mark.parametrize("least", [1, 2**24])
def test_copies_of_large_weights_are_given_back_at_once(monkeypatch, onnx_model, least):
    calls = []
    monkeypatch.setattr(file_subject, "LARGE_BYTES", least)
    monkeypatch.setattr(file_subject, "give_back", lambda: calls.append(1))
    FileSubject("a.onnx", onnx_model, NAMES)
    assert len(calls) == (least == 1)
