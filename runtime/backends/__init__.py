"""The backends that run artifacts: LiteRT for TFLite, ONNX Runtime for ONNX."""

from stnkit.runtime.backends.registry import (
    BACKENDS,
    BackendInfo,
    CudaSettings,
    Runner,
    RunnerFacts,
    TensorNames,
    available,
    backend_for,
    open_runner,
)

__all__ = [
    "BACKENDS",
    "BackendInfo",
    "CudaSettings",
    "Runner",
    "RunnerFacts",
    "TensorNames",
    "available",
    "backend_for",
    "open_runner",
]
