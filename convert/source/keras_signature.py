"""Names and shapes of what goes into a Keras model and what comes out of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras

from stnkit.runtime.errors import InputError, one_line

Inputs = list[tuple[str, tuple[int | None, ...], str]]


def keras_callable(model: Any) -> tuple[Callable[[Mapping[str, Any]], dict[str, Any]], Inputs]:
    """Return `model` as a function of named tensors, with its inputs' names, shapes and dtypes.

    Names are those of Keras: of the `Input` layers and of the layers that give the outputs; for a
    subclassed model those of the arguments of `call`; keys where inputs or outputs are dicts.

    Raises:
        InputError: If the model was never built.
    """
    if getattr(model, "inputs", None):
        return _symbolic(model)
    return _subclassed(model)


def _symbolic(model: Any) -> tuple[Callable[[Mapping[str, Any]], dict[str, Any]], Inputs]:
    """For functional and Sequential models."""
    # A Sequential loaded from a file has flat inputs alone; it never has more than one.
    structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    tensors = keras.tree.flatten(structure)
    if isinstance(structure, Mapping):
        names = list(keras.tree.flatten({key: key for key in structure}))
    else:
        names = [tensor.name for tensor in tensors]
    names = _unique(names)
    inputs = [
        (name, tuple(tensor.shape), keras.backend.standardize_dtype(tensor.dtype))
        for name, tensor in zip(names, tensors, strict=True)
    ]
    output_names = _output_names(model)

    def call(values: Mapping[str, Any]) -> dict[str, Any]:
        packed = keras.tree.pack_sequence_as(structure, [values[name] for name in names])
        return _named(model(packed, training=False), output_names)

    return call, inputs


def _output_names(model: Any) -> list[str] | None:
    """Return names for the flat outputs, or None where the outputs themselves carry keys."""
    if isinstance(model, keras.Sequential):
        return [model.layers[-1].name]
    if isinstance(model.output, Mapping):
        return None
    return _unique(list(model.output_names))


def _subclassed(model: Any) -> tuple[Callable[[Mapping[str, Any]], dict[str, Any]], Inputs]:
    shapes = _built_shapes(model)
    parameters = [
        name
        for name, parameter in inspect.signature(model.call).parameters.items()
        if name not in ("training", "mask", "self")
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    # One argument may itself be a list or a dict of tensors; several arguments are one each.
    given = dict(zip(parameters, shapes.values(), strict=False))
    if len(given) != len(shapes) or not given:
        raise InputError(
            f"the model {model.name!r} was built for {len(shapes)} inputs and its call takes "
            f"{parameters}: call it once on real inputs, save it again and convert that"
        )
    dtype = keras.backend.standardize_dtype(model.input_dtype)
    structure: dict[str, Any] = {}
    inputs: Inputs = []
    for argument, shape in given.items():
        structure[argument] = _collect(argument, shape, inputs, dtype)

    def call(values: Mapping[str, Any]) -> dict[str, Any]:
        def fill(node: Any) -> Any:
            if isinstance(node, str):
                return values[node]
            if isinstance(node, dict):
                return {key: fill(member) for key, member in node.items()}
            return [fill(member) for member in node]

        arguments = {name: fill(node) for name, node in structure.items()}
        first, *others = parameters[: len(arguments)]
        rest = {name: arguments[name] for name in others}
        if "training" in inspect.signature(model.call).parameters:
            rest["training"] = False
        return _named(model(arguments[first], **rest), None)

    return call, inputs


def _collect(prefix: str, shape: Any, inputs: Inputs, dtype: str) -> Any:
    """Add the tensors of one argument to `inputs`; return its structure with names for tensors."""
    if isinstance(shape, Mapping):
        return {key: _collect(key, member, inputs, dtype) for key, member in shape.items()}
    if all(size is None or isinstance(size, int) for size in shape):
        inputs.append((prefix, tuple(shape), dtype))
        return prefix
    return [_collect(f"{prefix}_{i}", member, inputs, dtype) for i, member in enumerate(shape)]


def _built_shapes(model: Any) -> dict[str, Any]:
    config = model.get_build_config() if model.built else None
    if not config:
        raise InputError(
            f"the model {model.name!r} was never built, so the shape of its input is unknown: call "
            "it once on an input before saving it"
        )
    if "input_shape" in config:
        return {"input_shape": config["input_shape"]}
    shapes = config.get("shapes_dict", config)
    return dict(shapes)


def _named(result: Any, names: list[str] | None) -> dict[str, Any]:
    if isinstance(result, Mapping):
        return {str(key): value for key, value in result.items()}
    try:
        flat = keras.tree.flatten(result)
    except (TypeError, ValueError) as exc:
        raise InputError(f"the model's outputs cannot be named: {one_line(exc)}") from exc
    if names is None:
        names = [f"output_{index}" for index in range(len(flat))]
    return dict(zip(names, flat, strict=True))


def _unique(names: list[str]) -> list[str]:
    """Return the names with a number behind those that came before."""
    seen: set[str] = set()
    result = []
    for name in names:
        candidate, number = name, 0
        while candidate in seen:
            number += 1
            candidate = f"{name}_{number}"
        seen.add(candidate)
        result.append(candidate)
    return result
