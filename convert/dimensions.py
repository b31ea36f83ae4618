"""Names of the dimensions that a model leaves open."""

from __future__ import annotations

import re
from collections.abc import Sequence

from stnkit.runtime.signature import BATCH, Shape


def named_shape(tensor: str, sizes: Sequence[int | None]) -> Shape:
    """Return a shape with a name for every open size.

    Equal names are equal sizes in one run, so only the batch has one name everywhere: two tensors
    whose widths are open need not be equally wide.

    Args:
        tensor: Name of the tensor, which goes into the names of its own open sizes.
        sizes: Its sizes, None where open; batch first.
    """
    return tuple(
        (BATCH if axis == 0 else dimension_name(tensor, axis)) if size is None else size
        for axis, size in enumerate(sizes)
    )


def dimension_name(tensor: str, axis: int) -> str:
    """Return the name of an open dimension, e.g. `photo_dim_1`."""
    stem = re.sub(r"\W", "_", tensor, flags=re.ASCII)[:40]
    return f"{'_' if stem[:1].isdigit() else ''}{stem}_dim_{axis}"
