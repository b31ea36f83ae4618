"""From the name of a graph node to the Keras layer it came from."""

from __future__ import annotations

import re

_WRAPPERS = re.compile(
    r"(Stateful|Stateless)?PartitionedCall(_\d+)?|__inference_.*|ReadVariableOp(_\d+)?"
)


def scopes_of(node: str) -> list[str]:
    """Return the scopes around a node, outermost first, without what TensorFlow itself added."""
    plain = node.split("@", 1)[0].split(":", 1)[0]
    return [part for part in plain.split("/")[:-1] if not _WRAPPERS.fullmatch(part)]


def known_name(scope: str, layers: frozenset[str]) -> str | None:
    """Return the layer that a scope stands for, or None.

    Keras opens a layer's scope once more for every call, which numbers it: `stn` becomes `stn_1`.
    """
    if scope in layers:
        return scope
    stem = re.sub(r"_\d+$", "", scope)
    return stem if stem in layers else None


def layer_of(node: str, layers: frozenset[str]) -> str:
    """Return the innermost known layer around a node; the innermost scope if none is known.

    Args:
        node: Name of a node, with slashes between scopes.
        layers: Names of the model's layers; empty for a SavedModel.
    """
    scopes = scopes_of(node)
    for scope in reversed(scopes):
        name = known_name(scope, layers)
        if name is not None:
            return name
    return scopes[-1] if scopes else node
