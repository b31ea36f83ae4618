"""The answer in float64, written with NumPy alone, and the check against it.

What was not checked is not timed: a form that reads other pixels may well be the faster one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from benchmarks.cases import Array, Case, Inputs, basis

EXACT = {"affine": 2e-5, "thin_plate_spline": 4e-5}
"""Largest absolute error of a warped image in [0, 1] by float32 arithmetic, by transform.

A spline adds up kernels that are large and cancel.
"""
GRADIENT = {"image_gradient": 1e-3, "theta_gradient": 3e-2}
"""Largest error of a gradient, relative to its own largest entry.

By theta it jumps where a point crosses a pixel's centre, which float32 sees for other points than
float64 does. All contenders were measured to be off by the same 7e-3 for one such point.
"""


class WrongAnswerError(Exception):
    """A contender's answer is not the reference's."""


def reference(case: Case, inputs: Inputs, gradients: bool = False) -> dict[str, Array]:
    r"""Return the warped image, and the gradients of sum(upstream * warped).

    $$V = \sum_n \sum_m U_{nm} \max(0, 1 - |x - m|) \max(0, 1 - |y - n|)$$

    Returns:
        "warped", and with `gradients` also "image_gradient" and "theta_gradient": float64, each of
        the shape of what it is named after.

    Source:
        Jaderberg et al. 2015, eq. 5 to 7.
    """
    batch, height, width, channels = case.shape
    points = basis(case)
    theta = inputs.theta.astype(np.float64)
    parameters = theta.transpose(0, 2, 1) if case.transform == "affine" else theta
    sizes = np.array([width, height])
    xy = ((points @ parameters + 1) * sizes - 1) / 2
    # Far outside every tap reads 0: clipped, all indices fit the image with a ring of two pixels.
    inside = (xy > -1.5) & (xy < sizes + 0.5)
    xy = np.clip(xy, -1.5, sizes + 0.5)
    first = np.floor(xy).astype(int)
    weight = xy - first
    image = np.pad(inputs.image.astype(np.float64), [(0, 0), (2, 3), (2, 3), (0, 0)])
    rows = np.arange(batch)[:, None]

    def tap(dy: int, dx: int) -> tuple[Array, Array, Array]:
        return rows, first[..., 1] + 2 + dy, first[..., 0] + 2 + dx

    top_left, top_right = image[tap(0, 0)], image[tap(0, 1)]
    low_left, low_right = image[tap(1, 0)], image[tap(1, 1)]
    wx, wy = weight[..., 0:1], weight[..., 1:2]
    top, low = (1 - wx) * top_left + wx * top_right, (1 - wx) * low_left + wx * low_right
    answer = {"warped": ((1 - wy) * top + wy * low).reshape(case.shape)}
    if not gradients:
        return answer
    upstream = inputs.upstream.astype(np.float64).reshape(batch, -1, channels)
    scattered = np.zeros_like(image)
    for dy in (0, 1):
        for dx in (0, 1):
            share = (wx if dx else 1 - wx) * (wy if dy else 1 - wy)
            np.add.at(scattered, tap(dy, dx), share * upstream)
    by_x = (1 - wy) * (top_right - top_left) + wy * (low_right - low_left)
    by_xy = np.stack([(by_x * upstream).sum(-1), ((low - top) * upstream).sum(-1)], axis=-1)
    by_parameters = points.T @ (by_xy * inside * sizes / 2)
    by_theta = by_parameters.transpose(0, 2, 1) if case.transform == "affine" else by_parameters
    answer["image_gradient"] = scattered[:, 2 : 2 + height, 2 : 2 + width]
    answer["theta_gradient"] = by_theta
    return answer


def check_answer(
    received: Mapping[str, Array], expected: Mapping[str, Array], tolerance: float
) -> float:
    """Return the largest error of the warped image, after checking all of an answer.

    Args:
        received: What a contender answered: all of `expected`, or without "warped" its gradients.
        expected: What `reference` returned.
        tolerance: Largest absolute error of the warped image.

    Raises:
        WrongAnswerError: If something is missing, has another shape, is not finite, or is off.
    """
    for name, wanted in expected.items():
        if name not in received:
            raise WrongAnswerError(f"there is no {name}")
        value = np.asarray(received[name], np.float64)
        if value.shape != wanted.shape:
            raise WrongAnswerError(f"{name} has shape {value.shape}: expected {wanted.shape}")
        if not np.isfinite(value).all():
            raise WrongAnswerError(f"{name} is not finite everywhere")
        error = float(np.abs(value - wanted).max())
        largest = float(np.abs(wanted).max())
        allowed = tolerance if name == "warped" else GRADIENT[name] * largest
        if error > allowed:
            raise WrongAnswerError(f"{name} is off by {error:.2g}: {allowed:.2g} is allowed")
    return float(np.abs(received["warped"] - expected["warped"]).max())
