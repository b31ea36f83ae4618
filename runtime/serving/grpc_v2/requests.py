"""Read a `ModelInferRequest`, with everything checked that it says of itself.

Source: Open Inference Protocol (KServe V2), gRPC, "Inference" and "Tensor Data"; Triton's
extensions "classification" and "schedule policy" (`timeout`).
"""

from __future__ import annotations

import math
from typing import Any

from google.protobuf.message import DecodeError

from stnkit.runtime.serving.datatypes import dtype_of
from stnkit.runtime.serving.errors import InvalidRequestError, TooLargeError, UnsupportedError
from stnkit.runtime.serving.grpc_v2.messages import message_class
from stnkit.runtime.serving.grpc_v2.typed_contents import from_contents
from stnkit.runtime.serving.grpc_v2.wire import split_request
from stnkit.runtime.serving.inference import InferRequest, RequestedOutput
from stnkit.runtime.serving.limits import Limits
from stnkit.runtime.serving.raw_tensors import from_raw

__all__ = ["SMALL_BYTES_MAX", "parse", "parse_infer", "to_request"]

SMALL_BYTES_MAX = 64 * 2**10
"""Longest request that holds no tensors."""

_ModelInferRequest = message_class("inference.ModelInferRequest")
_MICROSECONDS_MAX = 2**53


def parse(message: Any, data: bytes, limits: Limits) -> Any:
    """Return a message that holds no tensors.

    Args:
        message: its class.
        data: its bytes.
        limits: how long its texts may be.

    Raises:
        InvalidRequestError: they are not such a message.
        TooLargeError: they are too many, or a text is too long.
    """
    name = message.DESCRIPTOR.name
    if len(data) > SMALL_BYTES_MAX:
        raise TooLargeError(f"the {name} has {len(data)} bytes: expected at most {SMALL_BYTES_MAX}")
    try:
        parsed = message.FromString(data)
    except DecodeError as exc:
        raise InvalidRequestError(
            f"the request of {len(data)} bytes is no {name}: expected a protobuf message with "
            "texts in UTF-8"
        ) from exc
    for field, value in parsed.ListFields():
        if isinstance(value, str):
            _text(value, f"the {field.name} of the {name}", limits)
    return parsed


def parse_infer(data: bytes, limits: Limits) -> tuple[Any, list[memoryview]]:
    """Return a request's message, and its raw tensors.

    Args:
        data: the message's bytes.
        limits: what it may hold.

    Raises:
        InvalidRequestError: they are not such a message.
        TooLargeError: it is over a limit.
    """
    rest, raw = split_request(data, limits)
    try:
        return _ModelInferRequest.FromString(rest), raw
    except DecodeError as exc:
        raise InvalidRequestError(
            f"the request of {len(data)} bytes is no ModelInferRequest: expected a protobuf "
            "message with texts in UTF-8"
        ) from exc


def to_request(message: Any, raw: list[memoryview], limits: Limits) -> InferRequest:
    """Return what a client asks.

    Args:
        message: the request's message.
        raw: its raw tensors.
        limits: what it may hold.

    Returns:
        The request; its arrays are views of the tensors' bytes where these come raw, contiguous in
        any case.

    Raises:
        InvalidRequestError: it is not what the protocol says.
        TooLargeError: it is over a limit.
        UnsupportedError: it needs what is not served.
    """
    model = _text(message.model_name, "the model's name", limits)
    if not model:
        raise InvalidRequestError("the request has no model_name: expected the name of a model")
    request = InferRequest(
        model=model,
        version=_text(message.model_version, "the model's version", limits),
        inputs={},
        id=_text(message.id, "the request's id", limits),
    )
    if message.parameters:
        _check_parameters(message.parameters, "the request", limits)
        request.timeout_ms = _timeout_ms(message.parameters)
    inputs = message.inputs
    if not inputs:
        raise InvalidRequestError("the request has no inputs: expected one or more")
    if len(inputs) > limits.tensors_max:
        raise TooLargeError(
            f"the request has {len(inputs)} inputs: expected at most {limits.tensors_max}"
        )
    if raw and len(raw) != len(inputs):
        raise InvalidRequestError(
            f"the request has {len(inputs)} inputs and {len(raw)} raw_input_contents: expected one "
            "for each input, or none"
        )
    for index, item in enumerate(inputs):
        name = _text(item.name, "an input's name", limits)
        if not name:
            raise InvalidRequestError("an input has no name: expected one")
        if name in request.inputs:
            raise InvalidRequestError(f"the input {name!r} stands twice in the request")
        dtype = dtype_of(item.datatype, name)
        shape = _shape(item.shape, name, limits)
        if item.parameters:
            _check_parameters(item.parameters, f"input {name!r}", limits)
        if not raw:
            array = from_contents(item.contents, dtype, shape, name)
        elif item.HasField("contents") and item.contents.ByteSize():
            raise InvalidRequestError(
                f"input {name!r} has contents beside raw_input_contents: expected one of the two"
            )
        else:
            array = from_raw(raw[index], dtype, shape, name)
        request.inputs[name] = array
    if message.outputs:
        request.outputs = _outputs(message.outputs, limits)
    return request


