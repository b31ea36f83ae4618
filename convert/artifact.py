"""What an exporter returns: a file in memory, and where in it everything is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from stnkit.runtime.autotune_record import SamplerForm


@dataclass(frozen=True)
class ExportedArtifact:
    """A converted model that nobody has checked yet.

    Attributes:
        format: "tflite" or "onnx".
        content: The bytes of the file.
        inputs: Tensor in the file of every input, by its name in the signature.
        outputs: The same for outputs.
        taps: The same for taps, by tap name.
        opset: ONNX opset, None for TFLite.
        batch: Fixed batch size, or None for a dynamic batch.
        sampler: How its samplers are written: the op, or "gather".
    """

    format: Literal["tflite", "onnx"]
    content: bytes = field(repr=False)
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    taps: Mapping[str, str]
    opset: int | None
    batch: int | None
    sampler: SamplerForm = "gather"
