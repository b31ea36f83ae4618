"""Reports as an engine could have written them: one that is well, one with everything wrong."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from stnkit.runtime.compare import Comparison, Kind, Tolerance, compare
from stnkit.runtime.equivalence.results import (
    Bisection,
    CandidateReport,
    EquivalenceReport,
    Finding,
    NodeError,
    ProbeRecord,
    TransformerView,
)
from stnkit.runtime.signature import Tolerances
from stnkit.runtime.statistics import ranking
from stnkit.runtime.verification import ArtifactReport

TOLERANCES = Tolerances(Tolerance(1e-5, 1e-5), Tolerance(1e-5), Tolerance(1e-4, 1e-5))
PROBES = ("noise_b1", "edges_b2", "flip_b7")
CORNERS = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)


def scene(size: int, channels: int) -> np.ndarray:
    """Return a picture with a bright letter on a slope of gray."""
    y, x = np.mgrid[0:size, 0:size] / (size - 1)
    image = np.stack([0.25 * x, 0.3 * y, 0.25 * (1 - x)][:channels], axis=-1)
    letter = ((abs(y - 0.28) < 0.07) & (abs(x - 0.5) < 0.25)) | (
        (abs(x - (0.78 - 0.45 * y)) < 0.07) & (y > 0.28) & (y < 0.85)
    )
    image[letter] = [0.95, 0.85, 0.6][:channels]
    return image.astype(np.float32)


def warp(image: np.ndarray, theta: np.ndarray, shift_px: float = 0.0) -> np.ndarray:
    """Return the image read bilinearly at theta, zeros outside, moved by `shift_px`."""
    size = image.shape[0]
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size * 2 - 1
    matrix = theta.reshape(2, 3).astype(np.float64)
    at = np.stack([x, y, np.ones_like(x)], axis=-1) @ matrix.T
    px = (at + 1) / 2 * size - 0.5 + shift_px
    low = np.floor(px).astype(int)
    part = px - low
    padded = np.pad(image.astype(np.float64), ((1, 1), (1, 1), (0, 0)))
    result = np.zeros_like(image, np.float64)
    for dy in (0, 1):
        for dx in (0, 1):
            weight = abs(1 - dx - part[..., 0]) * abs(1 - dy - part[..., 1])
            column = np.clip(low[..., 0] + dx + 1, 0, size + 1)
            row = np.clip(low[..., 1] + dy + 1, 0, size + 1)
            result += weight[..., None] * padded[row, column]
    return result.astype(np.float32)


def outline(theta: np.ndarray) -> np.ndarray:
    matrix = theta.reshape(2, 3).astype(np.float64)
    return (CORNERS @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def rotation(degrees: float, zoom: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    c, s = zoom * np.cos(np.deg2rad(degrees)), zoom * np.sin(np.deg2rad(degrees))
    return np.array([c, -s, x, s, c, y], np.float32)


class Reports:
    """Makes reports; `error` is how wrong the candidate is, `names` are of the file."""

    def views(
        self, transformer: str, error: float, size: int = 48, channels: int = 1
    ) -> tuple[TransformerView, ...]:
        image = scene(size, channels)
        thetas = {
            "noise_b1": rotation(20, 0.8, 0.05, -0.1),
            "edges_b2": rotation(-35, 0.7),
            "zoom_out_b1": rotation(10, 1.6),
            "flip_b7": np.array([-1, 0, 0, 0, 1, 0], np.float32),
            "far_b1": rotation(0, 1.0, 40.0),
        }
        views = []
        for item, (case, theta) in enumerate(thetas.items()):
            other = theta + np.float32(error) * np.linspace(-1, 1, 6).astype(np.float32)
            views.append(
                TransformerView(
                    transformer,
                    case,
                    item,
                    image,
                    theta,
                    other,
                    warp(image, theta),
                    warp(image, other, shift_px=20 * error),
                    outline(theta),
                    outline(other),
                    float(error * size),
                )
            )
        return tuple(views)

    def comparisons(
        self, error: float, output: str = "probabilities", transformer: str = "st"
    ) -> tuple[Comparison, ...]:
        rng = np.random.default_rng(3)
        found = []
        tensors: dict[str, tuple[Kind, tuple[int, ...]]] = {
            output: ("output", (10,)),
            f"{transformer}/theta": ("theta", (6,)),
            f"{transformer}/warped": ("warped", (28, 28, 1)),
        }
        for case in PROBES:
            for name, (kind, shape) in tensors.items():
                reference = rng.random((int(case[-1]), *shape)).astype(np.float32)
                noise = rng.lognormal(-15, 1.2, reference.shape) * rng.choice(
                    [-1, 0, 1], reference.shape
                )
                candidate = (reference + noise + error * reference**4).astype(np.float32)
                item = compare(name, kind, case, reference, candidate, TOLERANCES.of(kind))
                pixels = None if kind != "theta" else 14 * error + 1e-6
                found.append(dataclasses.replace(item, pixels=pixels))
        return tuple(found)

    def curve(self, wrong_from: int | None, prefix: str = "model/layer") -> Bisection:
        ops = ("CONV_2D", "ADD", "MUL", "GATHER", "RESHAPE")
        nodes = []
        for i in range(40):
            error = 2e-8 * (1 + i % 7) * (i % 5 > 0)
            if wrong_from is not None and i >= wrong_from:
                error = 0.03 * (1 + (i % 3)) * 0.97**i
            inputs = (nodes[-1].name,) if nodes else ("image",)
            nodes.append(
                NodeError(f"{prefix}_{i}/out", ops[i % 5], f"layer_{i}", inputs, error * 2, 2.0)
            )
        nodes[8] = dataclasses.replace(nodes[8], max_abs=None, scale=None)
        first = None if wrong_from is None else nodes[wrong_from]
        near = () if wrong_from is None else tuple(nodes[wrong_from - 2 : wrong_from + 3])
        return Bisection(first, near, tuple(nodes), 7)

    def candidate(
        self,
        error: float = 0.0,
        file: str = "model.fp32.onnx",
        output: str = "probabilities",
        transformer: str = "st",
        **changes: Any,
    ) -> CandidateReport:
        rng = np.random.default_rng(1)
        scores = rng.random((10, 10)).astype(np.float32)
        proof = ArtifactReport(
            file,
            "onnxruntime" if file.endswith("onnx") else "litert",
            "1.31.1",
            self.comparisons(error, output, transformer),
            0.8,
        )
        findings = (
            Finding(
                "align_corners",
                "The artifact's sampler treats the corners the other way round: export it with "
                "the align_corners of the source.",
                "with align_corners=True the warped image agrees to 3.1e-07",
            ),
            Finding(
                "half_pixel",
                "Or its grid lies half a pixel beside the source's.",
                "a shift by 0.5 px explains 71 % of the difference",
            ),
        )
        values: dict[str, Any] = {
            "proof": proof,
            "format": "onnx" if file.endswith("onnx") else "tflite",
            "rankings": {output: ranking(scores, scores + np.float32(error))},
            "views": self.views(transformer, max(error, 1e-6)),
            "findings": findings if error else (),
            "bisection": self.curve(23) if error else self.curve(None),
            "notes": (f'input "image" of {file} is bound to "image" by its name',),
        }
        return CandidateReport(**{**values, **changes})

    def not_run(self, file: str = "model.tflite") -> CandidateReport:
        proof = ArtifactReport(file, "litert", None, (), 0.0, not_run="LiteRT is not installed")
        return CandidateReport(proof, "tflite")

    def report(self, *candidates: CandidateReport, **changes: Any) -> EquivalenceReport:
        values: dict[str, Any] = {
            "reference": "digits.keras",
            "reference_format": "keras",
            "candidates": candidates or (self.candidate(),),
            "tolerances": TOLERANCES,
            "reasons": {
                "probabilities": "1e-05: a dot product of 1,568 terms rounds by up to 9.3e-05 of "
                "an output, and softmax divides that by 8",
                "theta": "1e-05: five layers of at most 3,136 terms",
                "warped": "1e-04: coordinates round to 1.7e-06 px, times a gradient of 58 a pixel",
            },
            "probes": (
                ProbeRecord("noise_b1", 1, 11),
                ProbeRecord("edges_b2", 2, None),
                ProbeRecord("flip_b7", 7, 13, ("st",)),
            ),
            "versions": {"stnkit": "0.1.0", "numpy": "2.4.6", "onnxruntime": "1.31.1"},
            "seconds": 2.34,
        }
        return EquivalenceReport(**{**values, **changes})


@pytest.fixture(scope="session")
def reports() -> Reports:
    return Reports()


@pytest.fixture(scope="session")
def passed_report(reports: Reports) -> EquivalenceReport:
    return reports.report(reports.candidate(), reports.candidate(file="model.fp32.tflite"))


@pytest.fixture(scope="session")
def failed_report(reports: Reports) -> EquivalenceReport:
    return reports.report(
        reports.candidate(file="model.fp32.tflite"), reports.candidate(0.03), reports.not_run()
    )
