"""Sessions on a GPU, without one: ONNX Runtime's CPU provider stands in for the CUDA provider.

Made up is that CUDA is there, and what it refuses: sessions, buffers, bindings and answers are
those of ONNX Runtime. Only a GPU can show its numbers, and that a graph can be captured.
"""

from __future__ import annotations

import threading

import numpy as np
import onnxruntime as ort
import pytest

from stnkit.runtime import BackendError, DeviceError, choice, devices, load, time_bundle, verify
from stnkit.runtime.backends import CudaSettings, cuda, open_runner
from stnkit.runtime.backends.cuda_options import cuda_options
from stnkit.runtime.golden import GoldenCase
from stnkit.runtime.manifest import Signature, TensorSpec

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
STRICT = "session.disable_cpu_ep_fallback"


class Stand:
    """A session on the CPU that says it is on a GPU, and records its runs."""

    def __init__(self, session, gpu, providers, strict):
        self.session, self.gpu, self.providers, self.strict = session, gpu, providers, strict

    def get_providers(self):
        return self.providers

    def run_with_iobinding(self, binding):
        self.gpu.runs.append((self, threading.current_thread().name))
        if self.gpu.fails_to_capture and self.graph:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.session.run_with_iobinding(binding)

    @property
    def graph(self):
        return self.gpu.options[id(self)]["enable_cuda_graph"] == "1"

    def get_provider_graph_assignment_info(self):
        return self.gpu.assignment

    def __getattr__(self, name):
        return getattr(self.session, name)


class Part:
    """A part of a graph on one provider."""

    def __init__(self, provider, *ops):
        self.ep_name, self.ops = provider, ops

    def get_nodes(self):
        return [type("Node", (), {"op_type": op}) for op in self.ops]


class Gpu:
    """What the GPU does and what was asked of it."""

    def __init__(self):
        self.sessions, self.runs, self.options = [], [], {}
        self.starts, self.fails_to_capture = True, False
        self.refuses: tuple[str, ...] = ("open",)  # the shapes inside are computed by the CPU
        self.assignment = [Part(CUDA, "Conv", "Gemm"), Part(CPU, "Shape", "Gather"), Part(CPU)]

    def create(self, model, options, providers):
        ((name, provider_options),) = providers
        assert name == CUDA
        strict = entry(options, STRICT) == "1"
        ort.set_default_logger_severity(4)  # it warns of entries that change
        options.add_session_config_entry(STRICT, "0")  # which the CPU provider contradicts
        session = ort.InferenceSession(model, options, providers=[CPU])
        fixed = all(isinstance(size, int) for size in session.get_inputs()[0].shape)
        if strict and (not self.starts or ("fixed" if fixed else "open") in self.refuses):
            raise RuntimeError("nodes are assigned to the default CPU EP")
        stand = Stand(session, self, [CUDA, CPU] if self.starts else [CPU], strict)
        self.options[id(stand)] = provider_options
        self.sessions.append(stand)
        return stand


def entry(options, key):
    try:
        return options.get_session_config_entry(key)
    except RuntimeError:
        return ""


@pytest.fixture
def gpu(monkeypatch):
    found = Gpu()
    monkeypatch.setattr(cuda, "create_session", found.create)
    monkeypatch.setattr(
        cuda, "_on_device", lambda array, index: ort.OrtValue.ortvalue_from_numpy(array)
    )
    # Where there is no GPU between them, an array lies in the memory of a value.
    monkeypatch.setattr(cuda, "_on_host", lambda value: value.numpy().copy())
    monkeypatch.setattr(choice, "cuda_problems", lambda index: iter(()))
    monkeypatch.setattr(choice, "require_cuda", lambda device: None)
    monkeypatch.setattr(devices, "require_cuda", lambda device: None)
    return found


def check(session, toy, count, taps=False, **more):
    image = toy.images(count, seed=count)
    result, truth = session.run({"image": image}, taps=taps, **more), toy.run(image)
    assert set(result) == {name for name in truth if taps or not name.startswith("st/")}
    for name, value in result.items():
        np.testing.assert_allclose(value, truth[name], rtol=0, atol=2e-6)
    return result


