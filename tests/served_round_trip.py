"""Serve a bundle, and hold what Triton's clients get against what a session answers."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stnkit.runtime import load, open_bundle
from stnkit.runtime.serving import BundleSource, ModelOptions, ServingCore
from stnkit.runtime.serving.datatypes import DATATYPES
from stnkit.runtime.timing.inputs import inputs_for

ATOL = RTOL = 1e-5  # the same kernels, on as many items


def served_round_trip(path: Path) -> None:
    """Ask over HTTP with tensors as bytes and as JSON, and over gRPC.

    Args:
        path: the bundle.
    """
    bundle = open_bundle(path)
    (batch,) = {artifact.batch for artifact in bundle.manifest.artifacts}
    count = batch if isinstance(batch, int) else 2
    options = ModelOptions(device="cpu", threads=1, instances=1, max_batch=count)
    core = ServingCore([BundleSource(path, "served")], options)
    core.open()
    try:
        model = core.repository.get("served")
        inputs = dict(inputs_for(bundle.manifest.signature, bundle.golden(), count).arrays)
        artifact = model.config()["default_model_filename"]
        with load(bundle, artifact=artifact, device="cpu", threads=1) as session:
            expected = dict(session.run(inputs))
        with _http(core) as port:
            for binary in (True, False):
                _same(_ask_http(port, inputs, list(expected), binary), expected)
        with _grpc(core) as port:
            _same(_ask_grpc(port, inputs), expected)
    finally:
        core.close(10)


def _same(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert found[name].shape == value.shape, name
        np.testing.assert_allclose(found[name], value, rtol=RTOL, atol=ATOL, err_msg=name)


@contextlib.contextmanager
def _http(core: ServingCore) -> Iterator[int]:
    import uvicorn

    from stnkit.runtime.serving.http.app import ServingApp
    from stnkit.runtime.serving.http.bounded_protocol import bounded

    config = uvicorn.Config(
        ServingApp(core), http=bounded(core.limits), ws="none", lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(30)


def _ask_http(
    port: int, inputs: Mapping[str, Any], outputs: list[str], binary: bool
) -> dict[str, Any]:
    import tritonclient.http as triton

    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        assert {it["name"] for it in client.get_model_metadata("served")["inputs"]} == set(inputs)
        tensors = []
        for name, value in inputs.items():
            tensors.append(triton.InferInput(name, list(value.shape), DATATYPES[str(value.dtype)]))
            tensors[-1].set_data_from_numpy(value, binary_data=binary)
        wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in outputs]
        result = client.infer("served", tensors, outputs=wanted, request_id="1")
        assert result.get_response()["id"] == "1"
        return {it["name"]: result.as_numpy(it["name"]) for it in result.get_response()["outputs"]}


@contextlib.contextmanager
def _grpc(core: ServingCore) -> Iterator[int]:
    from stnkit.runtime.serving.grpc_v2 import GrpcServer

    server = GrpcServer(core)
    port = server.start("127.0.0.1", 0)
    try:
        yield port
    finally:
        server.stop(5)


def _ask_grpc(port: int, inputs: Mapping[str, Any]) -> dict[str, Any]:
    import tritonclient.grpc as triton

    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        tensors = []
        for name, value in inputs.items():
            tensors.append(triton.InferInput(name, list(value.shape), DATATYPES[str(value.dtype)]))
            tensors[-1].set_data_from_numpy(value)
        result = client.infer("served", tensors, request_id="1")
        assert result.get_response().id == "1"
        return {it.name: result.as_numpy(it.name) for it in result.get_response().outputs}
