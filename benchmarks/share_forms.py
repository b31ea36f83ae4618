"""A file of a network in one runtime: what of it is timed, and what the times say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import Array
from benchmarks.share_models import NetworkFile
from benchmarks.share_onnx import PARTS, ProfiledSession, onnx_run, session_options
from benchmarks.share_onnx import cut as cut_onnx
from benchmarks.share_tflite import cut as cut_tflite
from benchmarks.share_tflite import operators, tflite_run
from benchmarks.timing import Timing
from stnkit.runtime.timing import Quartiles

Run = Callable[[], Any]
Cut = Callable[[bytes, Sequence[str], Sequence[str]], bytes]
"""From a file and names of tensors that are given and computed to the file in between."""
Runner = Callable[[bytes, Mapping[str, Array]], Run]
"""From a file and arrays by names of tensors to what runs it once."""


class Form(ABC):
    """A file of a network, whole and in parts.

    Attributes:
        runs: What is timed.
        answers: What it computes, by name.
    """

    def __init__(self, file: NetworkFile, image: Array, cut: Cut, runner: Runner) -> None:
        feeds = {file.image: image}
        inner = [file.theta, file.warped]
        feeds |= zip(inner, runner(cut(file.content, [file.image], inner), feeds)(), strict=True)
        self.contents = {
            "whole": file.content,
            "alone": cut(file.content, [file.image, file.theta], [file.warped]),
            "localisation": cut(file.content, [file.image], [file.theta]),
            "without": cut(
                file.content, [file.image, file.warped], [file.theta, file.probabilities]
            ),
        }
        self.runs: dict[str, Run] = {
            part: runner(content, feeds) for part, content in self.contents.items()
        }
        self.answers: dict[str, Array] = {
            "theta": self.runs["localisation"]()[0],
            "warped": self.runs["alone"]()[0],
            "probabilities": self.runs["whole"]()[0],
        }

    def results(self, timings: Mapping[str, Timing]) -> dict[str, Any]:
        """Return what goes into a row, from the times of `runs`."""
        whole, alone, without = (timings[part] for part in ("whole", "alone", "without"))
        pairs = list(zip(whole.per_run_ms, without.per_run_ms, strict=True))
        return {
            "whole_ms": whole.time_ms,
            "alone_ms": alone.time_ms,
            "by_difference_ms": Quartiles.of([total - rest for total, rest in pairs]),
            "localisation_ms": timings["localisation"].time_ms,
            **self.by_method(timings),
        }

    @abstractmethod
    def by_method(self, timings: Mapping[str, Timing]) -> dict[str, Any]:
        """Return the share, and what belongs to the method by which it is found."""


class LiteRtForm(Form):
    """A TFLite file of a network."""

    def __init__(self, file: NetworkFile, image: Array, threads: int) -> None:
        super().__init__(
            file, image, cut_tflite, lambda content, feeds: tflite_run(content, feeds, threads)
        )

    def by_method(self, timings: Mapping[str, Timing]) -> dict[str, Any]:
        """Return the share of the cut file."""
        whole, alone, without = (timings[part].per_run_ms for part in ("whole", "alone", "without"))
        rounds = zip(whole, alone, without, strict=True)
        return {
            "method": "cut file",
            "transformer_ms": timings["alone"].time_ms,
            "share": timings["alone"].ratio_to(timings["whole"]),
            "accounted": Quartiles.of([(own + rest) / total for total, own, rest in rounds]),
            "operators": operators(self.contents["alone"]),
        }


class OnnxForm(Form):
    """An ONNX file of a network, also under the profiler."""

    def __init__(
        self, file: NetworkFile, image: Array, threads: int, spinning: bool, folder: Path
    ) -> None:
        def runner(content: bytes, feeds: Mapping[str, Array]) -> Run:
            return onnx_run(content, feeds, session_options(threads, spinning))

        super().__init__(file, image, cut_onnx, runner)
        options = session_options(threads, spinning)
        self._profiled = ProfiledSession(file, image, options, folder)
        self.runs["profiled"] = self._profiled.run

    def by_method(self, timings: Mapping[str, Timing]) -> dict[str, Any]:
        """Return the share of the kernels; ends the profile."""
        profile = self._profiled.end()
        share, whole_ms = profile.share("transformer"), timings["whole"].time_ms.median
        return {
            "method": "profiler",
            "transformer_ms": Quartiles(
                share.median * whole_ms, share.q1 * whole_ms, share.q3 * whole_ms
            ),
            "share": share,
            "accounted": profile.share(*PARTS),
            "slowed_by": timings["profiled"].ratio_to(timings["whole"]),
            "operators": profile.node_ms,
        }
