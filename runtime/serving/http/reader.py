"""Read inference requests one after the other: most are like one before, but for their numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stnkit.runtime.serving.http.codec import decode_request
from stnkit.runtime.serving.inference import InferRequest, RequestedOutput
from stnkit.runtime.serving.limits import Limits
from stnkit.runtime.serving.raw_tensors import over_bytes

__all__ = ["RequestReader"]

_REMEMBERED_MOST = 64
# Clients send shapes and names; who sends more of them than this may have them read anew.
_JSON_BYTES_MOST = 1024


@dataclass(frozen=True, slots=True)
class _Plan:
    """What some JSON said of the bytes behind it.

    Attributes:
        size: bytes of the body.
        inputs: name, dtype, shape, and where in the body the bytes begin and end.
        outputs: as in `InferRequest`, like the others.
    """

    size: int
    inputs: tuple[tuple[str, np.dtype[Any], tuple[int, ...], int, int], ...]
    outputs: tuple[RequestedOutput, ...]
    timeout_ms: float | None
    binary: bool


class RequestReader:
    """`decode_request` for many requests: JSON that was right is remembered, which is most of it.

    Only where all tensors lie behind it: then it is short, and the same in every request of a
    client. Whoever names each request has it read each time.

    Args:
        limits: what a request may hold.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._plans: dict[bytes, _Plan] = {}

    def __call__(
        self, model: str, version: str, body: bytes | memoryview, json_length: bytes | None
    ) -> InferRequest:
        """Read an inference request; raises what `decode_request` raises.

        Args:
            model: the model's name, from the path.
            version: its version, from the path.
            body: the request's body, decompressed.
            json_length: value of the header `Inference-Header-Content-Length`, None without one.
        """
        key = None
        if json_length is not None and json_length.isdigit() and len(json_length) < 5:
            at = int(json_length)
            if at <= min(len(body), _JSON_BYTES_MOST):
                view = memoryview(body)
                key = bytes(view[:at])
                plan = self._plans.get(key)
                if plan is not None and plan.size == len(body):
                    inputs = {
                        name: over_bytes(view[start:end], dtype, shape, name)
                        for name, dtype, shape, start, end in plan.inputs
                    }
                    return InferRequest(
                        model,
                        version,
                        inputs,
                        list(plan.outputs),
                        "",
                        plan.timeout_ms,
                        plan.binary,
                    )
        request = decode_request(model, version, body, json_length, self._limits)
        if key is not None and not request.id:
            self._remember(key, request, len(body))
        return request

    def _remember(self, key: bytes, request: InferRequest, size: int) -> None:
        at = len(key)
        inputs = []
        for name, value in request.inputs.items():
            inputs.append((name, value.dtype, value.shape, at, at + value.nbytes))
            at += value.nbytes
        if at != size:  # there are numbers in the JSON
            return
        if len(self._plans) >= _REMEMBERED_MOST:
            del self._plans[next(iter(self._plans))]
        outputs = tuple(request.outputs)
        self._plans[key] = _Plan(size, tuple(inputs), outputs, request.timeout_ms, request.binary)
