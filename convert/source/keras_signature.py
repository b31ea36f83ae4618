"""Names and shapes of what goes into a Keras model and what comes out of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras

from stnkit.convert.source.tensor_names import has_keys, input_names, named_outputs, unique
from stnkit.runtime.errors import InputError

Inputs = list[tuple[str, tuple[int | None, ...], str]]


def keras_callable(model: Any) -> tuple[Callable[[Mapping[str, Any]], dict[str, Any]], Inputs]:
    """Return `model` as a function of named tensors, with its inputs' names, shapes and dtypes.

    Names are those of Keras: of the `Input` layers and of the layers that give the outputs; for a
    subclassed model those of the arguments of `call`; where inputs or outputs are dicts their keys,
    and paths of keys (`a/b`) where they are nested.

    Args:
        model: A Keras model of any kind.

    Raises:
        InputError: If the model was never built, or was built for other arguments than it takes.
    """
    if getattr(model, "inputs", None):
        return _symbolic(model)
    return _subclassed(model)


def _symbolic(model: Any) -> tuple[Callable[[Mapping[str, Any]], dict[str, Any]], Inputs]:
    """For functional and Sequential models."""
    # A Sequential loaded from a file has flat inputs alone, and takes its one tensor bare.
    bare = isinstance(model, keras.Sequential) and len(model.inputs) == 1
    structure = model.inputs[0] if bare else model.input
    tensors = keras.tree.flatten(structure)
    if has_keys(structure):
        names = input_names(structure, "input")
    else:
        names = unique([tensor.name for tensor in tensors])
    inputs = [
        (name, tuple(tensor.shape), keras.backend.standardize_dtype(tensor.dtype))
        for name, tensor in zip(names, tensors, strict=True)
    ]
    output_names = _output_names(model)

    def call(values: Mapping[str, Any]) -> dict[str, Any]:
        packed = keras.tree.pack_sequence_as(structure, [values[name] for name in names])
        return named_outputs(model(packed, training=False), output_names)

    return call, inputs


def _output_names(model: Any) -> list[str]:
    """Return names for the outputs of a functional or Sequential model, for those without keys."""
    if not isinstance(model, keras.Sequential):
        return unique(list(model.output_names))
    last = model.layers[-1]
    # A lone output goes by the layer's name even where the layer is a model.
    inner = isinstance(last, keras.Model) and len(getattr(last, "outputs", None) or []) > 1
    return _output_names(last) if inner else [last.name]


def _subclassed(model: Any) -> tuple[Callable[[Mapping[str, Any]], dict[str, Any]], Inputs]:
    """For models with a `call` and no graph of layers.

    Keras keeps the shapes that such a model was built for, and no dtypes: every input is taken to
    be of the model's own `input_dtype`. A SavedModel keeps them.
    """
    shapes = _built_shapes(model)
    parameters = _parameters(model)
    given = _by_argument(model, shapes, list(parameters))
    missing = [
        name
        for name, parameter in parameters.items()
        if name not in given and parameter.default is parameter.empty
    ]
    if missing:
        raise InputError(
            f"the model {model.name!r} takes {list(parameters)}, and Keras has kept the shape of "
            f"{', '.join(given)} alone: give call() one list or dict of tensors, or save the model "
            "with model.export(folder, input_signature=[…]), one tf.TensorSpec an argument"
        )
    dtype = keras.backend.standardize_dtype(model.input_dtype)
    structures = {argument: _shape_leaves(shape) for argument, shape in given.items()}
    grouped = {name: input_names(structure, name) for name, structure in structures.items()}
    flat = iter(unique([name for names in grouped.values() for name in names]))
    grouped = {argument: [next(flat) for _ in names] for argument, names in grouped.items()}
    inputs: Inputs = [
        # The batch of the call that built it is no property of the model.
        (name, (None, *leaf.shape[1:]) if leaf.shape else (), dtype)
        for argument, structure in structures.items()
        for name, leaf in zip(grouped[argument], keras.tree.flatten(structure), strict=True)
    ]
    training = {"training": False} if "training" in _signature(model) else {}

    def call(values: Mapping[str, Any]) -> dict[str, Any]:
        arguments = {
            argument: keras.tree.pack_sequence_as(
                structure, [values[name] for name in grouped[argument]]
            )
            for argument, structure in structures.items()
        }
        first, *others = arguments
        rest = {name: arguments[name] for name in others}
        return named_outputs(model(arguments[first], **rest, **training), None)

    return call, inputs


def _signature(model: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(model.call).parameters


def _parameters(model: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of `call` that may take tensors."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {
        name: parameter
        for name, parameter in _signature(model).items()
        if name not in ("training", "mask", "self") and parameter.kind in kinds
    }


def _by_argument(model: Any, shapes: dict[str, Any], parameters: list[str]) -> dict[str, Any]:
    """Return the built shapes by argument of `call`.

    Keras names them after the arguments of `build`, by its own rule `x_shape` for the argument `x`.
    """
    named = {key.removesuffix("_shape"): shape for key, shape in shapes.items()}
    given = (
        named
        if len(named) > 1 and set(named) <= set(parameters)
        else dict(zip(parameters, shapes.values(), strict=False))
    )
    if len(given) != len(shapes) or not given:
        raise InputError(
            f"the model {model.name!r} was built for {len(shapes)} inputs and its call takes "
            f"{parameters}: call it once on real inputs, save it again and convert that"
        )
    return {name: given[name] for name in parameters if name in given}


def _shape_leaves(shape: Any) -> Any:
    """Return the structure with one leaf, which has a `shape`, for every shape in it."""
    if isinstance(shape, Mapping):
        return {key: _shape_leaves(member) for key, member in shape.items()}
    if all(size is None or isinstance(size, int) for size in shape):
        return keras.InputSpec(shape=tuple(shape))
    return [_shape_leaves(member) for member in shape]


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
