"""Does the server stay as it is under load: no error, and no more memory?

Run: python -m benchmarks.serving.endurance --json endurance.json
Requests come as a Poisson process at 80 % of what the server was measured to answer at most, for
ten minutes. The memory of its processes is read every second. What is quoted as growth is the
median of the last samples over that of the samples after the first minute.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.peers.contender import UnavailableError
from benchmarks.report import record
from benchmarks.serving.capacity import add_options, capacity_per_s, subject_of
from benchmarks.serving.contenders import stnkit_command, stnkit_contenders
from benchmarks.serving.processes import Server, running
from benchmarks.serving.tables import Claim, growth
from stnkit.runtime.errors import StnkitError
from stnkit.runtime.timing.load import LoadPlan, measure_load

GROWTH = 0.02
"""How much of its memory the server is said to take on at most."""


class MemoryWatch(threading.Thread):
    """Reads the memory of a server every second until it is told to stop.

    Args:
        server: Whose.
        every_s: How often.
    """

    def __init__(self, server: Server, every_s: float = 1.0) -> None:
        super().__init__(daemon=True)
        self.samples: list[tuple[float, int]] = []
        self._server = server
        self._every_s = every_s
        self._over = threading.Event()

    def run(self) -> None:
        """Read."""
        began = time.monotonic()
        while not self._over.is_set():
            self.samples.append((time.monotonic() - began, self._server.rss_bytes()))
            self._over.wait(self._every_s)

    def stop(self) -> None:
        """End, after the sample that is being read."""
        self._over.set()
        self.join()


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.set_defaults(bundle="digits")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--settle", type=float, default=60.0, help="s, whose growth is not counted")
    parser.add_argument("--share", type=float, default=0.8, help="of the capacity")
    parser.add_argument("--connections", type=int, default=64)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print what was found, and return 1 if something did not hold."""
    parser = arguments()
    given = parser.parse_args(argv)
    if not 0 < given.settle < given.seconds - 2 or given.share <= 0:
        parser.error("--settle is shorter than --seconds by 2 or more, and --share is more than 0")
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
    command = stnkit_command(subject, *given.serve_option)
    log = given.environments / "run" / "endurance.log"
    with running(command, log) as server:
        capacity = capacity_per_s(server, subject, given.at_once, 5.0)
        rate = given.share * capacity
        print(f"capacity {capacity:,.0f} requests/s, offered {rate:,.0f}", flush=True)
        plan = LoadPlan(
            server.port,
            stnkit_contenders()[0].request(subject),
            given.connections,
            duration_s=given.seconds,
            warm_up_s=0,
            rate_per_s=rate,
            expected=subject.expected,
        )
        watch = MemoryWatch(server)
        watch.start()
        before_s = server.cpu_s()
        try:
            found = measure_load(plan)
        finally:
            watch.stop()
        cores_busy = (server.cpu_s() - before_s) / given.seconds
    grown = growth(watch.samples, given.settle)
    latency, delay = found.latency_ms(), found.delay_ms()
    print(
        f"{found.requests:,} requests, {found.answered_per_s:,.0f} answered/s, errors: "
        f"{found.errors or 'none'}\nlatency from the time it was due: {latency}\n"
        f"of which late in sending: {delay}\n"
        f"memory after {given.settle:g} s {grown.settled_bytes / 2**20:.1f} MiB, at the end "
        f"{grown.last_bytes / 2**20:.1f}, at most {grown.largest_bytes / 2**20:.1f}; "
        f"{cores_busy:.2f} cores busy"
    )
    claims = [
        Claim("growth of memory", grown.share, GROWTH, False),
        Claim("errors", sum(found.errors.values()), 0, False),
    ]
    print("\n".join(map(str, claims)))
    if given.json:
        content = {
            **record([], load_average_before=load_before, bundle=subject.bundle.name),
            "results": {
                "capacity_per_s": capacity,
                "load": found.to_json(),
                "settled_bytes": grown.settled_bytes,
                "last_bytes": grown.last_bytes,
                "largest_bytes": grown.largest_bytes,
                "growth": grown.share,
                "cores_busy": cores_busy,
                "rss_bytes_every_10_s": [held for _, held in watch.samples[::10]],
            },
        }
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    return 0 if all(claim.held for claim in claims) else 1


if __name__ == "__main__":
    raise SystemExit(main())
