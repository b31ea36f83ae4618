"""Rows of the serving benchmarks, and what is computed of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stnkit.runtime.timing import Quartiles


@dataclass(frozen=True)
class Row:
    """One server with its settings, at one concurrency.

    Attributes:
        server: Name of the server.
        setting: What is special about its settings.
        connections: How many requests were on their way at once.
        per_s: Of each round, right answers a second; empty where it was not measured.
        p50_ms: Of each round, the median latency.
        p99_ms: Of each round, 99 % of the latencies were at most this.
        cpu_ms: Of each round, processor time of the server for a request.
        errors: How often what went wrong, in all rounds.
        reason: Why it was not measured, or None.
    """

    server: str
    setting: str
    connections: int
    per_s: tuple[float, ...] = ()
    p50_ms: tuple[float, ...] = ()
    p99_ms: tuple[float, ...] = ()
    cpu_ms: tuple[float, ...] = ()
    errors: Mapping[str, int] = field(default_factory=dict)
    reason: str | None = None

    @property
    def name(self) -> str:
        """As in tables."""
        return f"{self.server}, {self.setting}" if self.setting else self.server


def ratios(own: Sequence[float], other: Sequence[float]) -> Quartiles:
    """Return quartiles of the ratio within each round.

    Args:
        own: Of each round.
        other: Of the same rounds.
    """
    return Quartiles.of([mine / max(its, 1e-9) for mine, its in zip(own, other, strict=True)])


def differences(own: Sequence[float], other: Sequence[float]) -> Quartiles:
    """Return quartiles of the difference within each round.

    Args:
        own: Of each round.
        other: Of the same rounds.
    """
    return Quartiles.of([mine - its for mine, its in zip(own, other, strict=True)])


def best_of(rows: Sequence[Row], server: str, connections: int) -> Row | None:
    """Return a server's row with the most answers a second, by the median; None without any.

    Args:
        rows: Of all servers.
        server: Whose.
        connections: At which concurrency.
    """
    own = [row for row in rows if row.server == server and row.connections == connections]
    return max(
        (row for row in own if row.per_s),
        key=lambda row: Quartiles.of(row.per_s).median,
        default=None,
    )


def spread(values: Quartiles, digits: int) -> str:
    """Return a median with its quartiles, as in tables."""
    return f"{values.median:,.{digits}f} ({values.q1:,.{digits}f}-{values.q3:,.{digits}f})"


def format_rows(title: str, rows: Sequence[Row], own: str) -> str:
    """Return rows as lines of text, the servers' best settings compared with stnkit's.

    Args:
        title: Above the table.
        rows: All.
        own: Name of the server that the others are compared with; its first row is taken.
    """
    header = ["server", "at once", "requests/s", "p50 ms", "p99 ms", "CPU ms", f"{own} has"]
    lines = [header]
    for row in rows:
        if not row.per_s:
            continue
        same = [it for it in rows if it.server == own and it.connections == row.connections]
        mine = next((it for it in same if it.per_s), row)
        times = "-" if row is mine else f"x {spread(ratios(mine.per_s, row.per_s), 2)}"
        best = row.server != own and row is best_of(rows, row.server, row.connections)
        lines.append(
            [
                row.name,
                str(row.connections),
                spread(Quartiles.of(row.per_s), 0),
                spread(Quartiles.of(row.p50_ms), 2),
                spread(Quartiles.of(row.p99_ms), 2),
                spread(Quartiles.of(row.cpu_ms), 2) if row.cpu_ms else "-",
                f"{times} *" if best else times,
            ]
        )
    text = [title, *aligned(lines)]
    text += [f"  {row.name}: {row.reason}" for row in rows if row.reason]
    text += [f"  {row.name} at {row.connections}: {row.errors}" for row in rows if row.errors]
    return "\n".join([*text, "  * the server's best setting at that concurrency"])


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of cells as text: the first column to the left, the others to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  "
        + "  ".join(
            [
                line[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for line in lines
    ]


@dataclass(frozen=True)
class Claim:
    """What the server is said to do, and what was found.

    Attributes:
        text: What is said.
        found: The number that was found.
        bound: The number that is said.
        at_least: Whether the number has to be that or more; else that or less.
    """

    text: str
    found: float
    bound: float
    at_least: bool

    @property
    def held(self) -> bool:
        """Whether it is so; not where the number is none."""
        return self.found >= self.bound if self.at_least else self.found <= self.bound

    def __str__(self) -> str:
        relation = ">=" if self.at_least else "<="
        word = "held" if self.held else "NOT HELD"
        return f"  {word}: {self.text}: {self.found:.3g}, said {relation} {self.bound:g}"


@dataclass(frozen=True)
class Growth:
    """How much memory a server took on after its first minute.

    Attributes:
        settled_bytes: At the end of that minute: median of a few samples.
        last_bytes: At the end: median of a few samples.
        largest_bytes: Largest sample after that minute.
    """

    settled_bytes: float
    last_bytes: float
    largest_bytes: float

    @property
    def share(self) -> float:
        """Growth as a share of what it had."""
        return self.last_bytes / self.settled_bytes - 1


def growth(samples: Sequence[tuple[float, int]], settle_s: float) -> Growth:
    """Return how much memory grew after a while.

    Args:
        samples: Pairs of a time in s, ascending, and the memory then in bytes.
        settle_s: How long growth is not looked at.

    Raises:
        ValueError: Fewer than two samples after that.
    """
    late = [held for at_s, held in samples if at_s >= settle_s]
    if len(late) < 2:
        raise ValueError(f"{len(late)} samples after {settle_s:g} s: expected 2 or more")
    few = max(1, min(10, len(late) // 4))
    return Growth(
        settled_bytes=Quartiles.of(late[:few]).median,
        last_bytes=Quartiles.of(late[-few:]).median,
        largest_bytes=max(late),
    )
