"""What a user can ask of a conversion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from stnkit.runtime.errors import InputError

Format = Literal["tflite", "onnx"]
FORMATS: tuple[Format, ...] = ("tflite", "onnx")
OPSETS = (16, 17, 18, 19, 20, 21, 22)
"""Opsets that can be written: 16 brought GridSample; ONNX Runtime 1.21 was the first to read 22."""
DEFORM_CONV_OPSET = 19
"""The first opset that has DeformConv, which ONNX Runtime has since 1.25."""

Sampler = Literal["auto", "gather", "grid-sample", "deform-conv"]
SAMPLERS: tuple[Sampler, ...] = ("auto", "gather", "grid-sample", "deform-conv")

TOLERANCE_KINDS = ("outputs", "theta", "warped")


@dataclass(frozen=True)
class ConversionOptions:
    """What to make of a model.

    Attributes:
        formats: Formats to write, in the order of preference at run time.
        opset: ONNX opset, one of `OPSETS`.
        sampler: How samplers are written in ONNX: "auto" is DeformConv where it can stand for one,
            else GridSample, else gathers; "deform-conv" and "grid-sample" refuse a model where that
            op cannot. TFLite has gathers alone.
        autotune: Whether every form that "auto" could write is proven and timed, and the fastest
            one kept; see `stnkit.convert.tuning`.
        batch: Fixed batch size >= 1, or None for a dynamic batch.
        name: Name of the bundle; None takes that of the output folder.
        labels: Names of the classes, in order, each once.
        value_range: Values of black and white in the model's image input, before mean and std.
        mean: Subtracted from the image, a number a channel.
        std: Divided by, a number a channel.
        samples: Folder of labelled images, to count classes that stay the same.
        atol: Largest absolute difference allowed, by kind ("outputs", "theta", "warped"), in place
            of the default.
        threads: Threads of one run in the proof; None leaves it to the backend.

    Raises:
        InputError: If a value is none of those.
    """

    formats: tuple[Format, ...] = FORMATS
    opset: int = DEFORM_CONV_OPSET
    sampler: Sampler = "auto"
    autotune: bool = False
    batch: int | None = None
    name: str | None = None
    labels: tuple[str, ...] | None = None
    value_range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    samples: Path | None = None
    atol: Mapping[str, float] = field(default_factory=dict)
    threads: int | None = None

    def __post_init__(self) -> None:
        if not self.formats or not set(self.formats) <= set(FORMATS):
            raise InputError(f"formats are {self.formats}: expected some of {', '.join(FORMATS)}")
        if self.opset not in OPSETS:
            raise InputError(f"opset is {self.opset}: expected one of {OPSETS}")
        if self.sampler not in SAMPLERS:
            raise InputError(f"sampler is {self.sampler!r}: expected one of {', '.join(SAMPLERS)}")
        if self.sampler == "deform-conv" and self.opset < DEFORM_CONV_OPSET:
            raise InputError(
                f"--sampler deform-conv takes --opset {DEFORM_CONV_OPSET} or more, as DeformConv "
                f"does; the opset is {self.opset}"
            )
        if self.autotune and self.sampler != "auto":
            raise InputError(
                f"--autotune chooses the form of the samplers and --sampler {self.sampler} fixes "
                "it: give one of the two"
            )
        if self.batch is not None and self.batch < 1:
            raise InputError(f"batch is {self.batch}: expected at least 1, or None for any")
        low, high = self.value_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InputError(f"value_range is {self.value_range}: expected (lower, higher)")
        for kind, value in self.atol.items():
            if kind not in TOLERANCE_KINDS or not (math.isfinite(value) and value >= 0):
                raise InputError(
                    f"atol is {kind}={value}: expected a number >= 0 for one of "
                    f"{', '.join(TOLERANCE_KINDS)}"
                )
        _check_labels(self.labels)


def _check_labels(labels: tuple[str, ...] | None) -> None:
    if labels is None:
        return
    for number, label in enumerate(labels, start=1):
        if not label.strip() or not label.isprintable() or len(label) > 512:
            raise InputError(f"label {number} is {label!r}: expected 1 to 512 printable characters")
    twice = {label for label in labels if labels.count(label) > 1} if len(labels) < 5000 else set()
    if twice or len(set(labels)) != len(labels):
        shown = f" ({sorted(twice)[0]!r})" if twice else ""
        raise InputError(f"a label stands twice in the list{shown}: expected every class once")
