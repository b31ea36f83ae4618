"""What does the server do with five times as much as it can do?

Run: python -m benchmarks.serving.overload --json overload.json
Requests come as a Poisson process at five times the rate that the server was measured to answer at
most. It should go on answering as many as it can, within its deadline, and refuse all others at
once.

The load generator needs a core for some ten thousand requests a second, and so does a server to
refuse them: of a small network five times the capacity is more than that. So the default is digits
in batches of 64. What was offered and what was really sent is printed; where these differ, the
generator or the machine was at its end, and the ratio is what was sent. Latencies count from
sending: many connections are open, so that hardly a request waits for one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from benchmarks.peers.contender import UnavailableError
from benchmarks.report import record
from benchmarks.serving.capacity import add_options, capacity_per_s, subject_of
from benchmarks.serving.contenders import stnkit_command, stnkit_contenders
from benchmarks.serving.processes import running
from benchmarks.serving.tables import Claim
from stnkit.runtime.errors import StnkitError
from stnkit.runtime.timing.load import LoadPlan, LoadResult, Quantiles, measure_load

GOODPUT = 0.9
"""Which share of its capacity the server is said to answer still."""
REFUSED_MS = 50.0
"""Within which time it is said to refuse."""
UNAVAILABLE = 503


@dataclass(frozen=True)
class Overload:
    """What was found.

    Attributes:
        times: How many times its capacity was sent.
        goodput: Right answers a second over the capacity.
        accepted_ms: How long right answers took, from sending.
        refused_ms: How long refusals took, from sending; None where nothing was refused.
        refused_late: Share of the refusals that took longer than `REFUSED_MS`.
        others: What else went wrong, and how often.
    """

    times: float
    goodput: float
    accepted_ms: Quantiles | None
    refused_ms: Quantiles | None
    refused_late: float
    others: dict[str, int]


def overload_of(found: LoadResult, capacity_per_s: float) -> Overload:
    """Return what a load says about overload.

    Args:
        found: Of the load.
        capacity_per_s: What the server can do at most.
    """
    refused = found.status == UNAVAILABLE
    took_ns = (found.latency_ns - found.delay_ns)[refused]
    late = float(np.mean(took_ns > REFUSED_MS * 1e6)) if took_ns.size else 0.0
    return Overload(
        times=found.sent_per_s / capacity_per_s,
        goodput=found.answered_per_s / capacity_per_s,
        accepted_ms=found.latency_ms(from_sending=True),
        refused_ms=found.latency_ms(UNAVAILABLE, from_sending=True),
        refused_late=late,
        others={kind: n for kind, n in found.errors.items() if kind != f"http {UNAVAILABLE}"},
    )


def claims_of(it: Overload, deadline_ms: float) -> list[Claim]:
    """Return what the server is said to do, with what was found.

    Args:
        it: What was found.
        deadline_ms: The server's.
    """
    accepted = it.accepted_ms.p99 if it.accepted_ms else float("inf")
    return [
        Claim("goodput over capacity", it.goodput, GOODPUT, True),
        Claim("p99 of what was accepted, ms: the deadline", accepted, deadline_ms, False),
        Claim(f"refusals later than {REFUSED_MS:g} ms, share", it.refused_late, 0.01, False),
        Claim("answers that are neither 200 nor 503", sum(it.others.values()), 0, False),
    ]


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.set_defaults(bundle="digits", batch=64)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--times", type=float, default=5.0, help="the capacity")
    parser.add_argument("--connections", type=int, default=512)
    parser.add_argument("--timeout-ms", type=float, default=1000.0, help="the server's deadline")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print what was found, and return 1 if something did not hold."""
    parser = arguments()
    given = parser.parse_args(argv)
    if given.seconds <= 0 or given.times <= 0 or given.timeout_ms <= 0:
        parser.error("--seconds, --times and --timeout-ms are more than 0")
    try:
        return measure(given)
    except (StnkitError, UnavailableError) as exc:
        print(f"failed: {exc}", file=sys.stderr)
        return 1


def measure(given: argparse.Namespace) -> int:
    """Measure, print what was found, and return 1 if something did not hold.

    Args:
        given: The command line's options.

    Raises:
        StnkitError: The server answered wrongly where it had time.
        UnavailableError: It does not start.
    """
    subject = subject_of(given)
    load_before = os.getloadavg()[0]
    deadline = ["--timeout-ms", f"{given.timeout_ms:g}"]
    command = stnkit_command(subject, *deadline, *given.serve_option)
    log = given.environments / "run" / "overload.log"
    with running(command, log) as server:
        capacity = capacity_per_s(server, subject, given.at_once, 5.0)
        rate = given.times * capacity
        print(f"capacity {capacity:,.0f} requests/s, offered {rate:,.0f}", flush=True)
        plan = LoadPlan(
            server.port,
            stnkit_contenders()[0].request(subject),
            given.connections,
            duration_s=given.seconds,
            warm_up_s=2.0,
            rate_per_s=rate,
            timeout_s=given.timeout_ms / 1000 + 5,
            expected=subject.expected,
        )
        found = measure_load(plan)
        after = capacity_per_s(server, subject, given.at_once, 5.0)
    it = overload_of(found, capacity)
    print(
        f"sent {found.sent_per_s:,.0f}/s, {it.times:.2f} times the capacity; answered "
        f"{found.answered_per_s:,.0f}/s; generator busy {found.generator_busy:.0%}\n"
        f"accepted, ms: {it.accepted_ms}\nrefused, ms: {it.refused_ms}\n"
        f"late in sending, ms: {found.delay_ms()}\nstatuses and errors: {found.errors}\n"
        f"capacity afterwards {after:,.0f} requests/s"
    )
    claims = claims_of(it, given.timeout_ms)
    print("\n".join(map(str, claims)))
    if given.json:
        settings = {
            "load_average_before": load_before,
            "bundle": subject.bundle.name,
            "shapes": subject.shapes,
            "timeout_ms": given.timeout_ms,
            "serve_options": given.serve_option,
            "connections": given.connections,
        }
        results = {
            "capacity_per_s": capacity,
            "capacity_afterwards_per_s": after,
            "sent_per_s": found.sent_per_s,
            **asdict(it),
            "load": found.to_json(),
        }
        content = {**record([], **settings), "results": results}
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    return 0 if all(claim.held for claim in claims) else 1


if __name__ == "__main__":
    raise SystemExit(main())
