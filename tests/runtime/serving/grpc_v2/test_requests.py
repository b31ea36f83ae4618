"""What a request may say of itself, and what is answered to one that lies."""

from __future__ import annotations

import random
import struct
import time

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from stnkit.runtime.serving.errors import InvalidRequestError, TooLargeError, UnsupportedError
from stnkit.runtime.serving.grpc_v2.answers import infer_answer, stream_answer, stream_error
from stnkit.runtime.serving.grpc_v2.messages import message_class
from stnkit.runtime.serving.grpc_v2.requests import parse, parse_infer, to_request
from stnkit.runtime.serving.grpc_v2.wire import TYPED_BYTES_MAX, split_request, varint
from stnkit.runtime.serving.inference import InferResponse, OutputTensor, RequestedOutput

Request = message_class("inference.ModelInferRequest")
DTYPES = ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"]
DTYPES += ["FP16", "FP32", "FP64"]
NUMPY = {"BOOL": "bool", "FP16": "float16", "FP32": "float32", "FP64": "float64"}


def numpy_type(datatype):
    return np.dtype(NUMPY.get(datatype, datatype.lower()))


def request(**changes):
    """Return a message with one input, changed."""
    message = Request(model_name="m", model_version="2", id="seven")
    message.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    message.raw_input_contents.append(np.array([1, 2, 3], np.float32).tobytes())
    for key, value in changes.items():
        setattr(message, key, value)
    return message


def read(message, limits):
    data = message if isinstance(message, bytes) else message.SerializeToString()
    return to_request(*parse_infer(data, limits), limits)


def test_a_whole_request(limits):
    message = request()
    message.parameters["timeout"].int64_param = 2500
    message.parameters["priority"].uint64_param = 3
    message.outputs.add(name="y").parameters["classification"].int64_param = 4
    message.outputs.add(name="z").parameters["binary_data"].bool_param = False
    found = read(message, limits)
    assert (found.model, found.version, found.id, found.timeout_ms) == ("m", "2", "seven", 2.5)
    assert found.outputs == [RequestedOutput("y", 4, True), RequestedOutput("z", 0, True)]
    (array,) = found.inputs.values()
    assert array.dtype == np.float32
    assert array.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("datatype", DTYPES)
@pytest.mark.parametrize("pad", range(9))
def test_raw_tensors_of_every_type(datatype, pad, limits):
    """Wherever they lie in the message, and without a copy: the batcher aligns what it runs."""
    values = np.arange(6).reshape(2, 3).astype(numpy_type(datatype))
    message = Request(model_name="m" * (pad + 1))
    message.inputs.add(name="x", datatype=datatype, shape=[2, 3])
    message.raw_input_contents.append(values.tobytes())
    found = read(message, limits).inputs["x"]
    np.testing.assert_array_equal(found, values, strict=True)
    assert found.base is not None
    assert found.flags.c_contiguous


@pytest.mark.parametrize("datatype", [name for name in DTYPES if name != "FP16"])
def test_typed_contents_of_every_type(datatype, limits):
    dtype = numpy_type(datatype)
    values = np.array([0, 1], dtype)
    if dtype.kind in "iu":
        values = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max], dtype)
    field = {"BOOL": "bool_contents", "FP32": "fp32_contents", "FP64": "fp64_contents"}.get(
        datatype,
        f"{datatype.lower()}_contents"
        if datatype.endswith("INT64")
        else ("uint_contents" if datatype.startswith("U") else "int_contents"),
    )
    message = Request(model_name="m")
    item = message.inputs.add(name="x", datatype=datatype, shape=[2, 1])
    getattr(item.contents, field).extend(values.tolist())
    found = read(message, limits).inputs["x"]
    np.testing.assert_array_equal(found, values.reshape(2, 1), strict=True)


