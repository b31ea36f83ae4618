"""Names of tensors inside a file, which share one space where a signature has two."""

from __future__ import annotations

from collections.abc import Container


def unique_name(name: str, taken: Container[str]) -> str:
    """Return the name itself if nothing has it yet, else `name:1`, `name:2` and so on.

    Args:
        name: The name that is wanted.
        taken: Names that are given away already.
    """
    candidate, number = name, 0
    while candidate in taken:
        number += 1
        candidate = f"{name}:{number}"
    return candidate
