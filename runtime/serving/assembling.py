"""Put the inputs of several requests together into one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from stnkit.runtime.serving.work import Arrays, Work

    # Bucket -> input name -> array of that many items.
    Buffers = dict[int, dict[str, npt.NDArray[Any]]]
else:
    Buffers = dict

__all__ = ["Buffers", "together"]


def together(group: Sequence[Work], items: int, bucket: int, buffers: Buffers) -> Arrays:
    """Copy the inputs of a group into one batch, filled up with its last item.

    Args:
        group: requests whose inputs differ in the number of items alone; at least one.
        items: theirs together.
        bucket: items of the batch, at least as many.
        buffers: arrays that are kept for the next batch: fresh ones of some megabytes cost more in
            page faults than the copy itself. The batch is one of them.

    Returns:
        Input name -> array `[bucket, …]`.
    """
    kept = buffers.setdefault(bucket, {})
    for name, value in group[0].inputs.items():
        batch = kept.get(name)
        if batch is None or batch.shape[1:] != value.shape[1:]:
            batch = kept[name] = np.empty((bucket, *value.shape[1:]), value.dtype)
        at = 0
        for work in group:
            batch[at : at + work.items] = work.inputs[name]
            at += work.items
        batch[items:] = batch[items - 1]
    return kept
