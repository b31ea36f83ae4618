"""How much a server can do at most, and what the endurance and overload runs share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.serving.contenders import stnkit_contenders
from benchmarks.serving.environments import cache_folder
from benchmarks.serving.processes import Server
from benchmarks.serving.subject import Subject, digits_bundle, make_subject, mobilenet_bundle
from stnkit.runtime.errors import StnkitError
from stnkit.runtime.timing.load import LoadPlan, measure_load

BUNDLES = {"digits": digits_bundle, "mobilenet": mobilenet_bundle}


def capacity_per_s(
    server: Server, subject: Subject, at_once: Sequence[int], duration_s: float
) -> float:
    """Return the most requests a second that a server answers in a closed loop.

    Args:
        server: Is asked.
        subject: For what.
        at_once: Concurrencies that are tried.
        duration_s: Of each.

    Raises:
        StnkitError: An answer was wrong or missing.
    """
    request = stnkit_contenders()[0].request(subject)
    best = 0.0
    for connections in at_once:
        plan = LoadPlan(server.port, request, connections, duration_s, expected=subject.expected)
        found = measure_load(plan)
        if found.errors:
            raise StnkitError(f"not every answer was right: {found.errors} {found.problem or ''}")
        best = max(best, found.answered_per_s)
    return best


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what both scripts take."""
    parser.add_argument("--bundle", help=f"a folder, or {' or '.join(BUNDLES)}")
    parser.add_argument("--batch", type=int, default=1, help="items in a request")
    parser.add_argument("--at-once", type=int, nargs="+", default=[8, 32], metavar="N")
    parser.add_argument("--environments", type=Path, default=cache_folder(), metavar="FOLDER")
    parser.add_argument(
        "--serve-option",
        action="append",
        default=[],
        metavar="OPTION",
        help="of `stnkit serve`, as in --serve-option=--threads=1; may be repeated",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")


def subject_of(given: argparse.Namespace) -> Subject:
    """Return what the options name."""
    name = given.bundle
    folder = BUNDLES[name](given.environments) if name in BUNDLES else Path(name)
    return make_subject(folder, given.batch)
