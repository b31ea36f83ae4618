"""The layers inside a Keras model, and names for them that a TensorFlow graph can hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras

Call = Callable[[Mapping[str, Any]], dict[str, Any]]

# What tf.name_scope takes at the root of a graph, where it is strictest.
_SCOPE = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")


def all_layers(model: Any) -> list[Any]:
    """Return `model` and every layer below it, also those inside of custom layers."""
    found: list[Any] = []
    waiting = [model]
    seen: set[int] = set()
    while waiting:
        layer = waiting.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        found.append(layer)
        waiting.extend(_layers_in(getattr(layer, "layers", None)))
        for value in vars(layer).values():
            waiting.extend(_layers_in(value))
    return found


def _layers_in(value: Any) -> Iterator[Any]:
    """Yield the layers in an attribute: itself, or members of lists and dicts."""
    if isinstance(value, keras.layers.Layer):
        yield value
    elif isinstance(value, Mapping):
        for member in value.values():
            yield from _layers_in(member)
    elif isinstance(value, (list, tuple)):
        for member in value:
            yield from _layers_in(member)


def scope_name(name: str) -> str:
    """Return the name under which a layer's ops stand in a graph.

    Keras takes any name without a slash; TensorFlow refuses to trace a layer called `"a b"`.
    """
    if _SCOPE.fullmatch(name):
        return name
    safe = re.sub(r"[^A-Za-z0-9_.\\/>-]", "_", name)
    return safe if _SCOPE.fullmatch(safe) else f"layer{safe}"


def with_scope_names(call: Call, layers: Iterable[Any]) -> Call:
    """Return `call`, with each layer under its `scope_name` while it runs.

    Args:
        call: Runs the model.
        layers: Its layers; they have their own names back afterwards. While the model runs, no
            other thread may use them.
    """
    names = [(layer, layer.name, scope_name(layer.name)) for layer in layers]
    changed = [(layer, own, safe) for layer, own, safe in names if own != safe]
    if not changed:
        return call

    @contextmanager
    def renamed() -> Iterator[None]:
        try:
            for layer, _, safe in changed:
                layer.name = safe
            yield
        finally:
            for layer, own, _ in changed:
                layer.name = own

    def call_renamed(values: Mapping[str, Any]) -> dict[str, Any]:
        with renamed():
            return call(values)

    return call_renamed
