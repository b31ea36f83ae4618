"""Serve an ONNX file with PyTriton: python pytriton_server.py SETTINGS, a JSON object.

Its keys: onnx, model, http_port, grpc_port, metrics_port, threads, batching, max_batch, delay_us.
Runs in an environment that has nvidia-pytriton and onnxruntime, and nothing of stnkit.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime as ort
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig, TritonSecurityConfig

DTYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int32)": np.int32}


def main() -> None:
    """Serve until a signal comes."""
    settings = json.loads(sys.argv[1])
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings["threads"]
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(settings["onnx"], options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def tensors(found):
        first = 1 if settings["batching"] else 0
        shapes = [[-1 if isinstance(n, str) else n for n in it.shape[first:]] for it in found]
        return [
            Tensor(name=it.name, dtype=DTYPES[it.type], shape=tuple(shape))
            for it, shape in zip(found, shapes, strict=True)
        ]

    def run(**inputs):
        return dict(zip(names, session.run(names, inputs), strict=True))

    def run_each(requests):
        return [run(**request.data) for request in requests]

    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=settings["http_port"],
        grpc_address="127.0.0.1",
        grpc_port=settings["grpc_port"],
        metrics_port=settings["metrics_port"],
        allow_metrics=False,
    )
    # Without it load generators may not read the model's statistics.
    security = TritonSecurityConfig(restricted_endpoints=[])
    with Triton(config=config, security_config=security) as triton:
        triton.bind(
            model_name=settings["model"],
            infer_func=batch(run) if settings["batching"] else run_each,
            inputs=tensors(session.get_inputs()),
            outputs=tensors(session.get_outputs()),
            config=ModelConfig(
                batching=settings["batching"],
                max_batch_size=settings["max_batch"],
                batcher=DynamicBatcher(max_queue_delay_microseconds=settings["delay_us"]),
            ),
        )
        triton.serve()


if __name__ == "__main__":  # the processes that it starts import this module again
    main()
