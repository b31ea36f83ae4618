"""What a contender is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.cases import TRANSFORMS, Array, Case, Inputs

Target = Literal["tflite", "onnx", "tensorflow", "tensorflow-training", "tensorflow-xla"]
TARGETS: dict[Target, str] = {
    "tflite": "TFLite files, LiteRT with XNNPACK",
    "onnx": "ONNX files, ONNX Runtime on the CPU",
    "tensorflow": "forward in a framework: tf.function, or the library named",
    "tensorflow-training": "forward and backward in a framework: tf.function, or the library named",
    "tensorflow-xla": "forward and backward in TensorFlow, compiled by XLA",
}
TRAINING: tuple[Target, ...] = ("tensorflow-training", "tensorflow-xla")
"""Those with gradients."""


class UnavailableError(Exception):
    """A contender cannot be made here; says why."""


@dataclass(frozen=True)
class Job:
    """What a contender is made for.

    Attributes:
        case: Shapes and transform.
        inputs: What it is run on.
        threads: How many threads one run may use.
        spinning: Whether threads may spin while they wait: see `benchmarks.waiting`.
    """

    case: Case
    inputs: Inputs
    threads: int
    spinning: bool = False


@dataclass(frozen=True)
class Prepared:
    """A contender that is ready to run.

    Attributes:
        run: Runs it and returns when that is done. This is what is timed.
        answer: From what `run` returned to "warped", and in training to the gradients, as
            `benchmarks.reference.reference` names them.
        file_bytes: Size of the exported file, or None where there is none. The files hold nothing
            but the transformer, so that this is what it adds to a network.
        runs: How many times `run` runs it.
    """

    run: Callable[[], Any]
    answer: Callable[[Any], Mapping[str, Array]]
    file_bytes: int | None = None
    runs: int = 1


Build = Callable[[Job], Prepared]


@dataclass(frozen=True)
class Contender:
    """A way to warp an image by a theta.

    Attributes:
        name: Name in the tables.
        builds: How it is made, for every target that it has.
        transforms: What it can do.
        tolerance: Largest absolute error of its warped image; None for that of exact arithmetic
            rounded to float32, `benchmarks.reference.EXACT`.
        may_fail: Whether an error while it is made is a result, shown in its row. Otherwise the
            benchmark has failed.
    """

    name: str
    builds: Mapping[Target, Build]
    transforms: tuple[str, ...] = TRANSFORMS
    tolerance: float | None = None
    may_fail: bool = False
