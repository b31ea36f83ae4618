"""Names for the tensors of a nested structure: `{"a": {"b": x}, "d": [y]}` has `a/b` and `d/0`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

Path = tuple[str | int, ...]


def input_names(structure: Any, argument: str) -> list[str]:
    """Return a name for every leaf, in the order of `keras.tree.flatten`.

    Args:
        structure: Tensors in dicts, lists and tuples.
        argument: Name of the argument that takes it: the name of a lone tensor, and the beginning
            of the names in a list (`argument_0`). A dict's keys stand for themselves.
    """
    paths = [path for path, _ in keras.tree.flatten_with_path(structure)]
    return unique([_name(path, argument) for path in paths])


def named_outputs(result: Any, names: Sequence[str] | None) -> dict[str, Any]:
    """Return the tensors of a model's result by name, in the order in which they stand there.

    Args:
        result: Tensors in dicts, lists and tuples; a None in there is no output.
        names: Names of the leaves, for a result without dicts; None to name each by its place.
    """
    leaves = list(_leaves(result, ()))
    if names is None or has_keys(result) or len(names) != len(leaves):
        names = unique([_name(path or (0,), "output") for path, _ in leaves])
    return {name: leaf for name, (_, leaf) in zip(names, leaves, strict=True) if leaf is not None}


def has_keys(structure: Any) -> bool:
    """Return whether there is a dict in the structure."""
    return any(isinstance(key, str) for path, _ in _leaves(structure, ()) for key in path)


def unique(names: Sequence[str]) -> list[str]:
    """Return the names with a number behind those that came before."""
    seen: set[str] = set()
    result = []
    for name in names:
        candidate, number = name, 0
        while candidate in seen or (number and candidate in names):
            number += 1
            candidate = f"{name}_{number}"
        seen.add(candidate)
        result.append(candidate)
    return result


def _name(path: Path, prefix: str) -> str:
    if not path:
        return prefix
    first, *rest = path
    start = f"{prefix}_{first}" if isinstance(first, int) else str(first)
    return "/".join([start, *map(str, rest)])


def _leaves(node: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(node, Mapping):
        for key, member in node.items():
            yield from _leaves(member, (*path, str(key)))
    elif isinstance(node, (list, tuple)):
        for index, member in enumerate(node):
            yield from _leaves(member, (*path, index))
    else:
        yield path, node
