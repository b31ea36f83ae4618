"""Run and verify bundles without TensorFlow.

The names below are imported when they are first used, so that importing this package is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stnkit.runtime.backends import available
    from stnkit.runtime.bundle import Bundle, open_bundle
    from stnkit.runtime.compare import Comparison, Tolerance
    from stnkit.runtime.errors import (
        BackendError,
        BackendMissingError,
        BundleError,
        DeviceError,
        ExportError,
        InputError,
        MismatchError,
        OutOfMemoryError,
        StnkitError,
    )
    from stnkit.runtime.explanation import Explanation
    from stnkit.runtime.golden import GoldenCase
    from stnkit.runtime.images import Prediction
    from stnkit.runtime.manifest import Manifest
    from stnkit.runtime.model_file import FileSummary, summarize
    from stnkit.runtime.preprocess import load_image, save_warp
    from stnkit.runtime.session import Session, load
    from stnkit.runtime.timing import ArtifactTiming, TimingReport, time_bundle
    from stnkit.runtime.verification import (
        ArtifactReport,
        VerificationReport,
        raise_on_mismatch,
        verify,
    )

__all__ = [
    "ArtifactReport",
    "ArtifactTiming",
    "BackendError",
    "BackendMissingError",
    "Bundle",
    "BundleError",
    "Comparison",
    "DeviceError",
    "Explanation",
    "ExportError",
    "FileSummary",
    "GoldenCase",
    "InputError",
    "Manifest",
    "MismatchError",
    "OutOfMemoryError",
    "Prediction",
    "Session",
    "StnkitError",
    "TimingReport",
    "Tolerance",
    "VerificationReport",
    "available",
    "load",
    "load_image",
    "open_bundle",
    "raise_on_mismatch",
    "save_warp",
    "summarize",
    "time_bundle",
    "verify",
]

_HOMES = {
    "ArtifactReport": "verification",
    "ArtifactTiming": "timing",
    "BackendError": "errors",
    "BackendMissingError": "errors",
    "Bundle": "bundle",
    "BundleError": "errors",
    "Comparison": "compare",
    "DeviceError": "errors",
    "Explanation": "explanation",
    "ExportError": "errors",
    "FileSummary": "model_file",
    "GoldenCase": "golden",
    "InputError": "errors",
    "Manifest": "manifest",
    "MismatchError": "errors",
    "OutOfMemoryError": "errors",
    "Prediction": "images",
    "Session": "session",
    "StnkitError": "errors",
    "TimingReport": "timing",
    "Tolerance": "compare",
    "VerificationReport": "verification",
    "available": "backends",
    "load": "session",
    "load_image": "preprocess",
    "open_bundle": "bundle",
    "raise_on_mismatch": "verification",
    "save_warp": "preprocess",
    "summarize": "model_file",
    "time_bundle": "timing",
    "verify": "verification",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
