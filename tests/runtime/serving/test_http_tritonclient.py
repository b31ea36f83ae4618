"""Triton's own Python client, unmodified, against the server."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import tritonclient.http as client_of
import tritonclient.http.aio as aio
from tritonclient.utils import InferenceServerException

TOKEN = "a token of the tests"


@pytest.fixture(scope="module")
def served(http_process, toy_served):
    """A server with odd names, and two versions of one of them."""
    bundles = [toy_served, f"a.b-C_9={toy_served}", f"two@3={toy_served}", f"two@7={toy_served}"]
    return http_process(*bundles, token=TOKEN)


@pytest.fixture
def client(served):
    with client_of.InferenceServerClient(f"127.0.0.1:{served.port}", concurrency=4) as found:
        yield found


def image_input(image, binary=True):
    found = client_of.InferInput("image", list(image.shape), "FP32")
    found.set_data_from_numpy(image, binary_data=binary)
    return found


def assert_truth(result, truth):
    for name in ("probabilities", "features"):
        value = result.as_numpy(name)
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, truth[name], atol=1e-6)


def test_health(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("toy")
    assert client.is_model_ready("two", "3")
    assert not client.is_model_ready("two", "4")
    assert not client.is_model_ready("nobody")
    assert not client.is_model_ready("ñ/ö ?%00#")


def test_metadata_and_configuration(client):
    server = client.get_server_metadata()
    assert server["name"] == "stnkit"
    assert "binary_tensor_data" in server["extensions"]
    assert client.get_model_metadata("two")["versions"] == ["3", "7"]
    assert client.get_model_metadata("toy") == {
        "name": "toy",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 4, 4, 1]}],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "features", "datatype": "FP32", "shape": [-1, 3]},
        ],
    }
    config = client.get_model_config("a.b-C_9", "1")
    assert config["name"] == "a.b-C_9"
    assert config["max_batch_size"] == 8
    assert config["input"] == [{"name": "image", "data_type": "TYPE_FP32", "dims": [4, 4, 1]}]
    assert [it["dims"] for it in config["output"]] == [[3], [3]]


@pytest.mark.parametrize("out_binary", [None, False, True])
@pytest.mark.parametrize("in_binary", [False, True])
def test_tensors_as_json_and_as_bytes(client, toy, in_binary, out_binary):
    image = toy.images(3)
    outputs = None
    if out_binary is not None:
        outputs = [
            client_of.InferRequestedOutput(name, binary_data=out_binary)
            for name in ("features", "probabilities")
        ]
    inputs = [image_input(image, in_binary)]
    result = client.infer("toy", inputs, outputs=outputs, request_id="a ñ ' \" id")
    assert_truth(result, toy.run(image))
    answer = result.get_response()
    assert (answer["model_name"], answer["model_version"]) == ("toy", "1")
    assert answer["id"] == "a ñ ' \" id"
    names = [it["name"] for it in answer["outputs"]]
    assert names == [it.name() for it in outputs] if outputs else ["probabilities", "features"]
    # Without outputs asked for, the client itself asks for all of them as bytes.
    in_json = ["data" in it for it in answer["outputs"]]
    assert in_json == [out_binary is False] * 2


def test_one_output_as_json_and_one_as_bytes(client, toy):
    image = toy.images(2)
    outputs = [
        client_of.InferRequestedOutput("features", binary_data=True),
        client_of.InferRequestedOutput("probabilities", binary_data=False),
    ]
    assert_truth(client.infer("toy", [image_input(image)], outputs=outputs), toy.run(image))


def test_only_what_was_asked_for(client, toy):
    outputs = [client_of.InferRequestedOutput("features")]
    result = client.infer("toy", [image_input(toy.images(1))], outputs=outputs)
    assert result.as_numpy("probabilities") is None
    assert result.as_numpy("features").shape == (1, 3)


@pytest.mark.parametrize("binary", [False, True])
def test_classes(client, toy, binary):
    image = toy.images(2)
    outputs = [
        client_of.InferRequestedOutput("probabilities", binary_data=binary, class_count=2),
        client_of.InferRequestedOutput("features", binary_data=binary, class_count=1),
    ]
    result = client.infer("toy", [image_input(image)], outputs=outputs)
    truth = toy.run(image)
    labelled, plain = result.as_numpy("probabilities"), result.as_numpy("features")
    assert labelled.shape == (2, 2)
    assert plain.shape == (2, 1)
    for row in range(2):
        order = np.argsort(-truth["probabilities"][row])
        for place in range(2):
            text = labelled[row, place]
            score, index, label = (text.decode() if binary else text).split(":")
            assert int(index) == order[place]
            assert float(score) == pytest.approx(
                truth["probabilities"][row, order[place]], abs=1e-5
            )
            assert label == ("cat", "dog", "owl")[order[place]]
        text = plain[row, 0]  # no labels belong to this output
        score, index = (text.decode() if binary else text).split(":")
        assert int(index) == np.argmax(truth["features"][row])


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression(client, toy, algorithm):
    image = toy.images(8)
    for binary in (False, True):
        result = client.infer(
            "toy",
            [image_input(image, binary)],
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
        assert_truth(result, toy.run(image))


def test_versions(client, toy):
    image = toy.images(1)
    for asked, answers in (("3", "3"), ("7", "7"), ("", "7")):
        result = client.infer("two", [image_input(image)], model_version=asked)
        assert result.get_response()["model_version"] == answers
        assert_truth(result, toy.run(image))


def test_many_at_once(client, toy):
    image = toy.images(40).reshape(40, 1, 4, 4, 1)
    waiting = [
        client.async_infer("toy", [image_input(it)], request_id=str(i))
        for i, it in enumerate(image)
    ]
    for i, request in enumerate(waiting):
        result = request.get_result()
        assert result.get_response()["id"] == str(i)
        assert_truth(result, toy.run(image[i]))


def test_statistics(client, toy):
    def stats():
        return client.get_inference_statistics("two", "3")["model_stats"][0]

    before = stats()
    for _ in range(3):
        client.infer("two", [image_input(toy.images(2))], model_version="3")
    with pytest.raises(InferenceServerException):
        client.infer("two", [image_input(np.zeros((1, 9, 9, 1), np.float32))], model_version="3")
    after = stats()
    assert after["inference_count"] - before["inference_count"] == 6
    assert after["execution_count"] - before["execution_count"] == 3
    done, failed = after["inference_stats"]["success"], after["inference_stats"]["fail"]
    assert done["count"] - before["inference_stats"]["success"]["count"] == 3
    assert done["ns"] > 0
    assert failed["count"] - before["inference_stats"]["fail"]["count"] == 1
    batches = {it["batch_size"]: it["compute_infer"] for it in after["batch_stats"]}
    assert batches[2]["count"] >= 3
    assert batches[2]["ns"] > 0
    every = client.get_inference_statistics()["model_stats"]
    assert [(it["name"], it["version"]) for it in every] == [
        ("toy", "1"),
        ("a.b-C_9", "1"),
        ("two", "3"),
        ("two", "7"),
    ]
    assert len(client.get_inference_statistics("two")["model_stats"]) == 2


def test_parameters_queries_and_headers(client, toy):
    image = toy.images(1)
    result = client.infer(
        "toy",
        [image_input(image)],
        timeout=5_000_000,
        priority=1,
        sequence_id=7,
        sequence_start=True,
        query_params={"a": [1, 2], "b ö": "x&y"},
        headers={"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
        parameters={"mine": "x"},
    )
    assert_truth(result, toy.run(image))
    assert client.is_server_ready(query_params={"x": "1"})


def test_a_result_can_be_parsed_from_its_bytes(client, toy):
    body, length = client_of.InferenceServerClient.generate_request_body(
        [image_input(toy.images(1))]
    )
    response = client._post(
        "v2/models/toy/infer", body, {"Inference-Header-Content-Length": length}, None
    )
    header = response.get("Inference-Header-Content-Length")
    result = client_of.InferenceServerClient.parse_response_body(
        response.read(), header_length=int(header)
    )
    assert_truth(result, toy.run(toy.images(1)))


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"model_name": "nobody"}, "404", "there is no model 'nobody'"),
        ({"model_name": "ñ"}, "404", "there is no model 'ñ'"),
        ({"model_version": "9"}, "404", "has no version '9'"),
        ({"shape": [1, 4, 5, 1]}, "400", "[1, 4, 5, 1]"),
        ({"shape": [9, 4, 4, 1]}, "400", "9 items"),
        ({"datatype": "FP64"}, "400", "float64"),
        ({"name": "picture"}, "400", "picture"),
        ({"output": "nothing"}, "400", "nothing"),
        ({"timeout": -5}, "400", "timeout is -5"),
        ({"id": "x" * 257}, "413", "257 characters"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_errors_say_what_was_wrong(client, change, status, says):
    datatype = change.get("datatype", "FP32")
    shape = change.get("shape", [1, 4, 4, 1])
    tensor = client_of.InferInput(change.get("name", "image"), shape, datatype)
    tensor.set_data_from_numpy(np.zeros(shape, {"FP32": "f4", "FP64": "f8"}[datatype]))
    output = client_of.InferRequestedOutput(change.get("output", "features"))
    with pytest.raises(InferenceServerException) as caught:
        client.infer(
            change.get("model_name", "toy"),
            [tensor],
            model_version=change.get("model_version", ""),
            outputs=[output],
            timeout=change.get("timeout"),
            request_id=change.get("id", ""),
        )
    assert caught.value.status() == status
    assert says in caught.value.message()


def test_strings_are_refused(client):
    tensor = client_of.InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([b"x"], object))
    with pytest.raises(InferenceServerException, match="BYTES"):
        client.infer("toy", [tensor])


def test_shared_memory_is_refused(client):
    tensor = client_of.InferInput("image", [1, 4, 4, 1], "FP32")
    tensor.set_shared_memory("region", 64)
    with pytest.raises(InferenceServerException, match="shared memory"):
        client.infer("toy", [tensor])


def test_managing_models(client, toy):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    for ask in (
        client.get_model_repository_index,
        lambda: client.unload_model("toy"),
        lambda: client.load_model("toy", headers={"Authorization": "Bearer wrong"}),
    ):
        with pytest.raises(InferenceServerException) as caught:
            ask()
        assert caught.value.status() == "401"

    index = client.get_model_repository_index(headers=headers)
    assert {(it["name"], it["version"]): it["state"] for it in index} == {
        ("toy", "1"): "READY",
        ("a.b-C_9", "1"): "READY",
        ("two", "3"): "READY",
        ("two", "7"): "READY",
    }
    client.unload_model("toy", headers=headers)
    assert not client.is_model_ready("toy")
    assert client.is_model_ready("two")
    with pytest.raises(InferenceServerException) as caught:
        client.infer("toy", [image_input(toy.images(1))])
    assert caught.value.status() == "503"
    index = client.get_model_repository_index(headers=headers)
    assert [it["state"] for it in index if it["name"] == "toy"] == ["UNAVAILABLE"]
    client.load_model("toy", headers=headers)
    assert client.is_model_ready("toy")
    assert_truth(client.infer("toy", [image_input(toy.images(1))]), toy.run(toy.images(1)))

    with pytest.raises(InferenceServerException) as caught:
        client.load_model("nobody", headers=headers)
    assert caught.value.status() == "404"
    # What is served is the operator's choice, not a client's.
    with pytest.raises(InferenceServerException) as caught:
        client.load_model("toy", headers=headers, config='{"backend": "python"}')
    assert caught.value.status() == "415"
    with pytest.raises(InferenceServerException) as caught:
        client.load_model("toy", headers=headers, config="{}", files={"file:1/model.onnx": b"x"})
    assert caught.value.status() == "415"


def test_the_asynchronous_client(served, toy):
    async def ask():
        async with aio.InferenceServerClient(f"127.0.0.1:{served.port}", conn_limit=5) as client:
            assert await client.is_server_ready()
            image = toy.images(20).reshape(20, 1, 4, 4, 1)

            def tensor(value):
                found = aio.InferInput("image", [1, 4, 4, 1], "FP32")
                found.set_data_from_numpy(value)
                return found

            results = await asyncio.gather(*(client.infer("toy", [tensor(it)]) for it in image))
            for value, result in zip(image, results, strict=True):
                assert_truth(result, toy.run(value))
            with pytest.raises(InferenceServerException, match="nobody"):
                await client.infer("nobody", [tensor(image[0])])

    asyncio.run(ask())
