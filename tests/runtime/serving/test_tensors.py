"""Tensors of a request as arrays, and back; worked out by hand."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from stnkit.runtime.serving.datatypes import NUMPY_TYPES, dtype_of
from stnkit.runtime.serving.errors import InvalidRequestError, TooLargeError
from stnkit.runtime.serving.http.tensors import (
    bytes_tensor,
    check_shape,
    from_json,
    json_values,
    shown,
    text_field,
    whole,
)
from stnkit.runtime.serving.limits import Limits
from stnkit.runtime.serving.raw_tensors import from_raw

LIMITS = Limits()
DEEP = []
for _ in range(1020):  # deeper than Python writes out
    DEEP = [DEEP]


def from_bytes(data, datatype, shape, tensor):
    return from_raw(data, dtype_of(datatype, tensor), shape, tensor)


@pytest.mark.parametrize("shape", [[], [0], [1], [2, 3], [0, 5], [8] * 8, [2**31, 4], [2.0, 3]])
def test_shapes(shape):
    assert check_shape(shape, "x", LIMITS) == tuple(int(size) for size in shape)


@pytest.mark.parametrize(
    "shape",
    [
        *(None, 3, "3", {}, [-1], [2, -3], [True], [None], ["2"], [2.5], [[2]], [2**63], [1e30]),
        *(DEEP, [math.inf], [math.nan], [-0.5]),
    ],
)
def test_wrong_shapes(shape):
    with pytest.raises(InvalidRequestError, match=r"input 'x' has the shape .*whole numbers"):
        check_shape(shape, "x", LIMITS)


@pytest.mark.parametrize(
    "shape", [[2**62, 2], [2**32, 2**32], [2**63 - 1], [0, 2**62, 2**62], [2**21] * 3]
)
def test_products_that_no_memory_holds(shape):
    """A zero hides the others from the product, and not from what NumPy can reshape to."""
    with pytest.raises(TooLargeError, match="no more elements"):
        check_shape(shape, "x", LIMITS)


def test_too_many_dimensions():
    with pytest.raises(TooLargeError, match="9 dimensions: expected at most 8"):
        check_shape([1] * 9, "x", LIMITS)
    with pytest.raises(TooLargeError):
        check_shape([1] * 10**6, "x", LIMITS)


def test_bytes_are_little_endian_and_row_major():
    found = from_bytes(memoryview(bytes([1, 0, 2, 0, 3, 0, 0, 1])), "UINT16", (2, 2), "x")
    np.testing.assert_array_equal(found, [[1, 2], [3, 256]])
    assert found.dtype == np.uint16


@pytest.mark.parametrize("datatype", NUMPY_TYPES)
def test_bytes_and_back(datatype):
    values = np.array([[0, 1, 1], [1, 0, 1]], NUMPY_TYPES[datatype])
    found = from_bytes(memoryview(bytes_tensor(values)), datatype, (2, 3), "x")
    np.testing.assert_array_equal(found, values, strict=True)


def test_bytes_are_not_copied_wherever_they_lie():
    data = np.arange(5, dtype="<f4").tobytes()
    for offset in range(8):
        view = memoryview(b"-" * offset + data)[offset:]
        found = from_bytes(view, "FP32", (5,), "x")
        assert found.base is not None
        np.testing.assert_array_equal(found, np.arange(5, dtype=np.float32))


def test_a_byte_that_is_neither_true_nor_false_is_refused():
    assert from_bytes(memoryview(bytes([0, 1])), "BOOL", (2,), "x").tolist() == [False, True]
    with pytest.raises(InvalidRequestError, match="bytes other than 0 and 1"):
        from_bytes(memoryview(bytes([0, 1, 2, 255])), "BOOL", (4,), "x")


@pytest.mark.parametrize("shape", [(3,), (1,), (2, 2), (0,), (2**40,)])
def test_other_numbers_of_bytes(shape):
    needed = math.prod(shape) * 4
    with pytest.raises(InvalidRequestError, match=f"takes {needed} bytes: received 8"):
        from_bytes(memoryview(bytes(8)), "FP32", shape, "x")


@pytest.mark.parametrize(
    "datatype",
    [None, 1, "", "fp32", "float32", "BYTES", "BF16", "FP32 ", [], {}, DEEP, "x" * 10**6],
    ids=lambda value: type(value).__name__,
)
def test_wrong_datatypes(datatype):
    for read in (
        lambda: from_bytes(memoryview(bytes(4)), datatype, (1,), "x"),
        lambda: from_json([1], datatype, (1,), "x"),
    ):
        with pytest.raises(InvalidRequestError, match="expected one of BOOL, UINT8") as caught:
            read()
        assert len(str(caught.value)) < 250


@pytest.mark.parametrize("values", [[1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]]])
def test_values_in_one_list_or_nested(values):
    found = from_json(values, "FP32", (2, 3), "x")
    np.testing.assert_array_equal(found, np.float32([[1, 2, 3], [4, 5, 6]]), strict=True)


@pytest.mark.parametrize(
    ("values", "shape"),
    [([], (0,)), ([], (0, 3)), ([[], []], (2, 0)), ([7], ()), ([[7]], (1, 1)), ([7], (1, 1))],
)
def test_small_shapes(values, shape):
    found = from_json(values, "INT32", shape, "x")
    assert found.shape == shape
    assert found.ravel().tolist() == [7] * math.prod(shape)


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        ([1, 2, 3], (2, 2)),
        ([[1, 2], [3]], (2, 2)),
        ([[1, 2], 3], (2, 2)),
        ([1, [2, 3]], (2, 2)),
        ([[1, 2, 3], [4, 5, 6]], (3, 2)),
        ([[[1, 2]], [[3, 4]]], (2, 2)),
        ([[1, 2, 3, 4]], (2, 2)),
        ([], (1,)),
        ([[]], (1,)),
        ([1, 2], ()),
        ([1], (0,)),
        ([{"a": 1}], (1, 1)),
        ([[1], {"a": 1}], (2, 1)),
        (["ab", "cd"], (2, 2)),
        (DEEP, (1,)),
        ([1], (2**40,)),
    ],
)
def test_values_of_another_shape(values, shape):
    with pytest.raises(InvalidRequestError, match="input 'x'"):
        from_json(values, "FP32", shape, "x")


@pytest.mark.parametrize("values", [None, 1, "1,2", {"0": 1}, True])
def test_values_that_are_no_list(values):
    with pytest.raises(InvalidRequestError, match="no list as its data"):
        from_json(values, "FP32", (1,), "x")


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("FP32", "1.5"),
        ("FP32", "NaN"),
        ("FP32", None),
        ("FP32", True),
        ("FP64", {}),
        ("INT32", 1.0),
        ("INT32", False),
        ("INT64", "1"),
        ("UINT8", None),
        ("BOOL", 1),
        ("BOOL", "true"),
        ("BOOL", None),
    ],
)
def test_values_of_another_type(datatype, value):
    with pytest.raises(InvalidRequestError, match=f"alone: {datatype} takes these"):
        from_json([value], datatype, (1,), "x")
    right = {"B": True, "I": 1, "U": 1, "F": 1.5}[datatype[0]]
    with pytest.raises(InvalidRequestError, match=f"alone: {datatype} takes these"):
        from_json([right, value], datatype, (2,), "x")


@pytest.mark.parametrize(
    ("datatype", "low", "high"),
    [
        ("INT8", -128, 127),
        ("UINT8", 0, 255),
        ("INT16", -32768, 32767),
        ("UINT16", 0, 65535),
        ("INT32", -(2**31), 2**31 - 1),
        ("UINT32", 0, 2**32 - 1),
        ("INT64", -(2**63), 2**63 - 1),
        ("UINT64", 0, 2**64 - 1),
    ],
)
def test_ranges_of_whole_numbers(datatype, low, high):
    assert from_json([low, high], datatype, (2,), "x").tolist() == [low, high]
    for value in (low - 1, high + 1):
        with pytest.raises(InvalidRequestError, match=f"outside {low} to {high}"):
            from_json([0, value], datatype, (2,), "x")


def test_numbers_beyond_the_type_are_infinite():
    assert from_json([1e300, -1e300], "FP32", (2,), "x").tolist() == [math.inf, -math.inf]
    assert from_json([70_000, 1.5], "FP16", (2,), "x").tolist() == [math.inf, 1.5]


def test_one_long_text_takes_no_memory_for_the_others():
    """NumPy would give each of the thousand the size of the longest: 4 GB."""
    values = ["x" * 1_000_000, *([0] * 1000)]
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequestError):
            from_json(values, "FP32", (1001,), "x")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_values_for_json():
    assert json_values(np.array([[1, 2], [3, 4]], np.int8)) == [1, 2, 3, 4]
    assert json_values(np.array([True, False])) == [True, False]
    assert json_values(np.array([[0.5], [0.1]], np.float32)) == [0.5, float(np.float32(0.1))]
    assert json_values(np.array([b"a:\xc3\xb1", b"\xff"], object)) == ["a:ñ", "\ufffd"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_is_not_finite_is_text_that_is_read_as_the_number(dtype):
    values = np.array([1.5, np.nan, np.inf, -np.inf], dtype)
    found = json_values(values)
    assert found == [1.5, "NaN", "Infinity", "-Infinity"]
    np.testing.assert_array_equal(np.array(found, dtype), values)  # as Triton's client does


def test_texts_as_bytes():
    texts = np.array([[b"ab", b""], [b"c\x00", b"\xff"]], object)
    expected = b"\2\0\0\0ab\0\0\0\0\2\0\0\0c\0\1\0\0\0\xff"
    assert bytes_tensor(texts) == expected


def test_texts_of_a_request():
    assert text_field({"id": "a"}, "id", LIMITS, what="the request") == "a"
    assert text_field({}, "id", LIMITS, what="the request") == ""
    assert text_field({"id": "ñ" * 256}, "id", LIMITS, what="it") == "ñ" * 256
    for value in (1, None, [], {}, True):
        with pytest.raises(InvalidRequestError, match="the id of the request is not a text"):
            text_field({"id": value}, "id", LIMITS, what="the request")
    with pytest.raises(TooLargeError, match="257 characters: expected at most 256"):
        text_field({"id": "x" * 257}, "id", LIMITS, what="the request")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (-0.5, "-0.5"),
        (None, "None"),
        ("a'b", '"a\'b"'),
        ("x" * 10**6, repr("x" * 40)),
        ([], "[]"),
        ([1, -4, "2"], "[1, -4, '2']"),
        ([1] * 9, "a list of 9"),
        ([[1]], "a list of 1"),
        (DEEP, "a list of 1"),
        ({"a": DEEP}, "an object"),
    ],
    ids=lambda value: str(type(value)),
)
def test_values_in_messages(value, text):
    assert shown(value) == text


def test_whole_numbers():
    assert [whole(it) for it in (3, -3, 0, 2**64, 4.0, -1e15)] == [3, -3, 0, 2**64, 4, -(10**15)]
    for value in (True, None, "3", 0.5, math.nan, math.inf, [], {}):
        assert whole(value) is None
