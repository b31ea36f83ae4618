"""`SourceModel`: what conversion knows of a model, independent of how it was saved."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from stnkit.convert.dimensions import named_shape
from stnkit.convert.source.foreign_error import cause
from stnkit.convert.source.keras_layers import all_layers, scope_name, with_scope_names
from stnkit.convert.source.keras_signature import Inputs, keras_callable
from stnkit.runtime.errors import InputError, OutOfMemoryError, StnkitError
from stnkit.runtime.manifest import Source, TensorSpec
from stnkit.runtime.signature import BATCH, DTYPES, NAME_PATTERN

Kind = Literal["keras", "h5", "saved_model", "function"]
Call = Callable[[Mapping[str, Any]], dict[str, Any]]
Sizes = tuple[int | None, ...]

_BASE_NAME_MAX = 255


@dataclass(frozen=True)
class SourceModel:
    """A loaded model.

    Attributes:
        name: The model's name.
        origin: File, kind and hash, for the manifest.
        inputs: Name, dtype and shape of every input; axis 0 is the dimension "batch", or a size
            where the model itself was made for one batch.
        outputs: The same of every output.
        call: Computes outputs from inputs, dictionaries of tensors by name, in inference mode.
            Can be traced by `tf.function`.
        layers: Names under which the Keras layers inside stand in a graph, where they are known.
        layer_types: Names of the classes of those layers, e.g. "Rescaling".
        owner: The object that holds the variables; kept, so that they outlive this call.
    """

    name: str
    origin: Source
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    call: Call
    layers: frozenset[str] = frozenset()
    layer_types: frozenset[str] = frozenset()
    owner: Any = field(default=None, repr=False, compare=False)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the model computes, as the library it was made with computes it.

        Args:
            inputs: NumPy array for every input, by name.

        Returns:
            NumPy array for every output, by name.

        Raises:
            InputError: If the model fails on them.
            OutOfMemoryError: If it does for want of memory.
        """
        try:
            tensors = {name: tf.constant(value) for name, value in inputs.items()}
            return {name: np.asarray(value) for name, value in self.call(tensors).items()}
        except StnkitError:
            raise
        except Exception as exc:  # a model raises whatever its layers raise
            given = _listed([(name, np.shape(value)) for name, value in inputs.items()])
            if isinstance(exc, (MemoryError, tf.errors.ResourceExhaustedError)):
                raise OutOfMemoryError(
                    f"the model needs more memory than there is on {given} ({cause(exc)})"
                ) from exc
            opened = any(spec.shape[0] == BATCH for spec in self.inputs)
            advice = "; if it was made for one batch size, fix that: --batch N" if opened else ""
            raise InputError(f"the model failed on {given} ({cause(exc)}){advice}") from exc


def describe(call: Call, inputs: Inputs) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the specs of a callable's inputs and outputs, found by tracing it once.

    Args:
        call: As `SourceModel.call`.
        inputs: Name, shape (None where unknown) and dtype of each input, batch first.

    Raises:
        InputError: If there is no input or no output, if a tensor has no batch axis, no fixed rank
            or a dtype that no target takes, or if the model cannot be called on its own inputs.
    """
    if not inputs:
        raise InputError("the model takes no input: there is nothing to run it on")
    specs_in = tuple(_spec("input", *given) for given in inputs)
    placeholders = {
        name: tf.TensorSpec(shape, dtype, name=f"in_{index}")
        for index, (name, shape, dtype) in enumerate(inputs)
    }
    try:
        graph = tf.function(lambda tensors: call(tensors)).get_concrete_function(placeholders)
    except StnkitError:
        raise
    except Exception as exc:  # a model raises whatever its layers raise
        given = _listed([(spec.name, spec.shape) for spec in specs_in])
        raise InputError(f"the model cannot be called on {given} ({cause(exc)})") from exc
    outputs: Mapping[str, Any] = graph.structured_outputs
    if not outputs:
        raise InputError("the model gives no output: expected at least one tensor")
    return specs_in, tuple(_output_spec(name, tensor) for name, tensor in outputs.items())


def _output_spec(name: str, tensor: Any) -> TensorSpec:
    if not isinstance(tensor, (tf.Tensor, tf.TensorSpec)):
        raise InputError(
            f"the output {name!r} is a {type(tensor).__name__}: expected a tensor of numbers; "
            "convert it inside the model"
        )
    if tensor.shape.rank is None:
        raise InputError(
            f"the output {name!r} has no fixed rank: give it one inside the model, with a reshape"
        )
    return _spec("output", name, tuple(tensor.shape.as_list()), tensor.dtype.name)


def _spec(kind: str, name: str, shape: Sizes, dtype: str) -> TensorSpec:
    if not re.fullmatch(NAME_PATTERN, name):
        raise InputError(
            f"the {kind} {name!r} cannot be carried under that name: expected 1 to 512 characters, "
            "none of them a control character"
        )
    if not shape:
        raise InputError(
            f"the {kind} {name!r} is a scalar: inputs and outputs need a batch dimension first"
        )
    if dtype not in DTYPES:
        raise InputError(
            f"the {kind} {name!r} has dtype {dtype}: a bundle carries {', '.join(DTYPES)}"
        )
    layout = "NHWC" if len(shape) == 4 else None
    return TensorSpec(name, dtype, named_shape(name, shape), layout=layout)


def _listed(shapes: Sequence[tuple[str, Sequence[int | str]]]) -> str:
    return ", ".join(f"{name} [{', '.join(map(str, shape))}]" for name, shape in shapes)


def source_from_keras(
    model: Any, *, name: str | None = None, origin: Source | None = None
) -> SourceModel:
    """Return the source for a Keras model in memory.

    Args:
        model: A built `keras.Model`: Sequential, functional or subclassed.
        name: Name of the source; that of the model if None.
        origin: Where it was loaded from, if it was.

    Raises:
        InputError: If the model was never built, cannot be called on its own inputs, or makes new
            weights when it is called.
    """
    if not isinstance(model, keras.Model):
        raise InputError(f"{type(model).__name__} is not a Keras model: expected a keras.Model")
    try:
        call, inputs = keras_callable(model)
    except StnkitError:
        raise
    except Exception as exc:  # a model may override every method that is asked here
        raise InputError(
            f"the inputs and outputs of the model {model.name!r} cannot be found ({cause(exc)})"
        ) from exc
    layers = all_layers(model)
    call = with_scope_names(call, layers)
    known = {id(variable) for variable in model.variables}
    specs_in, specs_out = describe(call, inputs)
    new = [variable.path for variable in model.variables if id(variable) not in known]
    if new:
        # Keras passes over the saved weights of layers that are not built when it loads a file.
        raise InputError(
            f"the model {model.name!r} makes {new[0]!r} only when it is called, so that weight is "
            "random and not the trained one: build its layers in build(), or save the model with "
            "model.export() and convert that folder"
        )
    label = name or model.name
    return SourceModel(
        name=label,
        origin=origin or Source(file=base_name(label), kind="function"),
        inputs=specs_in,
        outputs=specs_out,
        call=call,
        layers=frozenset(scope_name(layer.name) for layer in layers),
        layer_types=frozenset(type(layer).__name__ for layer in layers),
        owner=model,
    )


def base_name(text: str) -> str:
    """Return a text as a bundle may carry it for the name of a source's file.

    Slashes, control characters and what is no Unicode become `_`; 255 characters remain.
    """
    clean = re.sub(r"[/\\\x00-\x1f\x7f\ud800-\udfff]", "_", text)[:_BASE_NAME_MAX]
    return clean if clean not in ("", ".", "..") else "_"
