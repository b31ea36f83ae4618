"""Reading what was read before gives what reading anew gives."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stnkit.runtime.serving.errors import ServingError
from stnkit.runtime.serving.http import reader as module
from stnkit.runtime.serving.http.codec import decode_request
from stnkit.runtime.serving.http.reader import RequestReader
from stnkit.runtime.serving.limits import Limits

LIMITS = Limits()


@pytest.fixture
def read(monkeypatch):
    """Return a reader; `read.anew` counts how often it read JSON."""

    class Counting(RequestReader):
        anew = 0

    found = Counting(LIMITS)

    def counted(*arguments):
        found.anew += 1
        return decode_request(*arguments)

    monkeypatch.setattr(module, "decode_request", counted)
    return found


def binary(*arrays, **fields):
    """Return a body with tensors x0, x1, … behind the JSON, and the JSON's length."""
    names = {"float32": "FP32", "bool": "BOOL", "int64": "INT64"}
    inputs = [
        {
            "name": f"x{i}",
            "datatype": names[str(value.dtype)],
            "shape": list(value.shape),
            "parameters": {"binary_data_size": value.nbytes},
        }
        for i, value in enumerate(arrays)
    ]
    head = json.dumps({"inputs": inputs, **fields}).encode()
    return head + b"".join(value.tobytes() for value in arrays), str(len(head)).encode()


def same(found, expected):
    assert list(found.inputs) == list(expected.inputs)
    for name, value in expected.inputs.items():
        assert found.inputs[name].dtype == value.dtype
        np.testing.assert_array_equal(found.inputs[name], value)
    for name in ("model", "version", "outputs", "id", "timeout_ms", "binary", "carrier"):
        assert getattr(found, name) == getattr(expected, name)


FIELDS = {
    "plain": {},
    "parameters": {"parameters": {"binary_data_output": True, "timeout": 5000}},
    "outputs": {
        "outputs": [
            {"name": "a", "parameters": {"classification": 3}},
            {"name": "b", "parameters": {"binary_data": True}},
        ]
    },
}


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_the_second_time(read, fields):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        arrays = (
            rng.random((2, 3), np.float32),
            rng.integers(0, 2, 5).astype(bool),
            rng.integers(-9, 9, (1, 2)),
            np.empty((0, 4), np.float32),
        )
        body, length = binary(*arrays, **fields)
        model = f"model-{seed}"
        same(read(model, "1", body, length), decode_request(model, "1", body, length, LIMITS))
        same(
            read(model, "", memoryview(body), length),
            decode_request(model, "", body, length, LIMITS),
        )
    assert read.anew == 1


def test_bytes_that_are_neither_true_nor_false(read):
    body, length = binary(np.array([True, False]))
    wrong = body[:-2] + b"\x02\x00"
    for given in (wrong, body, wrong):  # before the JSON is known, and after
        if given is body:
            assert read("m", "", body, length).inputs["x0"].tolist() == [True, False]
            continue
        with pytest.raises(ServingError, match="bytes other than 0 and 1"):
            read("m", "", given, length)


def test_the_outputs_of_one_request_are_its_own(read):
    body, length = binary(np.zeros(3, np.float32), **FIELDS["outputs"])
    read("m", "", body, length).outputs.clear()
    read("m", "", body, length).outputs.clear()
    assert len(read("m", "", body, length).outputs) == 2


@pytest.mark.parametrize("more", [b"", b"1234"])
def test_the_same_json_before_another_body(read, more):
    body, length = binary(np.zeros(3, np.float32))
    read("m", "", body, length)
    wrong = body + more if more else body[:-4]
    with pytest.raises(ServingError) as expected:
        decode_request("m", "", wrong, length, LIMITS)
    with pytest.raises(ServingError) as found:
        read("m", "", wrong, length)
    assert str(found.value) == str(expected.value)
    assert type(found.value) is type(expected.value)


@pytest.mark.parametrize("length", [b"-1", b"", b"x", b"1_0", b"99999", b"9" * 30, b"\xb2"])
def test_lengths_that_are_none(read, length):
    body, _ = binary(np.zeros(3, np.float32))
    with pytest.raises(ServingError) as expected:
        decode_request("m", "", body, length, LIMITS)
    with pytest.raises(ServingError) as found:
        read("m", "", body, length)
    assert str(found.value) == str(expected.value)


def test_what_is_not_remembered(read):
    """Names of requests, numbers in the JSON, JSON that is long, and what is wrong."""
    x = np.zeros(3, np.float32)
    named = binary(x, id="mine")
    tensor = {"name": "y", "datatype": "FP32", "shape": [1], "data": [1]}
    body = json.dumps({"inputs": [tensor]}).encode()
    mixed = json.dumps(
        {
            "inputs": [
                tensor,
                {
                    "name": "x",
                    "datatype": "FP32",
                    "shape": [3],
                    "parameters": {"binary_data_size": 12},
                },
            ]
        }
    ).encode()
    long = binary(x, parameters={"a": "b" * 2000})
    for data, length in (
        named,
        (body, None),
        (body, str(len(body)).encode()),
        (mixed + x.tobytes(), str(len(mixed)).encode()),
        long,
    ):
        for _ in range(2):
            same(read("m", "", data, length), decode_request("m", "", data, length, LIMITS))
    assert read.anew == 10
    assert read._plans == {}


def test_what_is_remembered_is_bounded(read):
    for size in range(1, 200):
        body, length = binary(np.zeros(size, np.float32))
        read("m", "", body, length)
    assert len(read._plans) == 64
    read("m", "", body, length)
    assert read.anew == 199
