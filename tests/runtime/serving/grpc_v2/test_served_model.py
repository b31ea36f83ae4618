"""A real model behind the server, asked by the real client and load generator."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from stnkit.runtime import load
from stnkit.runtime.serving import BundleSource

triton = pytest.importorskip("tritonclient.grpc")
triton_errors = pytest.importorskip("tritonclient.utils")

TOKEN = "open sesame"


@pytest.fixture
def address(core_served, digits_served, serve_grpc):
    return serve_grpc(core_served(BundleSource(digits_served, "digits"), token=TOKEN))


@pytest.fixture
def client(address):
    with triton.InferenceServerClient(address) as opened:
        yield opened


def images(count):
    return np.random.default_rng(count).random((count, 28, 28, 1)).astype(np.float32)


def tensor(array):
    found = triton.InferInput("image", list(array.shape), "FP32")
    found.set_data_from_numpy(array)
    return found


def test_answers_are_those_of_a_session(client, digits_served):
    with load(digits_served, artifact="onnx") as session:
        for count in (1, 3):
            expected = session.run({"image": images(count)})["probabilities"]
            found = client.infer("digits", [tensor(images(count))]).as_numpy("probabilities")
            np.testing.assert_allclose(found, expected, atol=1e-6)


def test_many_clients_get_their_own_answers(client, digits_served):
    with load(digits_served, artifact="onnx") as session:
        expected = [session.run({"image": images(it)})["probabilities"] for it in range(1, 5)]

    def ask(index):
        count = index % 4 + 1
        result = client.infer("digits", [tensor(images(count))], request_id=str(index))
        assert result.get_response().id == str(index)
        np.testing.assert_allclose(result.as_numpy("probabilities"), expected[count - 1], atol=1e-5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(200)))
    statistics = client.get_inference_statistics("digits").model_stats[0]
    assert statistics.inference_stats.success.count >= 200
    assert statistics.inference_count >= 500


def test_what_the_model_says_of_itself(client):
    metadata = client.get_model_metadata("digits")
    assert [tuple(it.shape) for it in metadata.inputs] == [(-1, 28, 28, 1)]
    config = client.get_model_config("digits").config
    assert config.max_batch_size >= 1
    assert [list(it.dims) for it in config.input] == [[28, 28, 1]]


def test_classes(client):
    asked = [triton.InferRequestedOutput("probabilities", class_count=2)]
    (row,) = client.infer("digits", [tensor(images(1))], outputs=asked).as_numpy("probabilities")
    scores = [float(text.decode().split(":")[0]) for text in row]
    assert len(row) == 2
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    ("model", "array", "code"),
    [
        ("nothing", images(1), "NOT_FOUND"),
        ("digits", images(1)[:, :27], "INVALID_ARGUMENT"),
        ("digits", images(1)[0], "INVALID_ARGUMENT"),
        ("../digits", images(1), "NOT_FOUND"),
    ],
)
def test_what_does_not_fit_the_model(client, model, array, code):
    with pytest.raises(triton_errors.InferenceServerException) as caught:
        client.infer(model, [tensor(array)])
    assert caught.value.status() == f"StatusCode.{code}"
    assert caught.value.message()


def test_models_are_unloaded_and_loaded(client):
    headers = {"authorization": f"Bearer {TOKEN}"}
    client.unload_model("digits", headers=headers)
    with pytest.raises(triton_errors.InferenceServerException) as caught:
        client.infer("digits", [tensor(images(1))])
    assert caught.value.status() in ("StatusCode.UNAVAILABLE", "StatusCode.NOT_FOUND")
    index = client.get_model_repository_index(headers=headers).models
    assert [model.state for model in index] == ["UNAVAILABLE"]
    client.load_model("digits", headers=headers)
    assert client.infer("digits", [tensor(images(1))]).as_numpy("probabilities").shape == (1, 10)


def test_perf_analyzer(address):
    program = shutil.which("perf_analyzer")
    if program is None or subprocess.run([program, "--version"], check=False).returncode:
        pytest.skip("perf_analyzer is not installed, or its libraries are not")
    for options in ([], ["--streaming", "--async"]):
        command = [program, "-m", "digits", "-i", "grpc", "-u", address, *options]
        command += ["--measurement-mode", "count_windows", "--measurement-request-count", "100"]
        command += ["-s", "999", "--max-trials", "3", "--concurrency-range", "4"]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "Throughput:" in result.stdout
