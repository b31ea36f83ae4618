"""Answer with the largest entries of an output and their labels.

Source: Open Inference Protocol extension "classification".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["top_classes"]


def top_classes(
    scores: npt.NDArray[Any], count: int, labels: Sequence[str]
) -> npt.NDArray[np.object_]:
    """Return the largest entries of each item as text.

    Args:
        scores: `[batch, …]`, any numbers; what follows the first dimension is one list.
        count: how many; more than there are gives all.
        labels: one an entry, or none.

    Returns:
        `[batch, count]` of bytes: `score:index`, with `:label` behind it where there are labels;
        largest first, equal ones by index.
    """
    flat = scores.reshape(scores.shape[0], -1)
    count = min(count, flat.shape[1])
    # Sorting is stable, so of equal ones the first comes first.
    order = np.argsort(-flat.astype(np.float64), axis=1, kind="stable")[:, :count]
    found = np.empty(order.shape, dtype=object)
    for row, indices in enumerate(order):
        for place, index in enumerate(indices):
            text = f"{float(flat[row, index]):f}:{index}"  # NumPy's booleans know no format
            if len(labels) == flat.shape[1]:
                text += f":{labels[index]}"
            found[row, place] = text.encode()
    return found
