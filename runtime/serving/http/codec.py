"""Read an inference request from its body, and write the answer.

Source: Open Inference Protocol (KServe V2), "Inference Request JSON Object" and "Inference Response
JSON Object"; extensions "binary tensor data", "classification", "schedule policy" (`timeout`).
"""

from __future__ import annotations

from typing import Any

import orjson

from stnkit.runtime.serving.datatypes import dtype_of
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
from stnkit.runtime.serving.inference import (
    InferRequest,
    InferResponse,
    OutputTensor,
    RequestedOutput,
)
from stnkit.runtime.serving.limits import Limits
from stnkit.runtime.serving.raw_tensors import from_raw

__all__ = ["BINARY_HEADER", "decode_request", "encode_response", "parse_object"]

BINARY_HEADER = b"inference-header-content-length"
"""Names the length of the JSON in front of the tensors' bytes."""

_MICROSECONDS_MAX = 2**53


def parse_object(data: bytes | memoryview, limits: Limits) -> dict[str, Any]:
    """Return the JSON object of a request.

    Args:
        data: UTF-8.
        limits: the longest JSON.

    Raises:
        InvalidRequestError: not JSON, nested too deeply, or not an object.
        TooLargeError: longer than the limit.
    """
    if len(data) > limits.json_bytes_max:
        raise TooLargeError(
            f"the request has {len(data)} bytes of JSON: expected at most {limits.json_bytes_max}; "
            "send tensors as binary data"
        )
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise InvalidRequestError(f"the request's JSON cannot be read: {exc.msg}") from exc
    if not isinstance(found, dict):
        raise InvalidRequestError("the request's JSON is not an object: expected one in { }")
    return found


def decode_request(
    model: str, version: str, body: bytes | memoryview, json_length: bytes | None, limits: Limits
) -> InferRequest:
    """Read an inference request.

    Args:
        model: the model's name, from the path.
        version: its version, from the path.
        body: the request's body, decompressed.
        json_length: value of the header `Inference-Header-Content-Length`, None without one.
        limits: what a request may hold.

    Raises:
        InvalidRequestError: it is not what the protocol says.
        TooLargeError: it is over a limit.
    """
    at = len(body) if json_length is None else _json_length(json_length, len(body))
    view = memoryview(body)
    fields = parse_object(view[:at], limits)
    parameters = _parameters(fields, limits, "the request")
    request = InferRequest(
        model=model,
        version=version,
        inputs={},
        id=text_field(fields, "id", limits, what="the request"),
        timeout_ms=_timeout_ms(parameters),
    )
    inputs = _objects(fields.get("inputs"), "inputs", limits)
    if not inputs:
        raise InvalidRequestError('the request has no inputs: expected a list "inputs"')
    for item in inputs:
        name = text_field(item, "name", limits, what="an input")
        if not name:
            raise InvalidRequestError('an input has no name: expected a text "name"')
        if name in request.inputs:
            raise InvalidRequestError(f"the input {name!r} stands twice in the request")
        shape = check_shape(item.get("shape"), name, limits)
        own = _parameters(item, limits, f"input {name!r}")
        announced = own.get("binary_data_size")
        if announced is None:
            request.inputs[name] = from_json(item.get("data"), item.get("datatype"), shape, name)
            continue
        size = whole(announced)
        if size is None or not 0 <= size <= len(body) - at:
            raise InvalidRequestError(
                f"input {name!r} announces {shown(announced)} bytes behind the JSON: "
                f"{len(body) - at} are left"
            )
        dtype = dtype_of(item.get("datatype"), name)
        request.inputs[name] = from_raw(view[at : at + size], dtype, shape, name)
        at += size
    if at != len(body):
        raise InvalidRequestError(
            f"{len(body) - at} bytes follow the last input's: expected none; is binary_data_size "
            "of each input right?"
        )
    binary = parameters.get("binary_data_output", False)
    if not isinstance(binary, bool):
        raise InvalidRequestError("binary_data_output of the request is not true or false")
    request.binary = binary
    for item in _objects(fields.get("outputs"), "outputs", limits):
        wanted = _requested(item, limits, request.binary)
        if any(wanted.name == other.name for other in request.outputs):
            raise InvalidRequestError(f"the output {wanted.name!r} is asked for twice")
        request.outputs.append(wanted)
    return request


def _json_length(text: bytes, body_length: int) -> int:
    # Digits alone: int() would also take signs, spaces and underscores.
    length = int(text) if text.isdigit() and len(text) < 20 else -1
    if not 0 <= length <= body_length:
        raise InvalidRequestError(
            f"the header Inference-Header-Content-Length is {text[:32].decode('latin-1')!r}: "
            f"expected 0 to {body_length}, the bytes of the body"
        )
    return length


def _objects(value: object, key: str, limits: Limits) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InvalidRequestError(f'"{key}" of the request is not a list of objects')
    if len(value) > limits.tensors_max:
        raise TooLargeError(
            f"the request has {len(value)} {key}: expected at most {limits.tensors_max}"
        )
    return value


def _parameters(fields: dict[str, Any], limits: Limits, what: str) -> dict[str, Any]:
    found = fields.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InvalidRequestError(f'"parameters" of {what} is not an object')
    if len(found) > limits.tensors_max:
        raise TooLargeError(
            f"{what} has {len(found)} parameters: expected at most {limits.tensors_max}"
        )
    if "shared_memory_region" in found:
        raise InvalidRequestError(
            f"{what} lies in shared memory, which is not served: send the values"
        )
    return found


def _timeout_ms(parameters: dict[str, Any]) -> float | None:
    value = parameters.get("timeout")
    if value is None:
        return None
    microseconds = whole(value)
    if microseconds is None or not 0 <= microseconds <= _MICROSECONDS_MAX:
        raise InvalidRequestError(
            f"the timeout is {shown(value)}: expected whole microseconds, 0 for the server's own"
        )
    return microseconds / 1000 or None


def _requested(item: dict[str, Any], limits: Limits, binary: bool) -> RequestedOutput:
    name = text_field(item, "name", limits, what="a requested output")
    parameters = _parameters(item, limits, f"output {name!r}")
    asked = parameters.get("classification", 0)
    classes = whole(asked)
    if classes is None or classes < 0:
        raise InvalidRequestError(
            f"output {name!r} asks for {shown(asked)} classes: expected a whole number"
        )
    wanted = parameters.get("binary_data", binary)
    if not isinstance(wanted, bool):
        raise InvalidRequestError(f"binary_data of output {name!r} is not true or false")
    return RequestedOutput(name, classes, wanted)


def encode_response(response: InferResponse) -> tuple[bytes, int | None]:
    """Write an answer.

    Args:
        response: the answer.

    Returns:
        The body, and the length of the JSON in front of the tensors' bytes; None where all is
        JSON.
    """
    outputs = []
    blobs: list[bytes] = []
    for tensor in response.outputs:
        outputs.append(_output(tensor, blobs))
    answer: dict[str, Any] = {
        "model_name": response.model,
        "model_version": response.version,
        "outputs": outputs,
    }
    if response.id:
        answer["id"] = response.id
    head = orjson.dumps(answer)
    if not blobs:
        return head, None
    return b"".join([head, *blobs]), len(head)


def _output(tensor: OutputTensor, blobs: list[bytes]) -> dict[str, Any]:
    shape = list(tensor.array.shape)
    found: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": shape}
    if tensor.binary:
        blob = bytes_tensor(tensor.array)
        blobs.append(blob)
        found["parameters"] = {"binary_data_size": len(blob)}
    else:
        found["data"] = json_values(tensor.array)
    return found
