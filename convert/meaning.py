"""What a model's input and output mean to its user: pixels in, classes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        inputs: The inputs; one float image of fixed size is what an image file can fill.
        value_range: Values that black and white have before `mean` and `std`.
        mean: Subtracted, a number a channel, in the units of `value_range`.
        std: Divided by, a number a channel, in the same units.

    Raises:
        InputError: If the numbers do not fit the channels, or were given for another model.
    """
    if not inputs:
        raise InputError("the model has no inputs: there is nothing to feed an artifact with")
    spec = inputs[0]
    sizes = [size for size in spec.shape[1:] if isinstance(size, int)]
    fits = (
        len(inputs) == 1
        and spec.dtype == "float32"
        and len(spec.shape) == 4
        and len(sizes) == 3
        and sizes[2] in _CHANNELS
    )
    if not fits:
        if mean or std:
            raise InputError(
                "--mean and --std need a model with one float32 image of fixed size as its input; "
                f"this one takes {[(s.name, s.shape) for s in inputs]}"
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
    cases: Sequence[Mapping[str, Any]],
) -> Classes | None:
    """Return what a classifier's output means, or None for another kind of model.

    Without labels, an output [batch, classes] is that of a classifier if its rows are probabilities
    on every probe: a row of other numbers may be anything. With labels, the user says so, and it is
    the first output of as many classes.

    Args:
        outputs: The outputs.
        labels: Names of the classes in order; None takes "0", "1", …
        cases: The source's outputs on every probe.

    Raises:
        InputError: If there are labels and no output of as many classes.
    """
    rows = [spec for spec in outputs if len(spec.shape) == 2 and spec.dtype == "float32"]
    found: list[tuple[TensorSpec, int, bool]] = []
    for spec in rows:
        count = spec.shape[1]
        if isinstance(count, int) and count >= 2:
            scores = np.concatenate([np.asarray(case[spec.name], np.float64) for case in cases])
            likely = scores.min() >= 0 and np.allclose(scores.sum(axis=1), 1, atol=1e-3)
            found.append((spec, count, bool(likely)))
    if labels:
        fitting = [entry for entry in found if entry[1] == len(labels)]
        if not fitting:
            sizes = ", ".join(f"{spec.name!r} has {count}" for spec, count, _ in found)
            raise InputError(
                f"--labels has {len(labels)} names; "
                + (f"the output {sizes}" if found else "no output has the shape [batch, classes]")
            )
    else:
        fitting = [entry for entry in found if entry[2]]
        if not fitting:
            return None
    # Where several fit, probabilities are the likelier scores.
    spec, count, likely = max(fitting, key=lambda entry: entry[2])
    names = tuple(labels) if labels else tuple(str(index) for index in range(count))
    kind: Literal["probabilities", "logits"] = "probabilities" if likely else "logits"
    return Classes(output=spec.name, labels=names, scores=kind)


def assumptions(
    preprocessing: Preprocessing | None, classes: Classes | None, layer_types: frozenset[str]
) -> tuple[str, ...]:
    """Return sentences on what `stnkit run` will take for granted, for the user to check.

    Args:
        preprocessing: How image files enter.
        classes: What the scores are.
        layer_types: Names of the classes of the model's layers.
    """
    if preprocessing is None:
        return ()
    low, high = model_range(preprocessing)
    text = f"image files enter the model as values from {low:g} to {high:g} (--input-range)"
    if "Rescaling" in layer_types and high <= 1:
        text += "; the model has a Rescaling layer of its own: is it 0 255 that it expects?"
    found = [text]
    if classes is None:
        found.append("`stnkit run` needs class names for this model: convert it with --labels FILE")
    return tuple(found)