class TestGraphs:
    """Every node on the GPU, once all sizes are fixed."""

    def test_a_session_for_each_bucket_all_on_one_thread(self, both_path, toy, gpu):
        with load(both_path, device="cuda:1") as session:
            assert (session.device, session.backend) == ("cuda:1", "onnxruntime")
            assert session.batch_buckets == (1, 2, 4, 8, 16, 32)
            assert len(gpu.sessions) == 1  # the smallest, to find out whether it can be
            for count in (1, 3, 3, 4, 40, 2):
                check(session, toy, count)
            # 3 and 4 run as 4; 40 as 32 and 8; each was captured once.
            assert len(gpu.sessions) == 5
            assert all(stand.strict for stand in gpu.sessions)
            found = session.explain()
            assert (found.cuda_graph, found.parallel_runs, found.notes) == (True, 1, ())
            assert "CUDA graph yes" in str(found)
        for options in gpu.options.values():
            assert options == {"device_id": "1", "use_tf32": "0", "enable_cuda_graph": "1"}
        (thread,) = {thread for _, thread in gpu.runs}
        assert thread.startswith("stnkit-cuda")

    def test_warm_up_captures_all_of_them(self, bundle_path, toy, gpu):
        with load(bundle_path, device="cuda", batch_buckets=(2, 4)) as session:
            assert list(session.warmup()) == [2, 4]
            opened = len(gpu.sessions)
            for count in (1, 2, 3, 4, 9):
                check(session, toy, count)
            assert len(gpu.sessions) == opened == 2

    def test_taps_and_arrays_to_write_to(self, bundle_path, toy, gpu):
        out = {"features": np.empty((3, 3), np.float32), "st/theta": np.empty((3, 6), np.float32)}
        with load(bundle_path, device="cuda", batch_buckets=(3,)) as session:
            result = check(session, toy, 3, taps=True, out=out)
            assert result["features"] is out["features"]
            assert result["st/theta"] is out["st/theta"]
            one = {"features": np.empty((1, 3), np.float32)}
            assert check(session, toy, 1, out=one)["features"] is one["features"]

    def test_results_stay_as_they_are(self, bundle_path, toy, gpu):
        with load(bundle_path, device="cuda") as session:
            first = check(session, toy, 2)
            kept = {name: value.copy() for name, value in first.items()}
            session.run({"image": toy.images(2, seed=77)})
        for name, value in first.items():
            np.testing.assert_array_equal(value, kept[name])

    def test_inputs_that_are_not_contiguous(self, bundle_path, toy, gpu):
        image = np.asfortranarray(toy.images(4))[::-1]
        with load(bundle_path, device="cuda") as session:
            found = session.run({"image": image})["features"]
        np.testing.assert_allclose(found, toy.run(image)["features"], rtol=0, atol=2e-6)

    def test_eight_threads(self, bundle_path, toy, gpu):
        wrong: list[object] = []
        with load(bundle_path, device="cuda") as session:

            def work(count):
                try:
                    for _ in range(20):
                        check(session, toy, count)
                except BaseException as exc:
                    wrong.append(exc)

            threads = [threading.Thread(target=work, args=(1 + at,)) for at in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert wrong == []
        assert len({thread for _, thread in gpu.runs}) == 1

    def test_an_artifact_for_one_batch_size(self, maker, toy, tmp_path, gpu):
        model, changes = toy.onnx(batch=2), {"batch": 2}
        path = maker.write(tmp_path / "b", [model], artifact_changes=changes, cases=(toy.case(2),))
        with load(path, device="cuda") as session:
            assert session.batch_buckets == ()
            check(session, toy, 2)
            found = session.explain()
        assert found.cuda_graph
        assert found.notes == ("no batch buckets: the artifact takes batches of 2 alone",)

    def test_an_input_without_rows_stands_first(self, tmp_path, maker, gpu):
        from onnx import TensorProto, helper

        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            [helper.make_node("Mul", ["x", "scale"], ["y"])],
            "scaled",
            [info("scale", TensorProto.FLOAT, []), info("x", TensorProto.FLOAT, ["batch", 2])],
            [info("y", TensorProto.FLOAT, ["batch", 2])],
        )
        opsets = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
        signature = Signature(
            (TensorSpec("scale", "float32", ()), TensorSpec("x", "float32", ("batch", 2))),
            (TensorSpec("y", "float32", ("batch", 2)),),
        )
        inputs = {"scale": np.array(3, np.float32), "x": np.ones((3, 2), np.float32)}
        names = {"inputs": {"scale": "scale", "x": "x"}, "outputs": {"y": "y"}, "taps": {}}
        path = maker.write(
            tmp_path / "b",
            [model],
            cases=(GoldenCase("one", inputs, {"y": 3 * inputs["x"]}, {}),),
            artifact_changes=names,
            signature=signature,
            taps=(),
            classes=None,
            preprocessing=None,
        )
        with load(path, device="cuda") as session:
            assert session.explain().cuda_graph
            np.testing.assert_array_equal(session.run(inputs)["y"], np.full((3, 2), 3))
        assert verify(path, device="cuda").passed

    def test_use_after_close(self, bundle_path, toy, gpu, maker):
        model = maker.toy.onnx()
        settings = CudaSettings(0, cuda_options(None), (1,), "image")
        runner = open_runner("onnxruntime", model, maker.artifact(model), cuda=settings)
        runner.close()
        runner.close()
        with pytest.raises(BackendError, match="closed: open the model again"):
            runner.run({"image": toy.images(1)})


