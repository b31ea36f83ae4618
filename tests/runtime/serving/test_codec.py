"""Requests from bytes and answers to bytes, as the protocol's text has them."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from stnkit.runtime.serving.errors import InvalidRequestError, TooLargeError
from stnkit.runtime.serving.http.codec import decode_request, encode_response, parse_object
from stnkit.runtime.serving.inference import InferResponse, OutputTensor, RequestedOutput
from stnkit.runtime.serving.limits import Limits

LIMITS = Limits()
TENSOR = {"name": "x", "datatype": "INT16", "shape": [2, 2]}


def decode(fields, tail=b"", length=None, limits=LIMITS):
    text = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    if tail and length is None:
        length = str(len(text)).encode()
    return decode_request("m", "3", text + tail, length, limits)


def tensor(**changes):
    return {**TENSOR, "data": [1, 2, 3, 4], **changes}


def test_the_example_of_the_protocol():
    """Source: Open Inference Protocol, "Inference Request Examples"."""
    request = decode(
        {
            "id": "42",
            "inputs": [
                {"name": "input0", "shape": [2, 2], "datatype": "UINT32", "data": [1, 2, 3, 4]},
                {"name": "input1", "shape": [3], "datatype": "BOOL", "data": [True, False, True]},
            ],
            "outputs": [{"name": "output0"}],
        }
    )
    assert (request.model, request.version, request.id) == ("m", "3", "42")
    np.testing.assert_array_equal(
        request.inputs["input0"], np.uint32([[1, 2], [3, 4]]), strict=True
    )
    np.testing.assert_array_equal(request.inputs["input1"], [True, False, True], strict=True)
    assert request.outputs == [RequestedOutput("output0")]
    assert request.timeout_ms is None
    assert not request.binary


def test_bytes_behind_the_json():
    """Source: the extension "binary tensor data"; JSON and binary inputs in one request."""
    request = decode(
        {
            "inputs": [
                {**TENSOR, "parameters": {"binary_data_size": 8}},
                tensor(name="y"),
                {**TENSOR, "name": "z", "shape": [1], "parameters": {"binary_data_size": 2}},
            ],
            "outputs": [
                {"name": "a", "parameters": {"binary_data": True}},
                {"name": "b", "parameters": {"binary_data": False, "classification": 3}},
                {"name": "c"},
            ],
            "parameters": {"binary_data_output": True, "timeout": 2500, "of": "somebody else"},
        },
        struct.pack("<5h", 1, -2, 3, -4, 500),
    )
    assert request.inputs["x"].tolist() == [[1, -2], [3, -4]]
    assert request.inputs["y"].tolist() == [[1, 2], [3, 4]]
    assert request.inputs["z"].tolist() == [500]
    assert request.outputs == [
        RequestedOutput("a", 0, True),
        RequestedOutput("b", 3, False),
        RequestedOutput("c", 0, True),
    ]
    assert request.timeout_ms == 2.5
    assert request.binary


def test_what_may_be_left_out():
    for fields in (
        {"inputs": [tensor()]},
        {"inputs": [tensor(parameters=None)], "outputs": None, "parameters": None},
        {"inputs": [tensor(parameters={})], "outputs": [], "parameters": {"timeout": 0}, "id": ""},
    ):
        request = decode(fields)
        assert request.inputs["x"].shape == (2, 2)
        assert (request.outputs, request.id, request.timeout_ms) == ([], "", None)
    # A length that says that all is JSON.
    text = json.dumps({"inputs": [tensor()]}).encode()
    assert list(decode(text, length=str(len(text)).encode()).inputs) == ["x"]


WRONG = {
    "no JSON": (b"{", "cannot be read"),
    "nothing": (b"", "cannot be read"),
    "not UTF-8": (b'{"id":"\xff"}', "cannot be read"),
    "half a surrogate pair": (b'{"id":"\\ud800"}', "cannot be read"),
    "NaN": (b'{"inputs":[NaN]}', "cannot be read"),
    "a list": (b"[]", "not an object"),
    "too deep": (b"[" * 5000 + b"]" * 5000, "cannot be read"),
    "no inputs": ({}, "has no inputs"),
    "empty inputs": ({"inputs": []}, "has no inputs"),
    "inputs null": ({"inputs": None}, "has no inputs"),
    "inputs an object": ({"inputs": {"x": tensor()}}, '"inputs" of the request is not a list'),
    "an input a list": ({"inputs": [[]]}, '"inputs" of the request is not a list of objects'),
    "outputs a text": ({"inputs": [tensor()], "outputs": "x"}, '"outputs" of the request'),
    "no name": ({"inputs": [{}]}, "an input has no name"),
    "an empty name": ({"inputs": [tensor(name="")]}, "an input has no name"),
    "a name 1": ({"inputs": [tensor(name=1)]}, "the name of an input is not a text"),
    "twice": ({"inputs": [tensor(), tensor()]}, "'x' stands twice"),
    "no shape": ({"inputs": [{"name": "x"}]}, "has the shape None"),
    "no datatype": ({"inputs": [tensor(datatype=None)]}, "datatype of no text"),
    "no data": ({"inputs": [TENSOR]}, "no list as its data"),
    "id 5": ({"inputs": [tensor()], "id": 5}, "the id of the request is not a text"),
    "parameters a list": ({"inputs": [tensor()], "parameters": []}, '"parameters" of the request'),
    "an input's": ({"inputs": [tensor(parameters=1)]}, "\"parameters\" of input 'x'"),
    "shared memory": (
        {"inputs": [tensor(parameters={"shared_memory_region": "r"})]},
        "shared memory, which is not served",
    ),
    "an output twice": (
        {"inputs": [tensor()], "outputs": [{"name": "a"}, {"name": "a"}]},
        "output 'a' is asked for twice",
    ),
    "an output's name": ({"inputs": [tensor()], "outputs": [{"name": []}]}, "is not a text"),
    "binary_data": (
        {"inputs": [tensor()], "outputs": [{"name": "a", "parameters": {"binary_data": 1}}]},
        "binary_data of output 'a' is not true or false",
    ),
    "binary_data_output": (
        {"inputs": [tensor()], "parameters": {"binary_data_output": "yes"}},
        "binary_data_output of the request is not true or false",
    ),
    **{
        f"classes {value}": (
            {
                "inputs": [tensor()],
                "outputs": [{"name": "a", "parameters": {"classification": value}}],
            },
            "asks for .* classes",
        )
        for value in (-1, 1.5, "3", None, True, [[]])
    },
    **{
        f"timeout {value}": (
            {"inputs": [tensor()], "parameters": {"timeout": value}},
            "the timeout is .*: expected whole microseconds",
        )
        for value in (-1, 1.5, "3", True, 2**60, [[]], {})
    },
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_requests(name):
    fields, says = WRONG[name]
    with pytest.raises(InvalidRequestError, match=says):
        decode(fields)


@pytest.mark.parametrize(
    ("size", "tail", "says"),
    [
        (8, 7, "announces 8 bytes behind the JSON: 7 are left"),
        (8, 9, "1 bytes follow the last input's"),
        (8, 0, "announces 8 bytes behind the JSON: 0 are left"),
        (7, 8, "takes 8 bytes: received 7"),
        (0, 8, "takes 8 bytes: received 0"),
        (-8, 8, "announces -8 bytes"),
        (2**63, 8, "announces 9223372036854775808 bytes"),
        (8.5, 8, r"announces 8\.5 bytes"),
        ("8", 8, "announces '8' bytes"),
        (True, 8, "announces True bytes"),
        ([[[8]]], 8, "announces a list of 1 bytes"),
    ],
)
def test_wrong_sizes(size, tail, says):
    fields = {"inputs": [{**TENSOR, "parameters": {"binary_data_size": size}}]}
    with pytest.raises(InvalidRequestError, match=says):
        decode(fields, bytes(tail))


def test_sizes_of_several_inputs_are_added_up():
    inputs = [
        {**TENSOR, "name": name, "parameters": {"binary_data_size": 8}} for name in ("x", "y")
    ]
    with pytest.raises(InvalidRequestError, match="'y' announces 8 bytes behind the JSON: 7 are"):
        decode({"inputs": inputs}, bytes(15))


@pytest.mark.parametrize(
    "length",
    [b"", b"-1", b"+5", b" 5", b"5 ", b"1_0", b"0x5", b"5.0", b"99", b"9" * 30, "٣".encode()],
)
def test_wrong_lengths_of_the_json(length):
    with pytest.raises(InvalidRequestError, match=r"Inference-Header-Content-Length .* 0 to 2"):
        decode(b"{}", length=length)


def test_bytes_that_no_input_wants():
    with pytest.raises(InvalidRequestError, match="3 bytes follow"):
        decode({"inputs": [tensor()]}, b"xyz")
    # Without the header all is JSON.
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        decode(json.dumps({"inputs": [tensor()]}).encode() + b"xyz")


def test_limits():
    limits = Limits(json_bytes_max=400, tensors_max=2, text_length_max=5, rank_max=3)
    for fields, says in (
        ({"inputs": [tensor()], "x": "y" * 400}, "bytes of JSON: expected at most 400"),
        ({"inputs": [tensor(name=str(i)) for i in range(3)]}, "3 inputs: expected at most 2"),
        ({"inputs": [tensor()], "outputs": [{}] * 3}, "3 outputs: expected at most 2"),
        ({"inputs": [tensor()], "parameters": dict.fromkeys("abc")}, "3 parameters: expected at"),
        ({"inputs": [tensor(parameters=dict.fromkeys("abc"))]}, "input 'x' has 3 parameters"),
        ({"inputs": [tensor()], "id": "123456"}, "6 characters: expected at most 5"),
        ({"inputs": [tensor(name="123456")]}, "the name of an input has 6 characters"),
        ({"inputs": [tensor()], "outputs": [{"name": "123456"}]}, "a requested output has 6"),
        ({"inputs": [tensor(shape=[1] * 4)]}, "4 dimensions: expected at most 3"),
    ):
        with pytest.raises(TooLargeError, match=says):
            decode(fields, limits=limits)


def test_the_bytes_of_tensors_are_no_json():
    limits = Limits(json_bytes_max=200)
    inputs = [{"name": "x", "datatype": "UINT8", "shape": [5000]}]
    inputs[0]["parameters"] = {"binary_data_size": 5000}
    assert decode({"inputs": inputs}, bytes(5000), limits=limits).inputs["x"].shape == (5000,)


def test_objects():
    assert parse_object(b' {"a": [1, 2.5, null]} ', LIMITS) == {"a": [1, 2.5, None]}
    assert parse_object(memoryview(b"{}"), LIMITS) == {}


def answer(*outputs, **fields):
    return InferResponse(
        **{"model": "m", "version": "3", "id": "", **fields}, outputs=list(outputs)
    )


def test_an_answer_in_json():
    values = np.array([[1, -2]], np.int64)
    body, length = encode_response(answer(OutputTensor("a", "INT64", values), id="ñ"))
    assert length is None
    assert json.loads(body) == {
        "model_name": "m",
        "model_version": "3",
        "id": "ñ",
        "outputs": [{"name": "a", "datatype": "INT64", "shape": [1, 2], "data": [1, -2]}],
    }
    assert b'"id"' not in encode_response(answer(OutputTensor("a", "INT64", values)))[0]


def test_an_answer_with_bytes():
    """In the order of the outputs; those in JSON take no place behind it."""
    floats = np.array([[0.5], [-1.5]], np.float32)
    texts = np.array([[b"0.5:0:a"]], object)
    body, length = encode_response(
        answer(
            OutputTensor("a", "FP32", floats, True),
            OutputTensor("b", "BYTES", texts),
            OutputTensor("c", "BYTES", texts, True),
            OutputTensor("d", "FP32", floats.T, True),
        )
    )
    found = json.loads(body[:length])["outputs"]
    assert found == [
        {
            "name": "a",
            "datatype": "FP32",
            "shape": [2, 1],
            "parameters": {"binary_data_size": 8},
        },
        {"name": "b", "datatype": "BYTES", "shape": [1, 1], "data": ["0.5:0:a"]},
        {
            "name": "c",
            "datatype": "BYTES",
            "shape": [1, 1],
            "parameters": {"binary_data_size": 11},
        },
        {
            "name": "d",
            "datatype": "FP32",
            "shape": [1, 2],
            "parameters": {"binary_data_size": 8},
        },
    ]
    packed = struct.pack("<2f", 0.5, -1.5)
    assert body[length:] == packed + b"\7\0\0\x000.5:0:a" + packed


def test_json_has_no_number_that_is_not_finite():
    values = np.array([np.nan, 1, -np.inf], np.float32)
    body, _ = encode_response(answer(OutputTensor("a", "FP32", values)))
    assert json.loads(body)["outputs"][0]["data"] == ["NaN", 1, "-Infinity"]
