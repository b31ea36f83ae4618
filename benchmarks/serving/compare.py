"""How many requests a second does each server answer, and how long do they take?

Run: python -m benchmarks.serving.compare --json compare.json
Without options it serves the shipped digits model, 1x28x28x1, and takes a quarter of an hour. The
other servers are installed into environments of their own the first time, in `--environments`; one
that cannot be is named with the reason.

All servers run at once, each on its own ports of the loopback, and are asked in turns, round by
round, in an order drawn anew for every round: what is quoted is the median over the rounds, with
its quartiles, and the ratio within a round. The load generator (`stnkit.runtime.timing.load`) is
a process of its own on the same machine: it takes its share of the cores from every server alike.
Requests are the same bytes again and again; of every connection the first answer is compared with
that of the session alone. The session without a server has its turns too, in this process: the
latency that a server adds is its median at one request at a time less the session's.

"CPU ms" is the processor time of all processes of a server for a request. On two cores it bounds
the requests a second; where other work takes a part of the machine, it changes less than these do.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.peers.contender import UnavailableError
from benchmarks.report import record
from benchmarks.serving.contenders import PEERS, STNKIT, Contender, stnkit_contenders
from benchmarks.serving.environments import cache_folder
from benchmarks.serving.processes import Server, running
from benchmarks.serving.subject import (
    BARE,
    Bare,
    BareTime,
    Subject,
    digits_bundle,
    make_subject,
    open_bare,
    time_bare,
)
from benchmarks.serving.tables import (
    Claim,
    Row,
    aligned,
    best_of,
    differences,
    format_rows,
    ratios,
    spread,
)
from stnkit.runtime import Session
from stnkit.runtime.timing import Quartiles
from stnkit.runtime.timing.load import LoadPlan, LoadResult, measure_load

FASTER = {"MLServer": 8.0, "PyTriton": 3.0}
"""How many times the requests/s of these the server is said to answer."""
ADDED_MS = 0.35
"""How much longer than the bare session's run its median answer is said to take."""
SERVER_PACKAGES = ("uvicorn", "httptools", "uvloop", "orjson", "grpcio")


@dataclass
class Found:
    """What was measured of one server at one concurrency, round by round."""

    results: list[LoadResult] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def turn(self, plan: LoadPlan, server: Server) -> None:
        """Let the server have a turn."""
        before_s = server.cpu_s()
        result = measure_load(plan)
        self.results.append(result)
        self.cpu_ms.append((server.cpu_s() - before_s) * 1000 / max(1, result.requests))

    def row(self, contender: Contender, connections: int) -> Row:
        """Return it as a row."""
        latency = [result.latency_ms() for result in self.results]
        errors = sum((Counter(result.errors) for result in self.results), Counter[str]())
        return Row(
            contender.server,
            contender.setting,
            connections,
            tuple(result.answered_per_s for result in self.results),
            tuple(it.p50 if it else float("inf") for it in latency),
            tuple(it.p99 if it else float("inf") for it in latency),
            tuple(self.cpu_ms),
            dict(errors),
        )


def contenders_of(
    names: Sequence[str], root: Path, threads: int, options: tuple[str, ...]
) -> tuple[list[Contender], list[Row]]:
    """Return who takes part, and rows of those that cannot.

    Args:
        names: Of the other servers.
        root: Folder of all environments.
        threads: Of their sessions.
        options: Of stnkit's command line.
    """
    found, missing = stnkit_contenders(options), []
    for name in names:
        try:
            found += PEERS[name](root, threads)
        except UnavailableError as exc:
            missing.append(Row(name, "", 0, reason=str(exc)))
    return found, missing


def fastest_threads(subject: Subject) -> int:
    """Return with how many threads the session alone is fastest for one caller."""
    took = {}
    for threads in (1, os.cpu_count() or 1):
        way = Bare(threads, 1)
        with open_bare(subject, way) as session:
            took[threads] = min(time_bare(session, subject, way, 0.3).median_ms for _ in range(3))
    return min(took, key=lambda threads: took[threads])


def measure_all(
    subject: Subject,
    servers: Sequence[tuple[Contender, Server]],
    at_once: Sequence[int],
    rounds: int,
    duration_s: float,
) -> tuple[list[Row], dict[Bare, list[BareTime]]]:
    """Let everybody have a turn in every round.

    Args:
        subject: What is asked.
        servers: Those that run.
        at_once: Concurrencies.
        rounds: How many.
        duration_s: Of one turn.
    """
    found: dict[tuple[int, int], Found] = {}
    alone: dict[Bare, list[BareTime]] = {way: [] for way in BARE}
    turns: list[Callable[[], None]] = []
    with ExitStack() as stack:
        for way in BARE:
            session = stack.enter_context(open_bare(subject, way))

            def turn_alone(way: Bare = way, session: Session = session) -> None:
                alone[way].append(time_bare(session, subject, way, duration_s / 2))

            turns.append(turn_alone)
        for place, (contender, server) in enumerate(servers):
            request = contender.request(subject)
            for connections in at_once:
                plan = LoadPlan(
                    server.port,
                    request,
                    connections,
                    duration_s=duration_s,
                    warm_up_s=duration_s / 4,
                    expected=subject.expected,
                )
                own = found[place, connections] = Found()
                turns.append(partial(own.turn, plan, server))
        shuffle = random.Random(0).shuffle
        for done in range(rounds):
            shuffle(turns)
            for turn in turns:
                turn()
            print(f"round {done + 1} of {rounds}", file=sys.stderr, flush=True)
    rows = [
        found[place, connections].row(contender, connections)
        for place, (contender, _) in enumerate(servers)
        for connections in at_once
    ]
    return rows, alone


