"""Which tensor of the source the name of a candidate's tensor stands for."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence

__all__ = ["match_names"]

_WRAPPER = re.compile(r"^((Stateful|Stateless)?PartitionedCall(_\d+)?[/:]|serving_default_)")
_DIGITS = "0123456789"


def match_names(
    source: Sequence[str], candidate: Iterable[str], others: Collection[str]
) -> dict[str, str]:
    """Return candidate's tensor -> source's, for those whose names say it.

    1. A name without what exporters put around it (":0", "StatefulPartitionedCall/") is the
       source's.
    2. TFLite joins the names of operations that it fused with ";": the tensor is the one of them
       that is computed last. A number behind the last of them only tells it from another tensor of
       the file, often the bias, and is taken away.
    3. Where no name at all is found so, the scopes around the layers may have other names: the
       longest end with two scopes at least that one tensor of the source has alone.

    Args:
        source: names in the source, in the order of computation.
        candidate: names of computed tensors.
        others: all names in the candidate, those of constants among them.
    """
    order = {name: index for index, name in enumerate(source)}
    exact: dict[str, str] = {}
    for name in source:
        exact.setdefault(_plain(name), name)
    found: dict[str, str] = {}
    parts = {name: _parts(name, exact, others) for name in candidate}
    for name, bare in parts.items():
        known = [exact[part] for part in bare if part in exact]
        if known:
            found[name] = max(known, key=order.__getitem__)
    if found:
        return found
    ends = _only_ends(exact)
    for name, bare in parts.items():
        hits = [next((ends[end] for end in _ends(part) if end in ends), None) for part in bare]
        known = [hit for hit in hits if hit is not None]
        if known:
            found[name] = max(known, key=order.__getitem__)
    return found


def _parts(name: str, exact: Collection[str], others: Collection[str]) -> list[str]:
    parts = [part for part in name.split(";") if part]
    number = _number_behind(name, others)
    if parts and number and (len(parts) > 1 or _plain(name) not in exact):
        parts[-1] = parts[-1].removesuffix(number)
    return [_plain(part) for part in parts]


def _number_behind(name: str, others: Collection[str]) -> str:
    """Return the digits without which a name is another of the file; empty where there are none."""
    digits = len(name) - len(name.rstrip(_DIGITS))
    stems = (name[:-count] for count in range(1, digits + 1))
    return next((name[len(stem) :] for stem in stems if stem in others), "")


def _plain(name: str) -> str:
    bare = name.removesuffix(":0")
    while _WRAPPER.match(bare):
        bare = _WRAPPER.sub("", bare)
    return bare


def _only_ends(exact: dict[str, str]) -> dict[str, str]:
    owners: dict[str, list[str]] = {}
    for bare, name in exact.items():
        for end in _ends(bare):
            owners.setdefault(end, []).append(name)
    return {end: names[0] for end, names in owners.items() if len(names) == 1}


def _ends(bare: str) -> Iterator[str]:
    """Yield the ends of a name with two scopes at least, the longest first."""
    scopes = bare.split("/")
    for first in range(len(scopes) - 1):
        yield "/".join(scopes[first:])
