"""Write the protocol's answers.

Source: Open Inference Protocol (KServe V2), gRPC, `ModelInferResponse`: tensors go as raw bytes,
whatever form the request had, as Triton's do.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from stnkit.runtime.serving.grpc_v2.messages import message_class
from stnkit.runtime.serving.grpc_v2.wire import varint
from stnkit.runtime.serving.inference import InferResponse

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["infer_answer", "stream_answer", "stream_error"]

_ModelInferResponse = message_class("inference.ModelInferResponse")
_ModelStreamInferResponse = message_class("inference.ModelStreamInferResponse")
_RAW_OUTPUT_KEY = bytes([6 << 3 | 2])
"""What stands in front of each of `raw_output_contents`."""
_INFER_RESPONSE_KEY = bytes([2 << 3 | 2])


def infer_answer(response: InferResponse, *, final: bool = False) -> bytes:
    """Return the bytes of a `ModelInferResponse`.

    The tensors are the message's last field: written behind the rest, they are copied once.

    Args:
        response: the answer.
        final: whether to say that no other answer to the same request follows.
    """
    message = _ModelInferResponse(
        model_name=response.model, model_version=response.version, id=response.id
    )
    if final:
        message.parameters["triton_final_response"].bool_param = True
    parts: list[Any] = [b""]
    for tensor in response.outputs:
        message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
        raw = _raw(tensor.array)
        parts += [_RAW_OUTPUT_KEY, varint(raw.nbytes), raw]
    parts[0] = message.SerializeToString()
    return b"".join(parts)


def stream_answer(response: InferResponse) -> bytes:
    """Return the bytes of a `ModelStreamInferResponse`.

    Args:
        response: the answer.
    """
    inner = infer_answer(response, final=True)
    return b"".join((_INFER_RESPONSE_KEY, varint(len(inner)), inner))


def stream_error(message: str, request_id: str) -> bytes:
    """Return the bytes of a `ModelStreamInferResponse` in place of an answer.

    Args:
        message: what was wrong.
        request_id: the request's id, "" where it is not known.
    """
    answer = _ModelStreamInferResponse(error_message=message)
    answer.infer_response.id = request_id
    encoded: bytes = answer.SerializeToString()
    return encoded


def _raw(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype == object:
        joined = b"".join(struct.pack("<I", len(item)) + item for item in array.ravel())
        return np.frombuffer(joined, np.uint8)
    return np.ascontiguousarray(array)
