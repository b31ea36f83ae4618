"""Define what a server answers where it does not answer with tensors.

```
ServingError                 HTTP  gRPC
├── InvalidRequestError      400   INVALID_ARGUMENT     the request is wrong, whoever gets it
├── UnauthenticatedError     401   UNAUTHENTICATED      a management route without its token
├── NotFoundError            404   NOT_FOUND            no such model, version or route
├── TooLargeError            413   RESOURCE_EXHAUSTED   over a limit of the server
├── UnsupportedError         415   UNIMPLEMENTED        a part of the protocol that is not served
├── OverloadedError          503   UNAVAILABLE          the queue is full: try again later
├── NotReadyError            503   UNAVAILABLE          the model is not loaded, or the server ends
├── DeadlineError            503   DEADLINE_EXCEEDED    the request's time was over
└── InferenceError           500   INTERNAL             the backend failed
```

A message goes to the client: it speaks of the request, never of paths, addresses or code.
"""

from __future__ import annotations

from typing import ClassVar

from stnkit.runtime.errors import StnkitError

__all__ = [
    "DeadlineError",
    "InferenceError",
    "InvalidRequestError",
    "NotFoundError",
    "NotReadyError",
    "OverloadedError",
    "ServingError",
    "TooLargeError",
    "UnauthenticatedError",
    "UnsupportedError",
]


class ServingError(StnkitError):
    """Base of what a client is told in place of an answer.

    Attributes:
        status: the HTTP status.
        grpc_code: name of the gRPC status.
        retry_after_s: seconds after which a client may try again, for HTTP's `Retry-After`.
    """

    status: ClassVar[int] = 500
    grpc_code: ClassVar[str] = "INTERNAL"
    retry_after_s: int | None = None


class InvalidRequestError(ServingError):
    """The request is wrong."""

    status = 400
    grpc_code = "INVALID_ARGUMENT"


class UnauthenticatedError(ServingError):
    """A management route was asked for without its token."""

    status = 401
    grpc_code = "UNAUTHENTICATED"


class NotFoundError(ServingError):
    """There is no such model, version or route."""

    status = 404
    grpc_code = "NOT_FOUND"


class TooLargeError(ServingError):
    """The request is over a limit of the server."""

    status = 413
    grpc_code = "RESOURCE_EXHAUSTED"


class UnsupportedError(ServingError):
    """The request needs a part of the protocol, or a kind of content, that is not served."""

    status = 415
    grpc_code = "UNIMPLEMENTED"


class OverloadedError(ServingError):
    """The model has as many requests waiting as it may, or more than the deadline allows.

    Args:
        message: the whole line.
        retry_after_s: seconds after which there may be room, >= 1.
    """

    status = 503
    grpc_code = "UNAVAILABLE"

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotReadyError(ServingError):
    """The model is not loaded, or the server is about to end."""

    status = 503
    grpc_code = "UNAVAILABLE"
    retry_after_s = 1


class DeadlineError(ServingError):
    """The time that the request was given is over."""

    status = 503
    grpc_code = "DEADLINE_EXCEEDED"
    retry_after_s = 1


class InferenceError(ServingError):
    """The backend failed on the batch that held the request."""
