"""Which device, artifact and backend a session has, why, and what it tells of that."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stnkit.runtime import BackendError, DeviceError, Explanation, InputError, load
from stnkit.runtime import choice as choice_module
from stnkit.runtime.autotune_record import Autotune, BatchTime, TriedForm
from stnkit.runtime.bundle import open_bundle
from stnkit.runtime.choice import choose, problem_on
from stnkit.runtime.devices import CPU, Device
from stnkit.runtime.purposes import PURPOSES, RunSettings, settings_for
from stnkit.runtime.timing.machine import this_machine

GPU = Device("cuda", 0)


def tuned(item_ms, batches=(1, 8), **changes):
    here = this_machine()
    times = tuple(BatchTime(batch, batch * item_ms, 0.0, 9e9) for batch in batches)
    forms = (TriedForm("gather", times), TriedForm("grid-sample", dropped="it differs"))
    values = {"cpu": here.cpu, "architecture": here.architecture, "cores": here.cores}
    values |= {"usable_cores": here.usable_cores, **changes}
    return Autotune(forms, "litert", "1", None, **values)


@pytest.fixture
def cuda(monkeypatch):
    """Make a GPU that can be used, or that lacks something."""

    def make(*problems):
        monkeypatch.setattr(choice_module, "cuda_problems", lambda index: iter(problems))

        def require(device):
            if problems:
                raise DeviceError(device.name, [it[1] for it in problems], ["gpu"])

        monkeypatch.setattr(choice_module, "require_cuda", require)

    return make


class TestOnTheCpu:
    """Order, times and what was asked for."""

    def test_the_first_of_the_manifest(self, both_path):
        found = choose(open_bundle(both_path), "cpu", "auto", None)
        assert (found.artifact.format, found.artifact_reason) == (
            "tflite",
            "the first in the manifest that can run",
        )
        assert (found.device, found.device_reason, found.asked) == (CPU, "asked for", True)
        ((other, backend, reason),) = [vars(it).values() for it in found.rejected]
        assert (other, backend) == ("model.fp32.onnx", "onnxruntime")
        assert reason == "model.fp32.tflite is the first in the manifest that can run"

    @pytest.mark.parametrize(("named", "other"), [("tflite", "onnx"), ("onnx", "tflite")])
    def test_one_that_was_asked_for(self, both_path, named, other):
        found = choose(open_bundle(both_path), "auto", "auto", named)
        assert (found.artifact.format, found.artifact_reason) == (named, "asked for")
        assert [it.reason for it in found.rejected] == ["another artifact was asked for"]
        assert found.rejected[0].artifact == f"model.fp32.{other}"

    def test_a_backend_that_was_asked_for(self, both_path):
        found = choose(open_bundle(both_path), "auto", "onnxruntime", None)
        assert found.artifact_reason == "the only one that can run"
        assert [it.reason for it in found.rejected] == ["onnxruntime was asked for"]

    def write(self, maker, models, folder, records):
        bundle = open_bundle(maker.write(folder, models))
        artifacts = tuple(
            type(it)(**{**vars(it), "autotune": record})
            for it, record in zip(bundle.manifest.artifacts, records, strict=True)
        )
        manifest = type(bundle.manifest)(**{**vars(bundle.manifest), "artifacts": artifacts})
        return type(bundle)(**{**vars(bundle), "manifest": manifest})

    @pytest.mark.parametrize(
        ("records", "format"),
        [
            ((tuned(0.5), tuned(0.25)), "onnx"),
            ((tuned(0.25), tuned(0.5)), "tflite"),
            ((tuned(0.5), None), "tflite"),
            ((None, tuned(0.1)), "tflite"),
            ((tuned(0.5), tuned(0.25, cpu="another")), "tflite"),
            ((tuned(0.5), tuned(0.25, usable_cores=10_000)), "tflite"),
            ((tuned(0.5), tuned(0.25, batches=(1, 4))), "tflite"),
        ],
    )
    def test_times_of_this_machine_count_where_all_have_them(
        self, maker, onnx_model, tflite_model, tmp_path, records, format
    ):
        models = [tflite_model, onnx_model]
        bundle = self.write(maker, models, tmp_path / "b", records)
        found = choose(bundle, "cpu", "auto", None)
        assert found.artifact.format == format
        measured = all(records) and len({it.cpu for it in records}) == 1
        if format == "onnx" and measured:
            assert found.artifact_reason == "the fastest here, 0.25 ms an item"
            assert found.rejected[0].reason == (
                "model.fp32.onnx is the fastest here, 0.25 ms an item"
            )


class TestOnAGpu:
    """What is taken where there is one, and where there is none."""

    def test_auto_takes_it_and_onnx(self, both_path, cuda):
        cuda()
        found = choose(open_bundle(both_path), "auto", "auto", None)
        assert (found.device, found.asked) == (GPU, False)
        assert found.artifact.format == "onnx"
        assert [it.reason for it in found.rejected] == ["LiteRT runs on the CPU alone"]

    def test_auto_without_one(self, both_path, cuda):
        cuda(("gpu", "none is there"), ("libraries", "no cuDNN"))
        found = choose(open_bundle(both_path), "auto", "auto", None)
        assert (found.device, found.artifact.format) == (CPU, "tflite")
        assert found.device_reason == "no GPU can be used: none is there"

    @pytest.mark.parametrize("given", [{"artifact": "tflite"}, {"backend": "litert"}])
    def test_auto_stays_on_the_cpu_for_litert(self, both_path, cuda, given):
        cuda()
        values = {"backend": "auto", "artifact": None, **given}
        found = choose(open_bundle(both_path), "auto", **values)
        assert (found.device, found.artifact.format) == (CPU, "tflite")
        assert "LiteRT runs on the CPU alone" in found.device_reason

    def test_asked_for_and_missing(self, both_path, cuda):
        cuda(("gpu", "none is there"))
        with pytest.raises(DeviceError, match="device cuda:2 cannot be used: none is there"):
            choose(open_bundle(both_path), "cuda:2", "auto", None)

    def test_asked_for_with_what_cannot_run_there(self, both_path, cuda):
        cuda()
        bundle = open_bundle(both_path)
        with pytest.raises(InputError, match="cuda:0 and backend litert do not go together"):
            choose(bundle, "cuda", "litert", None)
        with pytest.raises(InputError, match=r"have model\.fp32\.tflite; convert .* --to onnx"):
            choose(bundle, "cuda", "auto", "tflite")
        assert "LiteRT runs on the CPU" in str(
            problem_on(GPU, choose(bundle, "cpu", "litert", None).backend)
        )

    def test_a_gpu_that_fails_to_open_is_told_and_not_used(self, both_path, cuda, toy):
        # The device checks are made up: what fails here is the real provider, which has no driver.
        cuda()
        with load(both_path) as session:
            assert (session.device, session.artifact.format) == ("cpu", "tflite")
            reason = session.explain().device_reason
            assert reason.startswith("the GPU was tried and failed: ")
            np.testing.assert_allclose(
                session.run({"image": toy.images(1)})["features"],
                toy.run(toy.images(1))["features"],
                atol=2e-6,
            )

    def test_asked_for_and_failing_to_open(self, both_path, cuda, capfd):
        cuda()
        with pytest.raises((DeviceError, BackendError)):
            load(both_path, device="cuda")
        assert capfd.readouterr().out == ""


class TestExplanation:
    """What a session says of itself."""

    def test_every_field(self, both_path):
        with load(both_path, purpose="throughput", threads=2, device="cpu") as session:
            found = session.explain()
        assert isinstance(found, Explanation)
        assert (found.bundle, found.device, found.purpose, found.threads) == (
            "toy",
            "cpu",
            "throughput",
            2,
        )
        assert (found.spinning, found.cuda_graph, found.batch_buckets) == (False, False, ())
        document = json.loads(json.dumps(found.to_json()))
        assert set(document) == set(vars(found))
        assert document["rejected"][0]["artifact"] == "model.fp32.onnx"

    def test_text(self, both_path):
        with load(both_path, artifact="onnx", device="cpu", purpose="latency", threads=1) as it:
            lines = str(it.explain()).splitlines()
        assert lines[0] == "device     cpu: asked for"
        assert lines[1] == "artifact   model.fp32.onnx: asked for"
        assert lines[2].startswith("  not      model.fp32.tflite (litert): another artifact")
        assert lines[3].startswith("backend    onnxruntime 1.")
        assert lines[4].startswith("purpose    latency: 1 thread a run, spinning, as many runs at")


class TestPurposes:
    """Threads and spinning."""

    def test_settings(self, monkeypatch):
        monkeypatch.setattr("stnkit.runtime.purposes.usable_cores", lambda: 6)
        assert settings_for("shared", None) == RunSettings("shared", None, False, 1)
        assert settings_for("shared", 3) == RunSettings("shared", 3, False, 1)
        assert settings_for("latency", None) == RunSettings("latency", 6, True, 1)
        assert settings_for("throughput", None) == RunSettings("throughput", 1, False, 6)
        assert settings_for("throughput", 2) == RunSettings("throughput", 2, False, 6)

    @pytest.mark.parametrize("purpose", ["", "fast", "Shared", None])
    def test_unknown(self, bundle_path, purpose):
        with pytest.raises(InputError, match=r"no purpose .*expected one of shared, latency"):
            load(bundle_path, purpose=purpose)

    @pytest.mark.parametrize("format", ["tflite", "onnx"])
    @pytest.mark.parametrize("purpose", PURPOSES)
    def test_answers_are_the_same(self, both_path, toy, format, purpose):
        image = toy.images(3)
        with load(both_path, artifact=format, purpose=purpose) as session:
            result = session.run({"image": image}, taps=True)
        for name, value in toy.run(image).items():
            np.testing.assert_allclose(result[name], value, rtol=0, atol=2e-6)


class TestWarmUp:
    """The first run, before anybody waits for it."""

    @pytest.mark.parametrize(
        ("given", "batches", "sizes"),
        [
            ({}, None, [1]),
            ({}, (3, 1, 2), [3, 1, 2]),
            ({"batch_buckets": (2, 4)}, None, [2, 4]),
            ({"batch_buckets": (2, 4)}, (1,), [1]),
        ],
    )
    def test_batches(self, bundle_path, given, batches, sizes):
        with load(bundle_path, **given) as session:
            times = session.warmup(batches)
        assert list(times) == sizes
        assert all(0 < value < 10_000 for value in times.values())

    def test_a_fixed_batch(self, maker, toy, tmp_path):
        model, changes = toy.onnx(batch=2), {"batch": 2}
        path = maker.write(tmp_path / "b", [model], artifact_changes=changes, cases=(toy.case(2),))
        with load(path) as session:
            assert list(session.warmup()) == [2]
            with pytest.raises(InputError, match="exactly 2"):
                session.warmup([3])

    @pytest.mark.parametrize("batches", [[0], [-1], [1, 0]])
    def test_no_batch(self, bundle_path, batches):
        with load(bundle_path) as session, pytest.raises(InputError, match="expected at least 1"):
            session.warmup(batches)

    def test_one_that_memory_is_not_for(self, bundle_path):
        with load(bundle_path) as session, pytest.raises(InputError, match="at most 512 MiB"):
            session.warmup([10**8])

    def test_open_sizes_are_those_of_the_probes(self, maker, toy, tmp_path):
        from stnkit.runtime.golden import GoldenCase
        from stnkit.runtime.manifest import Signature, TensorSpec
        from stnkit.runtime.warm_up import open_sizes, zero_inputs

        signature = Signature(
            (
                TensorSpec("image", "float32", ("batch", "height", "width", 3)),
                TensorSpec("kind", "int32", ("batch",)),
            ),
            (TensorSpec("y", "float32", ("batch",)),),
        )
        images = np.zeros((2, 5, 7, 3), np.float32)
        case = GoldenCase("c", {"image": images, "kind": np.zeros(2, np.int32)}, {}, {})
        sizes = open_sizes(signature, [case])
        assert sizes == {"height": 5, "width": 7}
        found = zero_inputs(signature, 4, sizes)
        assert (found["image"].shape, found["kind"].shape) == ((4, 5, 7, 3), (4,))
        assert (found["image"].dtype, found["kind"].dtype) == (np.float32, np.int32)
        assert not found["image"].any()
