"""Batches in fixed sizes: what runs, what is cut off, and which models cannot be run so."""

from __future__ import annotations

import numpy as np
import pytest

from stnkit.runtime import BackendError, InputError, load
from stnkit.runtime.backends.registry import RunnerFacts
from stnkit.runtime.buckets import Buckets, bucket_problem, checked_buckets
from stnkit.runtime.manifest import Signature, TensorSpec


class Doubler:
    """Doubles its input, and remembers what it was given."""

    version = "1"
    facts = RunnerFacts()

    def __init__(self):
        self.seen = []

    def run(self, inputs, out=None):
        self.seen.append({name: value.copy() for name, value in inputs.items()})
        value = 2 * inputs["x"]
        if out:
            out["y"][...] = value
            value = out["y"]
        return {"y": value}

    def close(self):
        """Nothing to give back."""


SIGNATURE = Signature(
    (TensorSpec("x", "float32", ("batch", 2)), TensorSpec("scale", "float32", ())),
    (TensorSpec("y", "float32", ("batch", 2)),),
)


def rows(count):
    return np.arange(2 * count, dtype=np.float32).reshape(count, 2)


@pytest.mark.parametrize(
    ("count", "runs"),
    [(1, [1]), (2, [4]), (3, [4]), (4, [4]), (5, [4, 1]), (7, [4, 4]), (8, [4, 4]), (9, [4, 4, 1])],
)
@pytest.mark.parametrize("with_out", [False, True])
def test_batches_are_filled_up_split_and_cut(count, runs, with_out):
    runner, scale = Doubler(), np.float32(3)
    out = {"y": np.full((count, 2), np.nan, np.float32)} if with_out else None
    inputs = {"x": rows(count), "scale": np.array(scale)}
    result = Buckets(SIGNATURE, (1, 4)).run(runner, inputs, out)
    np.testing.assert_array_equal(result["y"], 2 * rows(count))
    assert out is None or result["y"] is out["y"]
    assert [len(seen["x"]) for seen in runner.seen] == runs
    assert all(seen["scale"] == scale for seen in runner.seen)


def test_filled_up_with_the_last_row():
    runner = Doubler()
    Buckets(SIGNATURE, (4,)).run(runner, {"x": rows(2), "scale": np.zeros(())})
    np.testing.assert_array_equal(runner.seen[0]["x"], [[0, 1], [2, 3], [2, 3], [2, 3]])


def test_a_batch_of_a_buckets_size_is_not_copied():
    class Same(Doubler):
        def run(self, inputs, out=None):
            assert inputs["x"] is given
            return super().run(inputs, out)

    given = rows(4)
    Buckets(SIGNATURE, (1, 4)).run(Same(), {"x": given, "scale": np.zeros(())})


def test_an_answer_with_other_rows_is_an_error():
    class Summing(Doubler):
        def run(self, inputs, out=None):
            return {"y": inputs["x"].sum(axis=0, keepdims=True)}

    with pytest.raises(BackendError, match=r'"y" came with shape \[1, 2\]: expected 4 rows'):
        Buckets(SIGNATURE, (4,)).run(Summing(), {"x": rows(3), "scale": np.zeros(())})


@pytest.mark.parametrize(
    ("given", "sizes"), [([8, 1, 8], (1, 8)), ((4,), (4,)), (range(1, 17), tuple(range(1, 17)))]
)
def test_sizes(given, sizes):
    assert checked_buckets(given) == sizes


@pytest.mark.parametrize(
    "given", [(), (0,), (-1, 2), (1.0,), (True,), ("8",), "8", (65537,), range(1, 18)]
)
def test_wrong_sizes(given):
    with pytest.raises(InputError, match=r"batch_buckets is .*expected 1 to 16 sizes from 1 to"):
        checked_buckets(given)


@pytest.mark.parametrize(
    ("inputs", "outputs", "batch", "problem"),
    [
        ([("batch", 2)], [("batch", 3)], "dynamic", None),
        ([("batch", 2), (5,)], [("batch", 3), ("batch",)], "dynamic", None),
        ([("batch", 2)], [("batch", 3)], 4, "the artifact takes batches of 4 alone"),
        ([(1, 2)], [(1, 3)], "dynamic", "no input has a batch"),
        ([("batch", "batch")], [("batch", 3)], "dynamic", "as a later dimension"),
        ([("batch", 2)], [("batch", 3), (3,)], "dynamic", '"out1" does not have one row an item'),
        ([("batch", 2)], [(3, "batch")], "dynamic", '"out0" does not have one row'),
        ([("batch", 2)], [("batch", "batch")], "dynamic", '"out0" does not have one row'),
    ],
)
def test_which_models_can_be_run_so(inputs, outputs, batch, problem):
    signature = Signature(
        tuple(TensorSpec(f"in{at}", "float32", shape) for at, shape in enumerate(inputs)),
        tuple(TensorSpec(f"out{at}", "float32", shape) for at, shape in enumerate(outputs)),
    )
    found = bucket_problem(signature, (), batch)
    assert found is None if problem is None else problem in found


@pytest.mark.parametrize("format", ["tflite", "onnx"])
@pytest.mark.parametrize("taps", [False, True])
def test_a_session_on_the_cpu_takes_them_too(both_path, toy, format, taps):
    with load(both_path, artifact=format, batch_buckets=(4, 2)) as session:
        assert session.batch_buckets == (2, 4)
        assert "filled up to 2, 4" in str(session.explain())
        for count in (1, 2, 3, 4, 7):
            image = toy.images(count, seed=count)
            result, truth = session.run({"image": image}, taps=taps), toy.run(image)
            for name, value in result.items():
                np.testing.assert_allclose(value, truth[name], rtol=0, atol=2e-6)


def test_asked_for_and_impossible(maker, toy, tmp_path):
    path = maker.write(
        tmp_path / "b", [toy.onnx(batch=2)], artifact_changes={"batch": 2}, cases=(toy.case(2),)
    )
    with pytest.raises(InputError, match="batch_buckets cannot be used: the artifact takes batche"):
        load(path, batch_buckets=(1, 2))
