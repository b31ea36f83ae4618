"""`SourceModel`: what conversion knows of a model, independent of how it was saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from stnkit.convert.source.keras_signature import keras_callable
from stnkit.runtime.errors import InputError
from stnkit.runtime.manifest import Source, TensorSpec
from stnkit.runtime.signature import BATCH, DTYPES

Kind = Literal["keras", "h5", "saved_model", "function"]
Call = Callable[[Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class SourceModel:
    """A loaded model.

    Attributes:
        name: The model's name.
        origin: File, kind and hash, for the manifest.
        inputs: Name, dtype and shape of every input; axis 0 is the dimension "batch".
        outputs: The same of every output.
        call: Computes outputs from inputs, dictionaries of tensors by name, in inference mode.
            Can be traced by `tf.function`.
        layers: Names of the Keras layers inside, where they are known.
        owner: The object that holds the variables; kept, so that they outlive this call.
    """

    name: str
    origin: Source
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    call: Call
    layers: frozenset[str] = frozenset()
    owner: Any = field(default=None, repr=False, compare=False)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the model computes, as the library it was made with computes it.

        Args:
            inputs: NumPy array for every input, by name.

        Returns:
            NumPy array for every output, by name.
        """
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        return {name: np.asarray(value) for name, value in self.call(tensors).items()}


def describe(
    call: Call, inputs: list[tuple[str, tuple[int | None, ...], str]]
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the specs of a callable's inputs and outputs, found by tracing it once.

    Args:
        call: As `SourceModel.call`.
        inputs: Name, shape (None where unknown) and dtype of each input, batch first.

    Raises:
        InputError: If an input has no batch axis, or a tensor has a dtype that no target takes.
    """
    placeholders = {
        name: tf.TensorSpec((None, *shape[1:]), dtype, name=f"in_{index}")
        for index, (name, shape, dtype) in enumerate(inputs)
    }
    graph = tf.function(lambda tensors: call(tensors)).get_concrete_function(placeholders)
    outputs = graph.structured_outputs
    specs_in = tuple(_spec(name, shape, dtype) for name, shape, dtype in inputs)
    specs_out = tuple(
        _spec(name, tuple(tensor.shape.as_list()), tensor.dtype.name)
        for name, tensor in outputs.items()
    )
    return specs_in, specs_out


def _spec(name: str, shape: tuple[int | None, ...], dtype: str) -> TensorSpec:
    if not shape:
        raise InputError(f"{name!r} is a scalar: inputs and outputs need a batch dimension first")
    if dtype not in DTYPES:
        raise InputError(f"{name!r} has dtype {dtype}: a bundle carries {', '.join(DTYPES)}")
    named = tuple(
        BATCH if axis == 0 else (f"dim_{axis}" if size is None else size)
        for axis, size in enumerate(shape)
    )
    return TensorSpec(name, dtype, named, layout="NHWC" if len(shape) == 4 else None)


def source_from_keras(
    model: Any, *, name: str | None = None, origin: Source | None = None
) -> SourceModel:
    """Return the source for a Keras model in memory.

    Args:
        model: A built `keras.Model`: Sequential, functional or subclassed.
        name: Name of the source; that of the model if None.
        origin: Where it was loaded from, if it was.

    Raises:
        InputError: If the model was never built, or cannot be called on its own inputs.
    """
    if not isinstance(model, keras.Model):
        raise InputError(f"{type(model).__name__} is not a Keras model: expected a keras.Model")
    call, inputs = keras_callable(model)
    specs_in, specs_out = describe(call, inputs)
    label = name or model.name
    return SourceModel(
        name=label,
        origin=origin or Source(file=label, kind="function"),
        inputs=specs_in,
        outputs=specs_out,
        call=call,
        layers=frozenset(layer.name for layer in _all_layers(model)),
        owner=model,
    )


def _all_layers(model: Any) -> list[Any]:
    """Return every layer below `model`, also those inside of custom layers."""
    found: list[Any] = []
    waiting = [model]
    seen: set[int] = set()
    while waiting:
        layer = waiting.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        found.append(layer)
        waiting.extend(getattr(layer, "layers", []) or [])
        waiting.extend(v for v in vars(layer).values() if isinstance(v, keras.layers.Layer))
    return found
