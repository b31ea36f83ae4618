"""Finding the spatial transformers of a graph by the marks their layers left."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from stnkit.convert.dimensions import named_shape
from stnkit.convert.layer_names import known_name, scopes_of, unnumbered
from stnkit.models.taps import THETA_MARK, WARPED_MARK
from stnkit.runtime.signature import TapKind, TapSpec

_MARK = re.compile(rf"({THETA_MARK}|{WARPED_MARK})(_\d+)?")


@dataclass(frozen=True)
class Tap:
    """A marked tensor.

    Attributes:
        spec: Its name, kind, transformer, shape and dtype, as they go into the manifest.
        tensor: Its name in the graph, as `node:0`.
    """

    spec: TapSpec
    tensor: str


def find_taps(graph: Any, layers: frozenset[str], taken: Collection[str] = ()) -> tuple[Tap, ...]:
    """Return every marked tensor of a graph, in the order in which they are computed.

    Args:
        graph: `tf.Graph`, flat.
        layers: Names of the model's layers, where known: a scope that Keras numbered gets its
            layer's name back.
        taken: Names that no tap may have: those of the model's inputs and outputs.
    """
    marked = []
    for operation in graph.get_operations():
        match = _MARK.fullmatch(operation.name.rsplit("/", 1)[-1])
        if match and operation.type == "Identity":
            marked.append((operation, match[1], match[2] or ""))
    names = _transformer_names(
        [(tuple(scopes_of(operation.name)), number) for operation, _, number in marked], layers
    )
    taps = []
    for operation, mark, number in marked:
        transformer = names[(tuple(scopes_of(operation.name)), number)]
        kind: TapKind = "theta" if mark == THETA_MARK else "warped"
        # Before the kind: that a tensor is a tap, a file shows by how its name ends.
        stem, count = transformer, 0
        while f"{stem}/{kind}" in taken:
            count += 1
            stem = f"{transformer}:{count}"
        name = f"{stem}/{kind}"
        tensor = operation.outputs[0]
        shape = named_shape(name, tensor.shape.as_list())
        spec = TapSpec(name, kind, transformer, shape, tensor.dtype.name)
        taps.append(Tap(spec, tensor.name))
    return tuple(taps)


def _transformer_names(
    keys: list[tuple[tuple[str, ...], str]], layers: frozenset[str]
) -> dict[tuple[tuple[str, ...], str], str]:
    """Return a unique, short name for each (scopes, number) of a mark.

    1. Where layers are not known, a scope loses the number that tracing gave it, unless two
       transformers would then be one.
    2. The layer's own name, where that is enough, else with the layers around it in front.
    3. A layer that is called more than once has `@2` behind its second call, and so on.
    """
    paths = {
        key: tuple(known_name(scope, layers) or scope for scope in key[0]) or ("transformer",)
        for key in keys
    }
    if not layers:
        paths = _unnumbered_paths(paths)
    distinct = set(paths.values())
    short: dict[tuple[str, ...], str] = {}
    for path in distinct:
        depth = 1
        while depth < len(path) and any(
            other != path and other[-depth:] == path[-depth:] for other in distinct
        ):
            depth += 1
        short[path] = "/".join(path[-depth:])
    calls: Counter[tuple[str, ...]] = Counter()
    names: dict[tuple[tuple[str, ...], str], str] = {}
    for key, path in paths.items():
        calls[path] += 1
        names[key] = short[path] if calls[path] == 1 else f"{short[path]}@{calls[path]}"
    return names


def _unnumbered_paths(
    paths: dict[tuple[tuple[str, ...], str], tuple[str, ...]],
) -> dict[tuple[tuple[str, ...], str], tuple[str, ...]]:
    stems = {path: tuple(unnumbered(scope) for scope in path) for path in set(paths.values())}
    owners = Counter(stems.values())
    return {key: stems[path] if owners[stems[path]] == 1 else path for key, path in paths.items()}