def test_numbers_that_are_not_packed_are_read(limits):
    packed = Request(model_name="m")
    packed.inputs.add(name="x", datatype="FP32")
    inner = packed.inputs[0].SerializeToString() + b"\x18\x02"  # shape = 2, not packed
    contents = b"".join(b"\x35" + struct.pack("<f", value) for value in (1.5, 2.5))
    inner += b"\x2a" + varint(len(contents)) + contents
    data = b"\x0a\x01m\x2a" + varint(len(inner)) + inner
    assert read(data, limits).inputs["x"].tolist() == [1.5, 2.5]


@pytest.mark.parametrize("shape", [[0, 28], [0], [3, 0, 5]])
def test_empty_tensors(shape, limits):
    message = Request(model_name="m")
    message.inputs.add(name="x", datatype="FP32", shape=shape)
    message.raw_input_contents.append(b"")
    assert read(message, limits).inputs["x"].shape == tuple(shape)


def _change_input(**changes):
    def change(message):
        for key, value in changes.items():
            if key == "shape":
                del message.inputs[0].shape[:]
                message.inputs[0].shape.extend(value)
            else:
                setattr(message.inputs[0], key, value)

    return change


def _set(name, value):
    return lambda message: setattr(message, name, value)


def _parameter(where, key, field, value):
    def change(message):
        if where == "outputs":
            message.outputs.add(name="y")
        holder = message if where == "request" else getattr(message, where)[0]
        setattr(holder.parameters[key], field, value)

    return change


def _typed(field, values, datatype="FP32", shape=(3,), raw=False):
    def change(message):
        _change_input(datatype=datatype, shape=shape)(message)
        getattr(message.inputs[0].contents, field).extend(values)
        if not raw:
            message.ClearField("raw_input_contents")

    return change


def _many(field, count):
    def change(message):
        for index in range(count):
            if field == "parameters":
                message.parameters[str(index)].bool_param = True
            else:
                getattr(message, field).add(name=str(index))

    return change


