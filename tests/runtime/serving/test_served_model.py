"""Served models: what they take and say, and that batching changes no answer."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from stnkit.runtime.bundle import open_bundle
from stnkit.runtime.errors import InputError
from stnkit.runtime.serving.batching import Batcher
from stnkit.runtime.serving.buckets import BatchPlan
from stnkit.runtime.serving.errors import InvalidRequestError
from stnkit.runtime.serving.inference import InferRequest, RequestedOutput
from stnkit.runtime.serving.options import ModelOptions
from stnkit.runtime.serving.served_model import ServedModel
from stnkit.runtime.serving.statistics import ModelStatistics
from stnkit.runtime.serving.work import Work

PATIENCE_S = 60
# Filling up is the cheaper choice at any number: every bucket is run full and not full.
FLAT = {1: 100, 2: 101, 4: 102, 8: 103}
both_formats = pytest.mark.parametrize("artifact", ["onnx", "tflite"])


@pytest.fixture
def serve():
    """Return `serve(path, …)`: a served model, closed in the end."""
    made = []

    def make(path, **options):
        options = {"threads": 1, "instances": 1, **options}
        bundle = open_bundle(path)
        model = ServedModel(
            bundle, bundle.manifest.name, "1", ModelOptions(**options), ModelStatistics()
        )
        made.append(model)
        return model

    yield make
    for model in made:
        model.close(PATIENCE_S)


class Held:
    """A session whose runs wait until they are told to go: what waits meanwhile is one batch."""

    def __init__(self, model):
        self.run_model = model._warm.sessions[0].run
        self.go, self.started = threading.Event(), threading.Event()
        self.sizes = []
        self.batcher = Batcher(
            [self],
            BatchPlan.of(FLAT),
            max_delay_ms=0,
            queue=100,
            batchable=True,
            statistics=ModelStatistics(),
            name="held",
        )

    def __call__(self, inputs):
        self.started.set()
        assert self.go.wait(PATIENCE_S)
        self.sizes.append(len(next(iter(inputs.values()))))
        return self.run_model(inputs)

    async def answers(self, requests):
        """Return the answers to requests that run in one batch."""
        head = Work(requests[0], len(next(iter(requests[0].values()))), object(), 1e5)
        self.go.clear()
        self.started.clear()
        self.batcher.submit(head)
        assert self.started.wait(PATIENCE_S)
        work = [Work(it, len(next(iter(it.values()))), (), 1e5) for it in requests]
        for one in work:
            self.batcher.submit(one)
        del self.sizes[:]
        self.go.set()
        found = [await asyncio.wait_for(it.future, PATIENCE_S) for it in work]
        assert len(self.sizes) == 2, "not one batch"
        return found


def compositions(items):
    """Return every way in which requests, in their order, can hold up to a number of items."""
    found = [[]]
    for first in range(1, items + 1):
        found += [[first, *rest] for rest in compositions(items - first)]
    return found


def check_compositions(model, make_item, rng):
    """Check that an item's answer depends on the bucket alone, not on company or place."""
    tolerance = model.manifest.tolerances.outputs
    items = [make_item() for _ in range(12)]
    run = model._warm.sessions[0].run

    def alone(item, bucket):
        filled = {name: np.repeat(value, bucket, axis=0) for name, value in item.items()}
        return {name: value[0] for name, value in run(filled).items()}

    expected = [{bucket: alone(item, bucket) for bucket in FLAT} for item in items]
    for by_bucket in expected:
        for found in by_bucket.values():
            for name, value in found.items():
                np.testing.assert_allclose(
                    value, by_bucket[1][name], atol=tolerance.atol, rtol=tolerance.rtol
                )
    held = Held(model)

    async def test():
        every_way = compositions(8)[1:]
        assert len(every_way) == 255
        for sizes in every_way:
            chosen = [[int(i) for i in rng.choice(len(items), size)] for size in sizes]
            requests = [
                {name: np.concatenate([items[i][name] for i in those]) for name in items[0]}
                for those in chosen
            ]
            answers = await held.answers(requests)
            bucket = held.sizes[-1]
            assert bucket == next(size for size in FLAT if size >= sum(sizes))
            for those, answer in zip(chosen, answers, strict=True):
                for row, i in enumerate(those):
                    for name, value in answer.items():
                        assert len(value) == len(those)
                        np.testing.assert_array_equal(value[row], expected[i][bucket][name])

    asyncio.run(test())
    assert held.batcher.retire(PATIENCE_S)


@both_formats
def test_batching_never_changes_an_answer(artifact, serve, digits_served):
    rng = np.random.default_rng(1)
    model = serve(digits_served, artifact=artifact)
    check_compositions(model, lambda: {"image": rng.random((1, 28, 28, 1), np.float32)}, rng)


