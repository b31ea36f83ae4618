"""Which share of a network's inference time does its spatial transformer take, before and after?

Run: python benchmarks/transformer_share.py --rounds 20 --json share.json

The shipped digits model, and MobileNetV2 behind a transformer at 224 px; one image, two threads.
"After" is what stnkit writes, "before" the same network with four gather_nd and masks as its
sampler, by the usual converters: see `benchmarks/share_models.py`. All answers are compared before
anything is timed. The transformer is what leads from theta and the image to the warped image, grid
and sampler; the localisation network, which finds theta, is told apart from it.

ONNX Runtime: by its own profiler. The transformer's share is the sum of its nodes' kernel times in
a run over the wall time of the same run; "accounted" is the share of the kernels of all nodes.
Which nodes are whose: `benchmarks/share_onnx.py`. The profiler slows small networks down ("slowed
by"), so the time of the whole is that without it, and the transformer's is its share of that.

LiteRT: its Python package reaches no profiler, neither from `Interpreter` nor from
`CompiledModel`, and its `tools.benchmark_litert_model` times whole runs alone. In its place the
file is cut down to the operators from theta and image to the warped image, and that file is timed
in turns with the whole; the share is the ratio within a round.

As a cross-check both runtimes run the cut file ("alone"), and the whole with the transformer
replaced by nothing, the network behind it seeing an image that is given: what that takes less than
the whole is "by difference". For LiteRT "accounted" is what these two take together, over the
whole. Where a file is cut, ONNX Runtime has to transpose the warped image, which in the whole it
may not: there "alone" is too long and "by difference" too short.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.cases import Array
from benchmarks.report import record
from benchmarks.share_forms import Form, LiteRtForm, OnnxForm
from benchmarks.share_models import (
    FORMS,
    NETWORKS,
    RUNTIMES,
    TOLERANCE,
    Network,
    files_after,
    files_before,
)
from benchmarks.timing import Quartiles, time_side_by_side
from benchmarks.waiting import prepare_process


@dataclass(frozen=True)
class Row:
    """One form of a network in one runtime.

    Attributes:
        model: One of `NETWORKS`.
        runtime: One of `RUNTIMES`.
        form: One of `FORMS`.
        method: How the transformer's time was found: "profiler" or "cut file".
        whole_ms: Time of one run of the whole.
        transformer_ms: Time of grid and sampler in it.
        share: The transformer's share of the whole.
        alone_ms: Time of the file cut down to the transformer.
        by_difference_ms: What the whole takes more than the whole without a transformer.
        localisation_ms: Time of the file cut down to the localisation network.
        accounted: Sum of all parts over the whole.
        largest_difference: Of any answer from the other files' and from Keras'.
        file_bytes: Size of the whole file.
        operators: Of the transformer: median kernel times in ms by node, or how many there are of
            each kind.
        slowed_by: Time under the profiler over that without, where there is one.
    """

    model: str
    runtime: str
    form: str
    method: str
    whole_ms: Quartiles
    transformer_ms: Quartiles
    share: Quartiles
    alone_ms: Quartiles
    by_difference_ms: Quartiles
    localisation_ms: Quartiles
    accounted: Quartiles
    largest_difference: float
    file_bytes: int
    operators: Mapping[str, float]
    slowed_by: Quartiles | None = None


class WrongAnswerError(Exception):
    """Two files of one network do not give the same."""


def largest_differences(answers: Mapping[str, Mapping[str, Array]]) -> dict[str, float]:
    """Return how far each answerer is from the one that is farthest from it.

    Args:
        answers: By name of the answerer, arrays by their own names.

    Raises:
        WrongAnswerError: If shapes differ, something is not finite, or a difference is larger
            than `TOLERANCE`.
    """
    largest = dict.fromkeys(answers, 0.0)
    for one, own in answers.items():
        for other, theirs in answers.items():
            for name, value in own.items():
                if value.shape != theirs[name].shape or not np.isfinite(value).all():
                    raise WrongAnswerError(
                        f"{name} of {one} has shape {value.shape}, of {other} "
                        f"{theirs[name].shape}: expected the same, and finite values"
                    )
                difference = float(np.abs(value - theirs[name]).max())
                if difference > TOLERANCE:
                    raise WrongAnswerError(
                        f"{name} of {one} is {difference:.2g} off that of {other}: "
                        f"{TOLERANCE:g} is allowed"
                    )
                largest[one] = max(largest[one], difference)
    return largest


def measure(
    name: str, network: Network, rounds: int, threads: int, spinning: bool = False
) -> list[Row]:
    """Return a row for every runtime and form of a network, all timed in turns.

    Args:
        name: Name of the network in the rows.
        network: The network.
        rounds: How many turns each file has.
        threads: Threads of one run.
        spinning: Whether threads may spin while they wait: see `benchmarks.waiting`.

    Raises:
        WrongAnswerError: If the forms do not give the same answers as Keras and as each other.
    """
    files = {"before": files_before(network), "after": files_after(network)}
    with tempfile.TemporaryDirectory(prefix="transformer-share-") as folder:
        forms: dict[tuple[str, str], Form] = {}
        for form in FORMS:
            own = Path(folder) / form
            own.mkdir()
            by_runtime = files[form]
            forms["LiteRT", form] = LiteRtForm(by_runtime["LiteRT"], network.image, threads)
            forms["ONNX Runtime", form] = OnnxForm(
                by_runtime["ONNX Runtime"], network.image, threads, spinning, own
            )
        answers = {f"{runtime}, {form}": it.answers for (runtime, form), it in forms.items()}
        differences = largest_differences({**answers, "Keras": network.answers()})
        timings = time_side_by_side(
            {
                f"{runtime}, {form}, {part}": run
                for (runtime, form), it in forms.items()
                for part, run in it.runs.items()
            },
            rounds,
        )
        return [
            Row(
                model=name,
                runtime=runtime,
                form=form,
                largest_difference=differences[f"{runtime}, {form}"],
                file_bytes=len(files[form][runtime].content),
                **forms[runtime, form].results(
                    {
                        part: timings[f"{runtime}, {form}, {part}"]
                        for part in forms[runtime, form].runs
                    }
                ),
            )
            for runtime in RUNTIMES
            for form in FORMS
        ]


def format_table(rows: Sequence[Row]) -> str:
    """Return the rows as lines of text, and the slowest operators below."""
    header = ["model", "runtime", "form", "whole ms", "quartiles", "transformer ms", "quartiles"]
    header += ["share %", "quartiles", "alone ms", "by difference", "localisation ms"]
    header += ["accounted %", "slowed by"]
    cells = [header]
    for row in rows:
        line = [row.model, row.runtime, row.form]
        line += [*_spread(row.whole_ms, 1, 3), *_spread(row.transformer_ms, 1, 3)]
        line += _spread(row.share, 100, 1)
        line += [
            f"{values.median:.3f}"
            for values in (row.alone_ms, row.by_difference_ms, row.localisation_ms)
        ]
        line += [f"{100 * row.accounted.median:.0f}"]
        line += ["-" if row.slowed_by is None else f"{row.slowed_by.median:.2f}"]
        cells.append(line)
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    lines = []
    for line in cells:
        named = [cell.ljust(width) for cell, width in zip(line[:3], widths, strict=False)]
        numbers = [cell.rjust(width) for cell, width in zip(line[3:], widths[3:], strict=True)]
        lines.append("  ".join(named + numbers))
    for row in rows:
        unit = " ms" if row.method == "profiler" else ""
        found = ", ".join(f"{name} {value:.4g}{unit}" for name, value in _first(row.operators))
        lines.append(f"  {row.model}, {row.runtime}, {row.form}: {found}")
    return "\n".join(lines)


def _spread(values: Quartiles, factor: float, digits: int) -> list[str]:
    q1, median, q3 = (factor * it for it in (values.q1, values.median, values.q3))
    return [f"{median:.{digits}f}", f"{q1:.{digits}f}-{q3:.{digits}f}"]


def _first(found: Mapping[str, float], count: int = 8) -> list[tuple[str, float]]:
    return list(found.items())[:count]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table for each network, and return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", nargs="+", action="extend", choices=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--spinning",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="let the threads of ONNX Runtime spin while they wait, as they would",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    given = parser.parse_args(argv)
    if given.rounds < 1 or given.threads < 1:
        parser.error("--rounds and --threads are 1 or more")
    prepare_process(given.threads, given.spinning)
    settings = {"rounds": given.rounds, "threads": given.threads, "spinning": given.spinning}
    rows: list[Row] = []
    for name in given.network or NETWORKS:
        try:
            some = measure(name, NETWORKS[name](), **settings)
        except WrongAnswerError as exc:
            print(f"failed: {name}: {exc}", file=sys.stderr)
            return 1
        rows += some
        print(format_table(some), end="\n\n", flush=True)
    written = record([], **settings)
    written["results"] = [asdict(row) for row in rows]
    print(", ".join(str(value) for value in written["machine"].values()))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(written, indent=2) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