BAD = [
    (_set("model_name", ""), InvalidRequestError, "no model_name"),
    (_set("model_name", "m" * 257), TooLargeError, "257 characters: expected at most 256"),
    (_set("model_version", "9" * 300), TooLargeError, "version has 300"),
    (_set("id", "i" * 300), TooLargeError, "id has 300"),
    (lambda it: it.ClearField("inputs"), InvalidRequestError, "no inputs"),
    (_change_input(name=""), InvalidRequestError, "no name"),
    (_change_input(name="n" * 300), TooLargeError, "name has 300"),
    (lambda it: it.inputs.append(it.inputs[0]), InvalidRequestError, "2 inputs and 1 raw"),
    (lambda it: it.MergeFrom(request()), InvalidRequestError, "'x' stands twice"),
    (lambda it: it.raw_input_contents.append(b""), InvalidRequestError, "1 inputs and 2 raw"),
    (_change_input(datatype="FLOAT"), InvalidRequestError, "datatype 'FLOAT'"),
    (_change_input(datatype="BYTES"), InvalidRequestError, "datatype 'BYTES'"),
    (_change_input(datatype=""), InvalidRequestError, "datatype ''"),
    (_change_input(datatype="INT64"), InvalidRequestError, "takes 24 bytes: received 12"),
    (_change_input(shape=[1, -3]), InvalidRequestError, "sizes of 0 or more"),
    (_change_input(shape=[-(2**63)]), InvalidRequestError, "sizes of 0 or more"),
    (_change_input(shape=[2**62, 2**62]), TooLargeError, "sizes of at most"),
    (_change_input(shape=[2**20] * 4), InvalidRequestError, f"takes {2**82} bytes"),
    (_change_input(shape=[0, 2**62]), TooLargeError, "sizes of at most"),
    (_change_input(shape=[0] + [2**20] * 7), TooLargeError, "beside the size 0"),
    (_change_input(shape=[1] * 9), TooLargeError, "9 dimensions: expected at most 8"),
    (_change_input(shape=[]), InvalidRequestError, "takes 4 bytes: received 12"),
    (_typed("fp32_contents", [1, 2, 3], raw=True), InvalidRequestError, "beside raw_input"),
    (_typed("fp32_contents", [1, 2]), InvalidRequestError, "takes 3 values: received 2"),
    (_typed("fp32_contents", [], shape=(2**40,)), TooLargeError, "sizes of at most"),
    (_typed("fp32_contents", [], shape=(2**20, 2**20)), InvalidRequestError, "received 0"),
    (_typed("fp64_contents", [1, 2, 3]), InvalidRequestError, "has fp64_contents: expected fp32"),
    (_typed("bytes_contents", [b"a"]), InvalidRequestError, "has bytes_contents"),
    (_typed("int_contents", [1, 2, 128], "INT8"), InvalidRequestError, "outside -128 to 127"),
    (_typed("uint_contents", [256, 2, 1], "UINT8"), InvalidRequestError, "outside 0 to 255"),
    (_typed("fp32_contents", [1, 2, 3], "FP16"), InvalidRequestError, "no typed contents hold"),
    (_change_input(datatype="BOOL", shape=[12]), InvalidRequestError, "bytes other than 0 and 1"),
    (_parameter("inputs", "shared_memory_region", "string_param", "r"), UnsupportedError, "shared"),
    (
        _parameter("outputs", "shared_memory_region", "string_param", "r"),
        UnsupportedError,
        "output 'y' lies in shared memory",
    ),
    (
        _parameter("outputs", "classification", "int64_param", -1),
        InvalidRequestError,
        "number of classes",
    ),
    (
        _parameter("outputs", "classification", "string_param", "5"),
        InvalidRequestError,
        "number of classes",
    ),
    (_parameter("request", "timeout", "int64_param", -1), InvalidRequestError, "microseconds"),
    (_parameter("request", "timeout", "double_param", 1.0), InvalidRequestError, "microseconds"),
    (_parameter("request", "timeout", "int64_param", 2**62), InvalidRequestError, "microseconds"),
    (_many("inputs", 8), TooLargeError, "9 inputs: expected at most 8"),
    (_many("outputs", 9), TooLargeError, "9 outputs: expected at most 8"),
    (_many("parameters", 9), TooLargeError, "9 parameters: expected at most 8"),
    (_many("inputs", 50), TooLargeError, "more than 40 fields"),
    (lambda it: it.outputs.add(), InvalidRequestError, "output has no name"),
    (
        lambda it: it.outputs.extend([it.outputs.add(name="y")]),
        InvalidRequestError,
        "'y' is asked for twice",
    ),
]


@pytest.mark.parametrize(("change", "error", "text"), BAD)
def test_what_a_request_must_not_say(change, error, text, limits):
    message = request()
    change(message)
    with pytest.raises(error, match=text):
        read(message, limits)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x0a", "ends inside of a number"),
        (b"\x0a\x05abc", "field 1 ends 2 bytes after"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "bytes after"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "more than 10 bytes"),
        (b"\x02\x00", "the number 0"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x0f", "wire type 7"),
        (b"\x0a\x02\xff\xfe", "no ModelInferRequest"),
        (b"\x2a\x02\x0a\x05", "no ModelInferRequest"),
        (b"\x15\x00\x00", "bytes after"),
    ],
)
def test_bytes_that_are_no_message(data, text, limits):
    with pytest.raises(InvalidRequestError, match=text):
        read(data, limits)


def _field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x2a\x00" * 10**6, id="empty inputs"),
        pytest.param(b"\x3a\x00" * 10**6, id="empty tensors"),
        pytest.param(b"\x22\x00" * 10**6, id="empty parameters"),
        pytest.param(_field(5, b"\x22\x00" * 10**6), id="empty parameters of an input"),
        pytest.param(_field(5, b"\x18\x01" * 10**6), id="sizes of a shape"),
        pytest.param(_field(5, _field(3, b"\x01" * 10**6)), id="packed sizes of a shape"),
        pytest.param(_field(5, _field(4, b"\x12\x00" * 10**6)), id="one parameter of an input"),
        pytest.param(_field(6, b"\x12\x00" * 10**6), id="parameters of an output"),
        pytest.param(_field(1, b"m" * 10**6), id="a name"),
        pytest.param(_field(99, b"m" * 10**6), id="an unknown field"),
        pytest.param(_field(5, _field(5, bytes(TYPED_BYTES_MAX))), id="typed contents"),
    ],
)
def test_messages_that_would_grow_are_not_parsed(data, limits):
    started = time.perf_counter()
    with pytest.raises(TooLargeError):
        read(data, limits)
    assert time.perf_counter() - started < 0.5