@both_formats
def test_batching_never_changes_an_answer_of_a_pair(artifact, serve, zoo_served):
    rng = np.random.default_rng(2)
    model = serve(zoo_served / "pair.bundle", artifact=artifact)
    assert {spec.name for spec in model.manifest.signature.inputs} == {"moving", "fixed"}

    def item():
        return {name: rng.random((1, 24, 32, 1), np.float32) for name in ("fixed", "moving")}

    check_compositions(model, item, rng)


@both_formats
@pytest.mark.parametrize("size", [(17, 23), (40, 9)], ids=str)
def test_batching_never_changes_an_answer_of_any_size(artifact, size, serve, zoo_served):
    rng = np.random.default_rng(3)
    model = serve(zoo_served / "any-size.bundle", artifact=artifact)
    check_compositions(model, lambda: {"photo": rng.random((1, *size, 3), np.float32)}, rng)


def ask(model, requests):
    """Return answers to requests that arrive together."""

    async def one(inputs, options):
        request = InferRequest(model.name, "", inputs, **options)
        work = model.work(request)
        model.batcher.submit(work)
        return model.answer(request, await asyncio.wait_for(work.future, PATIENCE_S))

    async def all_of_them():
        return await asyncio.gather(*(one(inputs, options) for inputs, options in requests))

    return asyncio.run(all_of_them())


@both_formats
def test_images_of_several_sizes_at_once(artifact, serve, zoo_served):
    rng = np.random.default_rng(4)
    model = serve(zoo_served / "any-size.bundle", artifact=artifact)
    sizes = [(17, 23), (17, 23), (9, 31), (17, 23), (9, 31), (12, 12)]
    photos = [rng.random((1, *size, 3), np.float32) for size in sizes]
    answers = ask(model, [({"photo": it}, {}) for it in photos])
    for photo, answer in zip(photos, answers, strict=True):
        expected = model._warm.sessions[0].run({"photo": photo})["scores"]
        np.testing.assert_allclose(answer.outputs[0].array, expected, atol=1e-6)


@both_formats
def test_a_model_converted_for_batches_of_three_takes_three(artifact, serve, zoo_served):
    """Its signature has no batch: what its first dimension is, nobody said."""
    rng = np.random.default_rng(5)
    model = serve(zoo_served / "threes.bundle", artifact=artifact)
    assert not model.batchable
    assert model.metadata(["1"])["inputs"][0]["shape"] == [3, 28, 28, 1]
    images = [rng.random((3, 28, 28, 1), np.float32) for _ in range(4)]
    answers = ask(model, [({"image": it}, {}) for it in images])
    for image, answer in zip(images, answers, strict=True):
        (expected,) = model._warm.sessions[0].run({"image": image}).values()
        np.testing.assert_array_equal(answer.outputs[0].array, expected)
    for count in (1, 4):
        with pytest.raises(InvalidRequestError, match="batches of exactly 3"):
            ask(model, [({"image": np.zeros((count, 28, 28, 1), np.float32)}, {})])


def test_an_artifact_for_one_batch_size_is_filled_up_to_it(serve, maker, toy, tmp_path):
    path = maker.write(tmp_path / "m.bundle", [toy.onnx(batch=3)], artifact_changes={"batch": 3},
                       cases=(toy.case(3),))  # fmt: skip
    model = serve(path)
    assert list(model.plan.costs_ns) == [3]
    several = [toy.images(count, seed=count) for count in (1, 2, 3, 1, 1)]
    answers = ask(model, [({"image": it}, {}) for it in several])
    for images, answer in zip(several, answers, strict=True):
        truth = toy.run(images)["probabilities"]
        np.testing.assert_allclose(answer.outputs[0].array, truth, atol=1e-6)
    with pytest.raises(InvalidRequestError, match="holds 4 items: expected at most 3"):
        ask(model, [({"image": toy.images(4)}, {})])
    with pytest.raises(InputError, match="runs batches of exactly 3: expected no other max_batch"):
        serve(path, max_batch=4)


def test_answers_stay_as_they_are_while_others_are_computed(serve, digits_served):
    rng = np.random.default_rng(6)
    model = serve(digits_served, max_delay_ms=5)
    earlier = [rng.random((1, 28, 28, 1), np.float32) for _ in range(5)]
    answers = ask(model, [({"image": it}, {}) for it in earlier])
    copies = [answer.outputs[0].array.copy() for answer in answers]
    for _ in range(10):
        ask(model, [({"image": rng.random((1, 28, 28, 1), np.float32)}, {}) for _ in range(5)])
    for answer, copy in zip(answers, copies, strict=True):
        np.testing.assert_array_equal(answer.outputs[0].array, copy)


