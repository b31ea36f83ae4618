"""Figures of segmentation and registration: overlap of masks, and where a map folds."""

from __future__ import annotations

from typing import Any

import numpy as np


def dice(a: Any, b: Any) -> Any:
    r"""Return the Dice overlap of two masks, per item; 1 where both are empty.

    $$\frac{2 |A \cap B|}{|A| + |B|}$$

    Args:
        a: `[batch, height, width]` bool.
        b: The same shape.

    Returns:
        `[batch]` float64 in [0, 1].
    """
    both, total = (a & b).sum((1, 2)), a.sum((1, 2)) + b.sum((1, 2))
    return np.where(total == 0, 1.0, 2 * both / np.maximum(total, 1))


def iou(a: Any, b: Any) -> Any:
    r"""Return the intersection over union of two masks, per item; 1 where both are empty.

    $$\frac{|A \cap B|}{|A \cup B|}$$

    Args:
        a: `[batch, height, width]` bool.
        b: The same shape.

    Returns:
        `[batch]` float64 in [0, 1].
    """
    both, either = (a & b).sum((1, 2)), (a | b).sum((1, 2))
    return np.where(either == 0, 1.0, both / np.maximum(either, 1))


def folded(flow: Any) -> Any:
    r"""Return where a map folds: where its Jacobian determinant is not positive.

    $$\det \nabla (p + u(p)) \le 0$$

    Convention:
        Forward differences between neighbouring pixels.

    Args:
        flow: u, `[batch, height, width, 2]`, (x, y) in normalised units, 2 is a whole side.

    Returns:
        `[batch, height - 1, width - 1]` bool.
    """
    rows, columns = flow.shape[1:3]
    along_x = np.diff(flow, axis=2)[:, :-1] * columns / 2
    along_y = np.diff(flow, axis=1)[:, :, :-1] * rows / 2
    own_x, own_y = 1 + along_x[..., 0], 1 + along_y[..., 1]
    return own_x * own_y - along_x[..., 1] * along_y[..., 0] <= 0
