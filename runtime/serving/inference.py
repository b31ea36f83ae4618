"""The request and the answer of one inference, whichever protocol they came by.

Source: Open Inference Protocol (KServe V2), "Inference Request/Response".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["InferRequest", "InferResponse", "OutputTensor", "RequestedOutput"]


@dataclass(slots=True)
class RequestedOutput:
    """One output that a client asks for.

    Attributes:
        name: the output's name.
        classes: 0 for the tensor itself; N > 0 for its N largest entries, as the classification
            extension has them: `score:index:label`.
        binary: HTTP only: whether the tensor comes as bytes behind the JSON.
    """

    name: str
    classes: int = 0
    binary: bool = False


@dataclass(slots=True)
class InferRequest:
    """What a client asks.

    Attributes:
        model: name of the model.
        version: its version; "" for the newest one.
        inputs: input name -> array of the declared datatype and shape, not yet held against the
            model's signature; arrays may be read-only views of the request's bytes.
        outputs: what is asked for, in this order; none for every output.
        id: the client's own name of the request, echoed.
        timeout_ms: time that the client gives, > 0; None for the server's own. The shorter of the
            two counts.
        binary: HTTP only: whether outputs that nobody named come as bytes behind the JSON.
        carrier: what the client sent to name its own span; only where requests are traced.
    """

    model: str
    version: str
    inputs: dict[str, npt.NDArray[Any]]
    outputs: list[RequestedOutput] = field(default_factory=list)
    id: str = ""
    timeout_ms: float | None = None
    binary: bool = False
    carrier: Mapping[str, str] | None = None


@dataclass(slots=True)
class OutputTensor:
    """One tensor of an answer.

    Attributes:
        name: the output's name.
        datatype: the protocol's name of its element type, e.g. `"FP32"`; `"BYTES"` for classes.
        array: the values; for `"BYTES"` an object array of bytes.
        binary: HTTP only: whether it goes as bytes behind the JSON.
    """

    name: str
    datatype: str
    array: npt.NDArray[Any]
    binary: bool = False


@dataclass(slots=True)
class InferResponse:
    """What a client gets.

    Attributes:
        model: name of the model.
        version: the version that answered.
        id: as in the request.
        outputs: the tensors, in the order asked.
    """

    model: str
    version: str
    id: str
    outputs: list[OutputTensor]