def image(*shape, dtype=np.float32):
    return {"image": np.zeros(shape or (1, 4, 4, 1), dtype)}


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, "image"),
        ({"picture": image()["image"]}, "picture"),
        ({**image(), "more": image()["image"]}, "more"),
        (image(dtype=np.float64), "float64"),
        (image(dtype=np.uint8), "uint8"),
        (image(4, 4, 1), "image"),
        (image(1, 4, 5, 1), "image"),
        (image(0, 4, 4, 1), "image"),
        ({"image": np.float32(1)}, "image"),
        (image(9, 4, 4, 1), "holds 9 items: expected at most 8"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs, says, serve, bundle_path):
    model = serve(bundle_path)
    with pytest.raises(InvalidRequestError, match=says):
        ask(model, [(inputs, {})])
    # And harm nobody.
    assert ask(model, [(image(), {})])[0].outputs[0].array.shape == (1, 3)


def test_outputs_are_the_ones_asked_for_in_that_order(serve, bundle_path, toy):
    model = serve(bundle_path)
    images = toy.images(2)
    truth = toy.run(images)
    (everything,) = ask(model, [({"image": images}, {"id": "me"})])
    assert [it.name for it in everything.outputs] == ["probabilities", "features"]
    assert (everything.model, everything.version, everything.id) == ("toy", "1", "me")
    wanted = [RequestedOutput("features"), RequestedOutput("probabilities", binary=True)]
    (answer,) = ask(model, [({"image": images}, {"outputs": wanted})])
    assert [(it.name, it.datatype, it.binary) for it in answer.outputs] == [
        ("features", "FP32", False),
        ("probabilities", "FP32", True),
    ]
    for output in answer.outputs:
        np.testing.assert_allclose(output.array, truth[output.name], atol=1e-6)
    with pytest.raises(InvalidRequestError, match="'st/theta': expected one of probabilities, fea"):
        ask(model, [({"image": images}, {"outputs": [RequestedOutput("st/theta")]})])


def test_classes(serve, bundle_path, toy):
    model = serve(bundle_path)
    images = toy.images(2)
    wanted = [RequestedOutput("probabilities", classes=2), RequestedOutput("features", classes=9)]
    (answer,) = ask(model, [({"image": images}, {"outputs": wanted})])
    probabilities, features = answer.outputs
    assert (probabilities.datatype, probabilities.array.shape) == ("BYTES", (2, 2))
    truth = toy.run(images)["probabilities"]
    for row, scores in zip(probabilities.array, truth, strict=True):
        best = np.argsort(-scores)[:2]
        parts = [entry.decode().split(":") for entry in row]
        assert [int(part[1]) for part in parts] == best.tolist()
        assert [part[2] for part in parts] == [("cat", "dog", "owl")[i] for i in best]
        np.testing.assert_allclose([float(part[0]) for part in parts], scores[best], atol=1e-5)
    # There are three, and this output has no labels.
    assert features.array.shape == (2, 3)
    assert all(entry.count(b":") == 1 for row in features.array for entry in row)


def test_what_it_says_of_itself(serve, digits_served):
    model = serve(digits_served, max_delay_ms=2.5)
    assert model.metadata(["1", "3"]) == {
        "name": "digits",
        "versions": ["1", "3"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 28, 28, 1]}],
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}],
    }
    config = model.config()
    assert config["max_batch_size"] == 8
    assert config["input"] == [{"name": "image", "data_type": "TYPE_FP32", "dims": [28, 28, 1]}]
    assert config["dynamic_batching"] == {
        "preferred_batch_size": [1, 2, 4, 8],
        "max_queue_delay_microseconds": 2500,
    }
    assert config["instance_group"] == [{"name": "digits", "kind": "KIND_CPU", "count": 1}]
    line = model.describe()
    for part in ("digits version 1: model.fp32.onnx on cpu with onnxruntime", "batches of 1, 2, 4"):
        assert part in line


def test_a_model_whose_inputs_are_no_batch_runs_one_request_at_a_time(
    serve, maker, onnx_model, tmp_path, toy
):
    """The first dimension of an output is no batch: nothing can be put together or taken apart."""
    from stnkit.runtime.manifest import Signature, TensorSpec

    signature = Signature(
        (TensorSpec("image", "float32", ("batch", 4, 4, 1), "NHWC", (0.0, 1.0)),),
        (
            TensorSpec("probabilities", "float32", ("rows", 3)),
            TensorSpec("features", "float32", ("batch", 3)),
        ),
    )
    path = maker.write(tmp_path / "odd.bundle", [onnx_model], signature=signature)
    model = serve(path)
    assert not model.batchable
    assert model.config()["max_batch_size"] == 0
    assert "dynamic_batching" not in model.config()
    assert "one request at a time" in model.describe()
    several = [toy.images(count, seed=count) for count in (1, 5, 20)]
    answers = ask(model, [({"image": it}, {}) for it in several])
    for images, answer in zip(several, answers, strict=True):
        np.testing.assert_allclose(
            answer.outputs[0].array, toy.run(images)["probabilities"], atol=1e-6
        )
