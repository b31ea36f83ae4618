"""How fast is an exported spatial transformer, beside the other ways to warp an image by a theta?

Run: python benchmarks/samplers.py --shape 1x224x224x3 --transform affine --target tflite onnx
Without options everything is measured; with --json FILE the result is written too.

Every contender takes an image and a theta and gives the warped image: bilinear, padded with zeros,
`align_corners=False`, float32, on two threads. Its answer is compared with a float64 reference
before it is timed; one that is wrong is refused, and the benchmark fails. The contenders of a
target are timed in turns, in one process: see `benchmarks/timing.py`. Sizes are those of files that
hold nothing but the transformer.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cases import SHAPES, TRANSFORMS, Case, make_inputs, parse_shape
from benchmarks.peers.contender import (
    TARGETS,
    TRAINING,
    Contender,
    Job,
    Prepared,
    Target,
    UnavailableError,
)
from benchmarks.peers.registry import BASELINE, CONTENDERS
from benchmarks.reference import EXACT, WrongAnswerError, check_answer, reference
from benchmarks.report import Row, format_table, record
from benchmarks.timing import time_side_by_side
from benchmarks.waiting import prepare_process


class Failures(list[str]):
    """What makes the benchmark fail; collected, so that the others are still measured."""


def measure(
    job: Job, target: Target, contenders: Sequence[Contender], rounds: int, failures: Failures
) -> list[Row]:
    """Return a row for every contender of a target, timed where its answer is right.

    Args:
        job: The case and how it is run.
        target: The target.
        contenders: Who takes part, where they can.
        rounds: How often each has its turn.
        failures: Where wrong answers and unexpected errors are added.
    """
    expected = reference(job.case, job.inputs, gradients=target in TRAINING)
    rows: dict[str, Row] = {}
    ready: dict[str, Prepared] = {}
    for contender in contenders:
        if target not in contender.builds or job.case.transform not in contender.transforms:
            continue
        tolerance = contender.tolerance or EXACT[job.case.transform]
        row = Row(target, job.case.shape_name, job.case.transform, contender.name)
        try:
            prepared = contender.builds[target](job)
            error = check_answer(prepared.answer(prepared.run()), expected, tolerance)
        except UnavailableError as exc:
            row = replace(row, reason=str(exc))
        except WrongAnswerError as exc:
            row = replace(row, reason=f"refused: {exc}")
            failures.append(f"{contender.name}, {target}, {job.case}: {exc}")
        except Exception as exc:  # a converter raises whatever it likes
            text = " ".join(f"{type(exc).__name__}: {exc}".split())[:300]
            row = replace(row, reason=f"cannot be made: {text}")
            if not contender.may_fail:
                failures.append(f"{contender.name}, {target}, {job.case}: {text}")
        else:
            ready[contender.name] = prepared
            row = replace(
                row,
                file_bytes=prepared.file_bytes,
                max_error=error,
                tolerance=tolerance,
            )
        rows[contender.name] = row
    if not ready:
        return list(rows.values())
    timings = time_side_by_side(
        {name: it.run for name, it in ready.items()},
        rounds,
        runs_per_call={name: it.runs for name, it in ready.items()},
    )
    baseline = timings.get(BASELINE)
    for name, timing in timings.items():
        rows[name] = replace(
            rows[name],
            time_ms=timing.time_ms,
            ratio=timing.ratio_to(baseline) if baseline else None,
            runs_per_round=timing.runs_per_turn,
        )
    return list(rows.values())


def measure_all(
    given: argparse.Namespace, failures: Failures
) -> Iterator[tuple[Target, list[Row]]]:
    """Yield one target and case after the other, with its rows."""
    chosen = [c for c in CONTENDERS if not given.contender or c.name in given.contender]
    if not any(c.name == BASELINE for c in chosen):
        chosen += [c for c in CONTENDERS if c.name == BASELINE]
    for shape in given.shape or SHAPES:
        for transform in given.transform or TRANSFORMS:
            case = Case(parse_shape(shape), transform)
            job = Job(case, make_inputs(case), given.threads, given.spinning)
            for target in given.target or TARGETS:
                yield target, measure(job, target, chosen, given.rounds, failures)


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", nargs="+", action="extend", help=f"default: {' '.join(SHAPES)}")
    parser.add_argument("--transform", nargs="+", action="extend", choices=TRANSFORMS)
    parser.add_argument("--target", nargs="+", action="extend", choices=list(TARGETS))
    parser.add_argument(
        "--contender",
        nargs="+",
        action="extend",
        choices=[contender.name for contender in CONTENDERS],
        help=f"measured beside {BASELINE!r}",
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--spinning",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="let the threads of ONNX Runtime and of OpenMP spin while they wait, as they would",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table for each target and case, and return 1 if anything was wrong."""
    parser = arguments()
    given = parser.parse_args(argv)
    try:
        for shape in given.shape or SHAPES:
            parse_shape(shape)
    except ValueError as exc:
        parser.error(str(exc))
    if given.rounds < 1 or given.threads < 1:
        parser.error("--rounds and --threads are 1 or more")
    prepare_process(given.threads, given.spinning)
    failures = Failures()
    rows: list[Row] = []
    for target, some in measure_all(given, failures):
        first = some[0]
        title = f"{first.shape} {first.transform}, {TARGETS[target]}"
        print(format_table(title, some, BASELINE), end="\n\n", flush=True)
        rows += some
        if given.json:
            settings = {
                "baseline": BASELINE,
                "rounds": given.rounds,
                "threads": given.threads,
                "spinning": given.spinning,
            }
            given.json.parent.mkdir(parents=True, exist_ok=True)
            given.json.write_text(json.dumps(record(rows, **settings), indent=2) + "\n", "utf-8")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
