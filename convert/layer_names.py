"""From the name of a graph node to the Keras layer it came from."""

from __future__ import annotations

import re

_WRAPPERS = re.compile(
    r"(Stateful|Stateless)?PartitionedCall(_\d+)?|__inference_.*|ReadVariableOp(_\d+)?"
)


def scopes_of(node: str) -> list[str]:
    """Return the scopes around a node, outermost first, without what TensorFlow itself added."""
    return [part for part in _plain(node).split("/")[:-1] if not _WRAPPERS.fullmatch(part)]


def _plain(node: str) -> str:
    return node.split("@", 1)[0].split(":", 1)[0]


def unnumbered(scope: str) -> str:
    """Return a scope without the number that a further call gave it: `stn_1` is `stn`."""
    return re.sub(r"_\d+$", "", scope)


def known_name(scope: str, layers: frozenset[str]) -> str | None:
    """Return the layer that a scope stands for, or None.

    Keras opens a layer's scope to look whether it is built, and once more to call it, which numbers
    it: the first call of `stn` is `stn_1`, even where another layer has that name, whose own first
    call is then `stn_1_1` or `stn_1_2`.
    """
    stem = unnumbered(scope)
    if stem in layers:
        return stem
    return scope if scope in layers else None


def layer_of(node: str, layers: frozenset[str]) -> str:
    """Return the innermost known layer around a node, else the innermost scope, else its own name.

    Args:
        node: Name of a node, with slashes between scopes.
        layers: Names of the model's layers; empty for a SavedModel.
    """
    scopes = scopes_of(node)
    for scope in reversed(scopes):
        name = known_name(scope, layers)
        if name is not None:
            return name
    return scopes[-1] if scopes else _plain(node).rsplit("/", 1)[-1]
