"""How often a source's weights are in memory while it is compared."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from stnkit.convert import frozen, keras_subject
from stnkit.convert.frozen import freeze
from stnkit.convert.graph_nodes import graph_nodes
from stnkit.convert.keras_subject import KerasSubject
from stnkit.convert.source import source_from_keras

SMALL = 512  # bytes of a node: those of small models' weights have more, those of shapes less
IMAGES = np.random.default_rng(3).random((2, 20, 20, 1), np.float32)


@pytest.fixture
def large(monkeypatch):
    """Let every model count as large, and its weights as well."""
    monkeypatch.setattr(keras_subject, "LARGE_BYTES", 0)
    monkeypatch.setattr(frozen, "_LARGE_BYTES", SMALL)


@pytest.fixture
def no_collection():
    """Leave cycles to what asks for them: Python's own collection comes at any time."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_freezing_leaves_no_graph_behind(monkeypatch, build, large, no_collection):
    graphs = []
    convert = frozen.convert_variables_to_constants_v2

    def converting(*given, **more):
        found = convert(*given, **more)
        graphs.append(weakref.ref(found.graph))
        return found

    monkeypatch.setattr(frozen, "convert_variables_to_constants_v2", converting)
    subject = KerasSubject("a", source_from_keras(build("sequential")))
    assert subject.graph.taps
    assert [graph() for graph in graphs] == [None]


def test_a_subject_at_rest_holds_no_runner(build, large, no_collection):
    subject = KerasSubject("a", source_from_keras(build("sequential")))
    expected = subject.run({"photo": IMAGES}, taps=True)
    (runner,) = subject._runners.values()
    graph, weight = weakref.ref(runner.function.graph), weakref.ref(runner.weights[0])
    del runner
    subject.rest()
    assert graph() is None
    assert weight() is None
    for name, value in subject.run({"photo": IMAGES}, taps=True).items():
        np.testing.assert_array_equal(value, expected[name])


def test_all_runners_share_their_weights(build, large):
    subject = KerasSubject("a", source_from_keras(build("two_transformers")))
    computed = subject.run({"photo": IMAGES}, taps=True)
    thetas = [tap.name for tap in subject.taps if tap.kind == "theta"]
    assert len(thetas) == 2
    for name in thetas:
        driven = subject.run({"photo": IMAGES}, taps=True, drives={name: computed[name]})
        for tap, value in driven.items():
            if tap in computed:
                np.testing.assert_array_equal(value, computed[tap])
    first, *others = subject._runners.values()
    assert len(others) == 2
    assert first.weights
    for other in others:
        assert all(a is b for a, b in zip(first.weights, other.weights, strict=True))


def test_memory_is_given_back_after_each_run_of_a_large_model(monkeypatch, build):
    calls = []
    monkeypatch.setattr(keras_subject, "give_back", lambda **more: calls.append(more))
    source = source_from_keras(build("sequential"))
    subject = KerasSubject("a", source)
    subject.run({"photo": IMAGES})
    assert calls == [{"cycles": False}]
    monkeypatch.setattr(keras_subject, "LARGE_BYTES", 0)
    subject = KerasSubject("a", source)
    subject.run({"photo": IMAGES})
    subject.run({"photo": IMAGES}, taps=True)
    assert calls[1:] == [{"cycles": True}, {}, {}]


@pytest.mark.parametrize("name", ["sequential", "functional", "dictionary", "two_transformers"])
def test_a_graph_is_looked_through_without_its_weights(monkeypatch, build, name):
    graph = freeze(source_from_keras(build(name)), None)
    subject = KerasSubject(name, source_from_keras(build(name)), graph)
    nodes, length = graph_nodes(graph), subject.rounding_length()
    assert nodes
    assert length > 0
    monkeypatch.setattr(frozen, "_LARGE_BYTES", SMALL)
    skeleton = graph.skeleton()
    assert max(node.ByteSize() for node in skeleton.node if node.op == "Const") < SMALL
    assert skeleton.ByteSize() < graph.graph_def.ByteSize()
    assert graph_nodes(graph) == nodes
    assert subject.rounding_length() == length