def _shape(sizes: Any, name: str, limits: Limits) -> tuple[int, ...]:
    if len(sizes) > limits.rank_max:
        raise TooLargeError(
            f"input {name!r} has {len(sizes)} dimensions: expected at most {limits.rank_max}"
        )
    shape = tuple(sizes)
    if shape and min(shape) < 0:
        raise InvalidRequestError(
            f"input {name!r} has the shape {list(shape)}: expected sizes of 0 or more"
        )
    # Beside a 0, sizes without a bound would pass the check of the bytes, and NumPy refuses them.
    if shape and max(shape) > limits.body_bytes_max:
        raise TooLargeError(
            f"input {name!r} has the shape {list(shape)}: expected sizes of at most "
            f"{limits.body_bytes_max}"
        )
    if 0 in shape and math.prod(size for size in shape if size) > limits.body_bytes_max:
        raise TooLargeError(
            f"input {name!r} has the shape {list(shape)}: expected at most "
            f"{limits.body_bytes_max} elements beside the size 0"
        )
    return shape


def _outputs(items: Any, limits: Limits) -> list[RequestedOutput]:
    if len(items) > limits.tensors_max:
        raise TooLargeError(
            f"the request asks for {len(items)} outputs: expected at most {limits.tensors_max}"
        )
    found: dict[str, RequestedOutput] = {}
    for item in items:
        name = _text(item.name, "an output's name", limits)
        if not name:
            raise InvalidRequestError("a requested output has no name: expected one")
        if name in found:
            raise InvalidRequestError(f"the output {name!r} is asked for twice")
        classes = 0
        if item.parameters:
            _check_parameters(item.parameters, f"output {name!r}", limits)
            if "classification" in item.parameters:
                value = _integer(item.parameters["classification"])
                if value is None or value < 0:
                    raise InvalidRequestError(
                        f"output {name!r} asks for a classification of another kind: expected "
                        "int64_param, the number of classes"
                    )
                classes = value
        found[name] = RequestedOutput(name, classes, binary=True)
    return list(found.values())


def _text(value: str, what: str, limits: Limits) -> str:
    if len(value) > limits.text_length_max:
        raise TooLargeError(
            f"{what} has {len(value)} characters: expected at most {limits.text_length_max}"
        )
    return value


def _check_parameters(parameters: Any, what: str, limits: Limits) -> None:
    if len(parameters) > limits.tensors_max:
        raise TooLargeError(
            f"{what} has {len(parameters)} parameters: expected at most {limits.tensors_max}"
        )
    if "shared_memory_region" in parameters:
        raise UnsupportedError(
            f"{what} lies in shared memory, which is not served: send the values in the request"
        )


def _integer(parameter: Any) -> int | None:
    kind = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, kind) if kind in ("int64_param", "uint64_param") else None


def _timeout_ms(parameters: Any) -> float | None:
    if "timeout" not in parameters:
        return None
    value = _integer(parameters["timeout"])
    if value is None or not 0 <= value <= _MICROSECONDS_MAX:
        raise InvalidRequestError(
            "the parameter timeout is no number of microseconds: expected int64_param, 0 or more"
        )
    return value / 1000 or None
