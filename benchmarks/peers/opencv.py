"""OpenCV's warpAffine, one image of the batch after the other."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.cases import Array
from benchmarks.peers.contender import Contender, Job, Prepared, UnavailableError

TOLERANCE = 0.02
"""OpenCV 4.10 rounds coordinates to 1/32 of a pixel and was measured to be off by 7e-3.

5.0 computes them exactly and was off by 7e-6.
"""
CHANNELS_MAX = 4
"""More channels than these OpenCV does not warp: they are done four by four."""


def pixel_matrix(theta: Array, height: int, width: int) -> Array:
    """Return the `[2, 3]` matrix from output to input pixels, pixel centres at integers."""
    half = np.array([width, height]) / 2
    linear = theta[:, :2] * half[:, None] / half
    shift = half - 0.5 + half * theta[:, 2] - linear @ (half - 0.5)
    return np.concatenate([linear, shift[:, None]], axis=1)


def _warp(job: Job) -> Prepared:
    try:
        cv2: Any = import_module("cv2")
    except ModuleNotFoundError as exc:
        raise UnavailableError("opencv-python-headless is not installed") from exc
    cv2.setNumThreads(job.threads)
    _, height, width, channels = job.case.shape
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

    def one(image: Array, matrix: Array) -> Array:
        warped: Array = cv2.warpAffine(
            image, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_CONSTANT
        )
        return warped

    def run() -> Any:
        results = np.empty(job.case.shape, np.float32)
        for image, theta, result in zip(job.inputs.image, job.inputs.theta, results, strict=True):
            matrix = pixel_matrix(theta, height, width)
            if channels <= CHANNELS_MAX:
                result[...] = one(image, matrix).reshape(result.shape)
            else:
                for first in range(0, channels, CHANNELS_MAX):
                    some = slice(first, first + CHANNELS_MAX)
                    part = one(np.ascontiguousarray(image[..., some]), matrix)
                    result[..., some] = part.reshape(height, width, -1)
        return results

    return Prepared(run, lambda warped: {"warped": warped})


OPENCV = Contender(
    "OpenCV warpAffine", {"tensorflow": _warp}, transforms=("affine",), tolerance=TOLERANCE
)