class TestWithoutGraphs:
    """What is tried where they cannot be, and what is said of it."""

    def test_some_nodes_on_the_cpu(self, bundle_path, toy, gpu):
        gpu.refuses = ("fixed", "open")
        with load(bundle_path, device="cuda") as session:
            check(session, toy, 3)
            check(session, toy, 2, taps=True)
            found = session.explain()
        assert (found.device, found.cuda_graph, found.parallel_runs) == ("cuda:0", False, None)
        assert found.notes == (
            "no CUDA graph: nodes are assigned to the default CPU EP",
            "2 of 4 nodes are on the CPU: Gather, Shape",
        )
        assert "CUDA graph no" in str(found)
        assert not gpu.sessions[-1].strict
        assert gpu.options[id(gpu.sessions[-1])]["enable_cuda_graph"] == "0"

    def test_all_nodes_on_the_gpu_and_no_graph_wanted(self, bundle_path, toy, gpu):
        gpu.refuses = ()
        options = {"enable_cuda_graph": False, "gpu_mem_limit": 2**30}
        with load(bundle_path, device="cuda", provider_options=options) as session:
            check(session, toy, 3)
            assert session.explain().notes == ()
        assert [stand.strict for stand in gpu.sessions] == [True]
        assert gpu.options[id(gpu.sessions[0])]["gpu_mem_limit"] == str(2**30)

    def test_a_graph_that_cannot_be_captured(self, bundle_path, toy, gpu):
        gpu.fails_to_capture = True
        with load(bundle_path, device="cuda") as session:
            check(session, toy, 3)
            (note, _) = session.explain().notes
        assert note == "no CUDA graph: operation not permitted when stream is capturing"

    def test_sizes_that_stay_open(self, maker, toy, gpu):
        model = toy.onnx(batch="rows")  # a name that is not the batch's: nothing fixes it
        settings = CudaSettings(0, cuda_options(None), (1, 2), "image")
        gpu.refuses = ()
        runner = open_runner("onnxruntime", model, maker.artifact(model), cuda=settings)
        assert not runner.facts.cuda_graph
        (note,) = runner.facts.notes
        assert note == "no CUDA graph: the sizes of \"image_in\" are not fixed: ['rows', 4, 4, 1]"
        image = toy.images(2)
        np.testing.assert_allclose(
            runner.run({"image": image})["features"], toy.run(image)["features"], atol=2e-6
        )

    def test_no_node_on_the_gpu_is_an_error(self, bundle_path, gpu):
        gpu.refuses, gpu.assignment = ("fixed", "open"), [Part(CPU, "Conv")]
        with pytest.raises(BackendError, match="can run no node of the model on the GPU"):
            load(bundle_path, device="cuda")

    def test_a_provider_that_does_not_start(self, both_path, gpu):
        gpu.starts = False
        with pytest.raises(
            DeviceError, match=r"cuda:0 cannot be used: the CUDA provider"
        ) as caught:
            load(both_path, device="cuda")
        assert caught.value.missing == ("provider",)
        with load(both_path) as session:  # auto
            found = session.explain()
        assert (found.device, found.artifact) == ("cpu", "model.fp32.tflite")
        assert "does not start" in found.device_reason


def test_the_proof_runs_as_sessions_do(both_path, gpu):
    report = verify(both_path, device="cuda")
    tflite, onnx = report.artifacts
    assert tflite.not_run == "LiteRT runs on the CPU alone: a GPU runs ONNX files"
    assert (onnx.passed, onnx.device, report.passed) == (True, "cuda:0", True)
    assert onnx.to_json()["device"] == "cuda:0"
    # Probes of 1 and 3 images, with and without taps: a graph of 1 and one of 4 each.
    assert [stand.session.get_inputs()[0].shape[0] for stand in gpu.sessions] == [1, 4, 1, 4]
    assert all(options["use_tf32"] == "0" for options in gpu.options.values())


def test_the_proof_fails_where_the_gpu_computes_otherwise(maker, toy, tmp_path, gpu):
    path = maker.write(tmp_path / "b", [toy.onnx(warp_error=0.5)])
    report = verify(path, device="cuda:0")
    assert not report.passed
    assert {item.kind for item in report.artifacts[0].failures} == {"warped"}


def test_timing(both_path, gpu):
    report = time_bundle(both_path, device="cuda:1", batches=(1,), rounds=1)
    assert report.device == "cuda:1"
    tflite, onnx = report.artifacts
    assert "LiteRT runs on the CPU alone" in tflite.not_run
    assert onnx.not_run is None
    assert {options["device_id"] for options in gpu.options.values()} == {"1"}


def test_a_provider_that_does_not_start_here(maker, onnx_model):
    """The real one, on a machine without a driver or its libraries."""
    if not list(devices.cuda_problems(0)):
        pytest.skip("CUDA can be used here")
    settings = CudaSettings(0, cuda_options(None), (1,), "image")
    with pytest.raises(DeviceError, match="CUDA provider of onnxruntime"):
        open_runner("onnxruntime", onnx_model, maker.artifact(onnx_model), cuda=settings)


@pytest.mark.skipif(bool(list(devices.cuda_problems(0))), reason="CUDA cannot be used here")
class TestOnARealGpu:
    """Where there is one."""

    @pytest.mark.parametrize("graph", [True, False])
    def test_answers(self, bundle_path, toy, graph):
        options = {"enable_cuda_graph": graph}
        with load(bundle_path, device="cuda", provider_options=options) as session:
            assert session.explain().cuda_graph is graph
            for count in (1, 3, 4, 40):
                check(session, toy, count, taps=count == 3)

    def test_proof(self, bundle_path):
        assert verify(bundle_path, device="cuda").passed
