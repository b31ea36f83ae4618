"""Answer the calls that have one request and one answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc

from stnkit.runtime.serving.errors import NotFoundError, UnsupportedError
from stnkit.runtime.serving.grpc_v2.answers import infer_answer
from stnkit.runtime.serving.grpc_v2.calls import (
    Receiver,
    abort,
    carrier_of,
    shorter_timeout_ms,
)
from stnkit.runtime.serving.grpc_v2.contract import Core
from stnkit.runtime.serving.grpc_v2.messages import (
    HEALTH_SERVICE,
    INFERENCE_SERVICE,
    METHODS,
    message_class,
    message_of,
)
from stnkit.runtime.serving.grpc_v2.requests import parse, parse_infer, to_request

__all__ = ["Service"]

_Answer = Callable[[Any, Any], Any]


class Service:
    """The calls with one request and one answer.

    Args:
        core: answers them.
        receiver: receives their messages.
    """

    def __init__(self, core: Core, receiver: Receiver) -> None:
        self._core = core
        self._receiver = receiver

    def handlers(self) -> dict[str, dict[str, Any]]:
        """Return service -> method -> handler."""
        inference: Mapping[str, _Answer] = {
            "ServerLive": lambda request, context: {"live": self._core.live()},
            "ServerReady": lambda request, context: {"ready": self._core.ready()},
            "ModelReady": self._model_ready,
            "ServerMetadata": lambda request, context: self._core.server_metadata(),
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": self._repository_index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }
        handlers = {name: self._unary(name, answer) for name, answer in inference.items()}
        # All calls are streams here, for a handler of single calls is entered with the message
        # read, however long that takes.
        handlers["ModelInfer"] = grpc.stream_unary_rpc_method_handler(self._infer)
        return {
            INFERENCE_SERVICE: handlers,
            HEALTH_SERVICE: {"Check": self._unary("Check", self._check, HEALTH_SERVICE)},
        }

    async def _infer(self, _requests: Any, context: Any) -> bytes:
        receiver, core = self._receiver, self._core
        data = b""
        try:
            data = await receiver.receive(context)
            message, raw = parse_infer(data, core.limits)
            request = to_request(message, raw, core.limits)
            request.timeout_ms = shorter_timeout_ms(context, request.timeout_ms)
            if core.traced:
                request.carrier = carrier_of(context)
            return infer_answer(await core.infer(request))
        except Exception as exc:
            await abort(context, exc, "ModelInfer")
            raise
        finally:
            receiver.release(data)

    def _unary(self, method: str, answer: _Answer, service: str = INFERENCE_SERVICE) -> Any:
        request_name, answer_name = METHODS[service][method]
        request_class = message_class(request_name)

        async def call(_requests: Any, context: Any) -> bytes:
            data = b""
            try:
                data = await self._receiver.receive(context)
                fields = answer(parse(request_class, data, self._core.limits), context)
                if isinstance(fields, Awaitable):
                    fields = await fields
                encoded: bytes = message_of(answer_name, fields).SerializeToString()
            except Exception as exc:
                await abort(context, exc, method)
                raise
            finally:
                self._receiver.release(data)
            return encoded

        return grpc.stream_unary_rpc_method_handler(call)

    def _model_ready(self, request: Any, _context: Any) -> dict[str, Any]:
        return {"ready": self._core.model_ready(request.name, request.version)}

    def _model_metadata(self, request: Any, _context: Any) -> dict[str, Any]:
        return self._core.model_metadata(request.name, request.version)

    def _model_config(self, request: Any, _context: Any) -> dict[str, Any]:
        return {"config": self._core.model_config(request.name, request.version)}

    def _model_statistics(self, request: Any, _context: Any) -> dict[str, Any]:
        return self._core.statistics(request.name, request.version)

    def _repository_index(self, request: Any, context: Any) -> dict[str, Any]:
        self._check_management(request, context)
        return {"models": self._core.repository_index(request.ready)}

    async def _load(self, request: Any, context: Any) -> dict[str, Any]:
        self._check_management(request, context)
        for name in request.parameters:
            raise UnsupportedError(
                f"a model is not loaded with the parameter {name[:40]!r}: expected none, what is "
                "served lies in the model's own bundle"
            )
        await self._core.load(request.model_name)
        return {}

    async def _unload(self, request: Any, context: Any) -> dict[str, Any]:
        # `unload_dependents`, which clients always send, speaks of ensembles: there are none.
        self._check_management(request, context)
        await self._core.unload(request.model_name)
        return {}

    def _check_management(self, request: Any, context: Any) -> None:
        sent = [value for key, value in context.invocation_metadata() if key == "authorization"]
        self._core.check_management(str(sent[0]) if sent else None)
        if request.repository_name:
            raise UnsupportedError(
                f"there is no repository {request.repository_name[:40]!r}: expected no "
                "repository_name, there is one alone"
            )

    def _check(self, request: Any, _context: Any) -> dict[str, Any]:
        return {"status": self.health(request.service)}

    def health(self, service: str) -> str:
        """Return what gRPC's health service says.

        Args:
            service: name of a service; "" for the server.

        Raises:
            NotFoundError: no such service.
        """
        if service not in ("", INFERENCE_SERVICE):
            raise NotFoundError(
                f"there is no service {service[:60]!r}: expected {INFERENCE_SERVICE!r} or none"
            )
        return "SERVING" if self._core.ready() else "NOT_SERVING"
