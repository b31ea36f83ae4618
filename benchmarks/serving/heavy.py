"""Which share of what the session can do alone does the server pass on, for a large network?

Run: python -m benchmarks.serving.heavy --json heavy.json
MobileNetV2 behind a transformer at 224 px. The first run makes and converts it, in TensorFlow.

The session alone is run in several ways, with one and two threads and callers, and the best is what
counts; the server decides for itself. They have turns, round by round, in an order drawn anew; the
share is taken within a round. A request holds a whole batch, of the size that the session runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.report import record
from benchmarks.serving.compare import format_alone, measure_all
from benchmarks.serving.contenders import STNKIT, stnkit_contenders
from benchmarks.serving.environments import cache_folder
from benchmarks.serving.processes import running
from benchmarks.serving.subject import Bare, BareTime, make_subject, mobilenet_bundle
from benchmarks.serving.tables import Claim, Row, best_of, format_rows, ratios
from stnkit.runtime.timing import Quartiles

SHARE = 0.95
"""Which share of the bare session's best the server is said to give."""


def share_of_best(
    rows: Sequence[Row], alone: dict[Bare, list[BareTime]]
) -> tuple[Row, Bare, Quartiles]:
    """Return the server's best, the session's best, and their ratio within a round.

    Args:
        rows: Of the server, at several concurrencies.
        alone: Of the session, in several ways.
    """
    served = [best_of(rows, STNKIT, row.connections) for row in rows if row.server == STNKIT]
    best = max((it for it in served if it), key=lambda row: Quartiles.of(row.per_s).median)
    per_s = {way: [it.runs_per_s for it in times] for way, times in alone.items()}
    way = max(per_s, key=lambda way: Quartiles.of(per_s[way]).median)
    return best, way, ratios(best.per_s, per_s[way])


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, help="default: MobileNetV2 at 224 px")
    parser.add_argument("--artifact", default="onnx", help="file name or format")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 2, 4, 8], metavar="N")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of one turn")
    parser.add_argument("--environments", type=Path, default=cache_folder(), metavar="FOLDER")
    parser.add_argument(
        "--serve-option",
        action="append",
        default=[],
        metavar="OPTION",
        help="of `stnkit serve`, as in --serve-option=--threads=1; may be repeated",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and return 1 if an answer was wrong or missing."""
    parser = arguments()
    given = parser.parse_args(argv)
    if given.rounds < 1 or given.seconds <= 0 or min(*given.at_once, *given.batch) < 1:
        parser.error("--rounds, --seconds, --at-once and --batch are more than 0")
    bundle = given.bundle or mobilenet_bundle(given.environments)
    load_before = os.getloadavg()[0]
    contender = stnkit_contenders(tuple(given.serve_option))[0]
    results, wrong = [], []
    for batch in given.batch:
        subject = make_subject(bundle, batch, given.artifact)
        folder = given.environments / "run" / "heavy"
        command = contender.command(subject, folder)
        with running(command, folder.with_suffix(".log")) as server:
            rows, alone = measure_all(
                subject, [(contender, server)], given.at_once, given.rounds, given.seconds
            )
        best, way, share = share_of_best(rows, alone)
        title = f"{bundle.name}, {subject.artifact}, {subject.shapes}, {given.rounds} rounds"
        print(format_rows(title, rows, STNKIT), format_alone(alone), sep="\n\n")
        text = f"of {way.name}, batch {batch}, {best.connections} at once"
        print(Claim(text, share.median, SHARE, True), end="\n\n", flush=True)
        results.append(
            {
                "batch": batch,
                "artifact": subject.artifact,
                "served_at_once": best.connections,
                "served_per_s": list(best.per_s),
                "alone": way.name,
                "alone_per_s": [it.runs_per_s for it in alone[way]],
                "share": share.to_json(),
            }
        )
        wrong += [row for row in rows if row.errors]
    if given.json:
        settings = {
            "bundle": bundle.name,
            "rounds": given.rounds,
            "turn_s": given.seconds,
            "load_average_before": load_before,
            "serve_options": given.serve_option,
        }
        content = {**record([], **settings), "results": results}
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    for row in wrong:
        print(f"failed: {row.name} at {row.connections}: {row.errors}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