def test_splitting_takes_the_tensors_alone(limits):
    message = request()
    message.raw_input_contents.append(b"more")
    whole = message.SerializeToString()
    # Tensors in front of the rest are as good as behind it.
    for data in (whole, whole[whole.index(b"\x3a") :] + whole[: whole.index(b"\x3a")]):
        rest, raw = split_request(data, limits)
        assert [bytes(part) for part in raw] == list(message.raw_input_contents)
        parsed = Request.FromString(rest)
        assert not parsed.raw_input_contents
        parsed.raw_input_contents.extend(bytes(part) for part in raw)
        assert parsed == message


def test_splitting_agrees_with_protobuf(limits):
    """Whatever is split parses to the very message that protobuf reads from the whole."""
    rng = random.Random(5)
    whole = request().SerializeToString()
    agreed = 0
    for _ in range(5000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            parsed, raw = parse_infer(bytes(data), limits)
        except (InvalidRequestError, TooLargeError):
            continue
        try:
            expected = Request.FromString(bytes(data))
        except DecodeError:
            pytest.fail(f"protobuf refuses {bytes(data)!r}")
        assert [bytes(part) for part in raw] == list(expected.raw_input_contents)
        expected.ClearField("raw_input_contents")
        assert parsed == expected
        agreed += 1
    assert agreed > 1000


def test_small_messages(limits):
    ready = message_class("inference.ModelReadyRequest")
    assert parse(ready, b"\x0a\x01m", limits).name == "m"
    with pytest.raises(InvalidRequestError, match="no ModelReadyRequest"):
        parse(ready, b"\x0a\xff", limits)
    with pytest.raises(TooLargeError, match="the name of the ModelReadyRequest has 300"):
        parse(ready, _field(1, b"n" * 300), limits)
    with pytest.raises(TooLargeError, match="expected at most 65536"):
        parse(ready, bytes(70_000), limits)


def test_answers():
    arrays = [
        np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::2],
        np.array(7, np.int64),
        np.array([[b"0.5:1:cat", b""]], object),
        np.zeros((0, 4), np.uint8),
    ]
    kinds = ["FP32", "INT64", "BYTES", "UINT8"]
    outputs = [
        OutputTensor(f"o{index}", kind, array)
        for index, (kind, array) in enumerate(zip(kinds, arrays, strict=True))
    ]
    response = InferResponse("m", "3", "id", outputs)
    found = message_class("inference.ModelInferResponse").FromString(infer_answer(response))
    assert (found.model_name, found.model_version, found.id) == ("m", "3", "id")
    assert [list(output.shape) for output in found.outputs] == [[2, 2], [], [1, 2], [0, 4]]
    assert [output.datatype for output in found.outputs] == kinds
    assert list(found.raw_output_contents) == [
        np.array([0, 2, 3, 5], np.float32).tobytes(),
        np.array(7, np.int64).tobytes(),
        b"\x09\x00\x00\x000.5:1:cat\x00\x00\x00\x00",
        b"",
    ]
    streamed = message_class("inference.ModelStreamInferResponse")
    answer = streamed.FromString(stream_answer(response))
    assert answer.infer_response.parameters.pop("triton_final_response").bool_param
    assert answer.infer_response == found
    failed = streamed.FromString(stream_error("why", "id"))
    assert (failed.error_message, failed.infer_response.id) == ("why", "id")
