"""A core without models, and servers of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from stnkit.runtime.serving.errors import (
    DeadlineError,
    InferenceError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    UnauthenticatedError,
)
from stnkit.runtime.serving.grpc_v2 import GrpcServer
from stnkit.runtime.serving.inference import InferRequest, InferResponse, OutputTensor
from stnkit.runtime.serving.limits import Limits

LIMITS = Limits(
    body_bytes_max=2**20, bodies_bytes_max=4 * 2**20, tensors_max=8, receive_timeout_s=1.0
)
TOKEN = "Bearer open sesame"


class FakeCore:
    """Answers with the sum and the shape of each input; models' names say what goes wrong."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self.traced = False
        self.requests: list[InferRequest] = []
        self.cancelled = 0
        self.is_ready = True
        self.managed: list[str] = []
        self.hold_s = 30.0

    async def infer(self, request: InferRequest) -> InferResponse:
        self.requests.append(request)
        match request.model:
            case "unknown":
                raise NotFoundError("there is no model 'unknown'")
            case "full":
                raise OverloadedError("8 requests wait: expected at most 8", 3)
            case "broken":
                raise InferenceError("the model failed")
            case "bug":
                raise RuntimeError("secret: /home/somebody/key.pem")
            case "late":
                raise DeadlineError("the request's time was over")
            case "slow":
                try:
                    await asyncio.sleep(self.hold_s)
                except asyncio.CancelledError:
                    self.cancelled += 1
                    raise
        outputs = []
        for name, array in request.inputs.items():
            total = np.array([array.astype(np.float64).sum()], np.float32)
            outputs.append(OutputTensor(f"{name}_sum", "FP32", total))
            outputs.append(OutputTensor(f"{name}_echo", "FP32", array.astype(np.float32)))
        for wanted in request.outputs:
            if wanted.classes:
                labels = np.array([[b"0.9:1:one", b"0.1:0"]], object)
                outputs = [OutputTensor(wanted.name, "BYTES", labels)]
            elif wanted.name not in {output.name for output in outputs}:
                raise InvalidRequestError(f"there is no output {wanted.name!r}")
        return InferResponse(request.model, request.version or "1", request.id, outputs)

    def live(self) -> bool:
        return True

    def ready(self) -> bool:
        return self.is_ready

    def model_ready(self, name: str, version: str = "") -> bool:
        if name == "unknown":
            raise NotFoundError("there is no model 'unknown'")
        return self.is_ready

    def server_metadata(self) -> dict[str, Any]:
        return {"name": "stnkit", "version": "1", "extensions": ["classification"]}

    def model_metadata(self, name: str, version: str = "") -> dict[str, Any]:
        tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
        return {
            "name": name,
            "versions": ["1", "2"],
            "platform": "onnxruntime_onnx",
            "inputs": [tensor],
            "outputs": [{**tensor, "name": "x_sum"}],
        }

    def model_config(self, name: str, version: str = "") -> dict[str, Any]:
        return {
            "name": name,
            "backend": "onnxruntime",
            "max_batch_size": 8,
            "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}],
            "dynamic_batching": {"preferred_batch_size": [1, 8]},
            "instance_group": [{"name": name, "kind": "KIND_CPU", "count": 2}],
            "parameters": {"a": {"string_value": "b"}},
            "unheard_of": 1,
        }

    def statistics(self, name: str = "", version: str = "") -> dict[str, Any]:
        success = {"count": 3, "ns": 2**40}
        entry = {"name": name or "every", "version": "1", "inference_stats": {"success": success}}
        return {"model_stats": [entry]}

    def check_management(self, authorization: str | None) -> None:
        if authorization != TOKEN:
            raise UnauthenticatedError("managing models takes the server's token")

    def repository_index(self, ready_only: bool = False) -> list[dict[str, Any]]:
        models = [{"name": "a", "version": "1", "state": "READY", "reason": ""}]
        return models if ready_only else [*models, {"name": "b", "state": "UNAVAILABLE"}]

    async def load(self, name: str) -> None:
        self.managed.append(f"load {name}")

    async def unload(self, name: str) -> None:
        self.managed.append(f"unload {name}")


@pytest.fixture
def fake_core() -> FakeCore:
    return FakeCore()


@pytest.fixture
def make_core() -> Callable[..., FakeCore]:
    return FakeCore


@pytest.fixture
def limits() -> Limits:
    return LIMITS


@pytest.fixture
def token() -> str:
    return TOKEN


@pytest.fixture
def serve_grpc() -> Iterator[Callable[..., str]]:
    """Return `serve_grpc(core, tls=None)`: the address at which it is served."""
    servers = []

    def serve(core: Any, **options: Any) -> str:
        server = GrpcServer(core)
        servers.append(server)
        return f"127.0.0.1:{server.start('127.0.0.1', 0, **options)}"

    yield serve
    for server in servers:
        server.stop(0.1)


@pytest.fixture
def address(serve_grpc: Callable[..., str], fake_core: FakeCore) -> str:
    """Return the address at which the fake core is served."""
    return serve_grpc(fake_core)


@pytest.fixture
def channel(address: str) -> Iterator[grpc.Channel]:
    """Return a channel to the fake core that sends whatever bytes it is given."""
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(address, options=options) as opened:
        yield opened
