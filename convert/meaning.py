"""What a model's input and output mean to its user: pixels in, classes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from stnkit.runtime.errors import InputError
from stnkit.runtime.manifest import Classes, Preprocessing, TensorSpec

_CHANNELS = (1, 3, 4)


def image_preprocessing(
    inputs: tuple[TensorSpec, ...],
    value_range: tuple[float, float],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Preprocessing | None:
    """Return how an image file becomes the model's input, or None for models not made for that.

    Args:
        inputs: The inputs; one image of fixed size is what an image file can fill.
        value_range: Values that black and white have before `mean` and `std`.
        mean: Subtracted, a number a channel, in the units of `value_range`.
        std: Divided by, a number a channel, in the same units.

    Raises:
        InputError: If the numbers do not fit the channels, or were given for another model.
    """
    spec = inputs[0]
    sizes = [size for size in spec.shape[1:] if isinstance(size, int)]
    fits = len(inputs) == 1 and len(spec.shape) == 4 and len(sizes) == 3 and sizes[2] in _CHANNELS
    if not fits:
        if mean or std:
            raise InputError(
                "--mean and --std need a model with one input [batch, height, width, channels] of "
                f"fixed size; this one takes {[(s.name, s.shape) for s in inputs]}"
            )
        return None
    height, width, channels = sizes
    for option, values in (("--mean", mean), ("--std", std)):
        if values is not None and len(values) != channels:
            raise InputError(
                f"{option} has {len(values)} numbers: expected one a channel, {channels}"
            )
    if std is not None and min(std) <= 0:
        raise InputError(f"--std is {tuple(std)}: expected positive numbers")
    low, high = value_range
    offset = [-low + (mean[i] if mean else 0.0) for i in range(channels)]
    return Preprocessing(
        input=spec.name,
        size=(height, width),
        channels=channels,
        scale=(high - low) / 255,
        mean=tuple(offset) if any(offset) else None,
        std=tuple(std) if std else None,
    )


def model_range(preprocessing: Preprocessing | None) -> tuple[float, float]:
    """Return the smallest and largest value that the model's image input takes."""
    if preprocessing is None:
        return 0.0, 1.0
    channels = preprocessing.channels
    mean = np.asarray(preprocessing.mean or (0.0,) * channels)
    std = np.asarray(preprocessing.std or (1.0,) * channels)
    ends = np.stack([(0 - mean) / std, (255 * preprocessing.scale - mean) / std])
    return float(ends.min()), float(ends.max())


def class_labels(
    outputs: tuple[TensorSpec, ...],
    labels: Sequence[str] | None,
    values: dict[str, Any],
) -> Classes | None:
    """Return what a classifier's output means, or None for another kind of model.

    Args:
        outputs: The outputs; the first of shape [batch, classes] holds the scores.
        labels: Names of the classes in order; None takes "0", "1", …
        values: The source's outputs on a probe, to tell probabilities from logits.

    Raises:
        InputError: If the number of labels is not that of the classes, or there are no classes.
    """
    for spec in outputs:
        count = spec.shape[1] if len(spec.shape) == 2 else None
        if isinstance(count, int) and count >= 2 and spec.dtype.startswith("float"):
            break
    else:
        if labels:
            raise InputError(
                "--labels was given, but no output has the shape [batch, classes]: "
                f"{[(s.name, s.shape) for s in outputs]}"
            )
        return None
    if labels and len(labels) != count:
        raise InputError(f"--labels has {len(labels)} names; the output {spec.name!r} has {count}")
    names = tuple(labels) if labels else tuple(str(index) for index in range(count))
    scores = np.asarray(values[spec.name], np.float64)
    sums = scores.sum(axis=1)
    likely = scores.min() >= 0 and np.allclose(sums, 1, atol=1e-3)
    kind: Literal["probabilities", "logits"] = "probabilities" if likely else "logits"
    return Classes(output=spec.name, labels=names, scores=kind)