def claims_of(rows: Sequence[Row], alone: dict[Bare, list[BareTime]]) -> list[Claim]:
    """Return what the server is said to do, with what was found."""
    claims = []
    for server, times in FASTER.items():
        for row in (row for row in rows if row.server == STNKIT and not row.setting):
            other = best_of(rows, server, row.connections)
            if other is not None:
                ratio = ratios(row.per_s, other.per_s).median
                text = f"requests/s over {other.name}, {row.connections} at once"
                claims.append(Claim(text, ratio, times, True))
    added = added_ms(rows, alone)
    if added is not None:
        text = "ms that serving adds to the median run, 1 at a time"
        claims.append(Claim(text, added.median, ADDED_MS, False))
    return claims


def added_ms(rows: Sequence[Row], alone: dict[Bare, list[BareTime]]) -> Quartiles | None:
    """Return by how much the server's median is longer than the session's, at its fastest, ms."""
    one = [row for row in rows if row.server == STNKIT and row.connections == 1]
    single = {way: [it.median_ms for it in times] for way, times in alone.items() if times}
    single = {way: times for way, times in single.items() if way.callers == 1}
    if not one or not single:
        return None
    fastest = min(single.values(), key=lambda times: Quartiles.of(times).median)
    return differences(one[0].p50_ms, fastest)


def format_alone(alone: dict[Bare, list[BareTime]]) -> str:
    """Return the sessions without a server as lines of text."""
    lines = [["without a server", "runs/s", "median ms"]]
    for way, times in alone.items():
        per_s = Quartiles.of([it.runs_per_s for it in times])
        median = Quartiles.of([it.median_ms for it in times])
        lines.append([way.name, spread(per_s, 0), spread(median, 3)])
    return "\n".join(aligned(lines))


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, help="default: the shipped digits model")
    parser.add_argument("--batch", type=int, default=1, help="items in a request")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 8, 32], metavar="N")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one turn")
    parser.add_argument("--peer", nargs="*", choices=list(PEERS), default=list(PEERS))
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
    if given.rounds < 1 or given.seconds <= 0 or min(given.at_once) < 1 or given.batch < 1:
        parser.error("--rounds, --seconds, --at-once and --batch are more than 0")
    root = given.environments
    load_before = os.getloadavg()[0]
    subject = make_subject(given.bundle or digits_bundle(root), given.batch)
    threads = fastest_threads(subject)
    contenders, rows = contenders_of(given.peer, root, threads, tuple(given.serve_option))
    with ExitStack() as stack:
        servers = []
        for contender in contenders:
            folder = root / "run" / contender.name.replace(", ", "-").replace(" ", "_")
            try:
                command = contender.command(subject, folder)
                server = stack.enter_context(running(command, folder.with_suffix(".log")))
            except UnavailableError as exc:
                rows.append(Row(contender.server, contender.setting, 0, reason=str(exc)))
            else:
                servers.append((contender, server))
        measured, alone = measure_all(subject, servers, given.at_once, given.rounds, given.seconds)
    rows = measured + rows
    title = f"{subject.bundle.name}, {subject.artifact}, {subject.shapes}, {given.rounds} rounds"
    print(format_rows(title, rows, STNKIT), format_alone(alone), sep="\n\n", end="\n\n")
    claims = claims_of(rows, alone)
    print("\n".join(map(str, claims)))
    if given.json:
        added = added_ms(rows, alone)
        settings = {
            "artifact": subject.artifact,
            "shapes": subject.shapes,
            "rounds": given.rounds,
            "turn_s": given.seconds,
            "load_average_before": load_before,
            "session_threads_of_others": threads,
            "server_versions": {it.server: dict(it.versions) for it in contenders},
            "serve_options": given.serve_option,
            "added_ms": added.to_json() if added else None,
            "without_a_server": {
                way.name: [[it.runs_per_s, it.median_ms] for it in times]
                for way, times in alone.items()
            },
            "claims": [{"text": c.text, "found": c.found, "said": c.bound} for c in claims],
        }
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(record(rows, **settings), indent=2) + "\n", "utf-8")
    wrong = [row for row in rows if row.errors]
    for row in wrong:
        print(f"failed: {row.name} at {row.connections}: {row.errors}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
