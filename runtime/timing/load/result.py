"""Define what loading a server gives: every request with its times and status."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "CLOSED",
    "MALFORMED",
    "OK",
    "REFUSED",
    "TIMED_OUT",
    "WRONG_ANSWER",
    "LoadResult",
    "Quantiles",
]

OK = 200
REFUSED, CLOSED, MALFORMED, TIMED_OUT, WRONG_ANSWER = -1, -2, -3, -4, -5
_KINDS = {
    REFUSED: "connection refused",
    CLOSED: "connection closed",
    MALFORMED: "malformed answer",
    TIMED_OUT: "no answer in time",
    WRONG_ANSWER: "wrong answer",
}
_ARRAYS = {"scheduled_ns": "<i8", "delay_ns": "<i8", "latency_ns": "<i8", "status": "<i2"}


@dataclass(frozen=True)
class Quantiles:
    """Quantiles of times, ms.

    Attributes:
        count: how many times there were, >= 1.
        p50: half of them are at most this; the others likewise.
        p90: nine tenths.
        p99: 99 %.
        p99_9: 99.9 %.
        largest: all of them.
    """

    count: int
    p50: float
    p90: float
    p99: float
    p99_9: float
    largest: float

    @classmethod
    def of_ns(cls, times_ns: npt.NDArray[np.int64]) -> Quantiles | None:
        """Return those of some times in ns; None where there are none."""
        if not times_ns.size:
            return None
        values = np.percentile(times_ns, [50, 90, 99, 99.9, 100], method="higher") / 1e6
        return cls(times_ns.size, *(float(value) for value in values))

    def to_json(self) -> dict[str, float]:
        """Return a dict of JSON values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, eq=False)
class LoadResult:
    """What loading a server gave.

    Attributes:
        scheduled_ns: `[requests]` int64: when each was to be sent, from the start of the warm-up;
            in a closed loop when it was.
        delay_ns: `[requests]` int64: how much later than that it was sent: no connection was free,
            or the generator was late; equal to `latency_ns` where it never was.
        latency_ns: `[requests]` int64: from the time at which it was to be sent to its end.
        status: `[requests]` int16: the HTTP status, or a negative number: what failed.
        warm_up_s: how long nothing was measured.
        duration_s: how long was measured.
        connections: how many were kept open.
        sent_bytes: in all.
        received_bytes: in all.
        cpu_s: processor time of the generator.
        wall_s: its time.
        problem: what was wrong with the first answer that was not right, or None.
    """

    scheduled_ns: npt.NDArray[np.int64] = field(repr=False)
    delay_ns: npt.NDArray[np.int64] = field(repr=False)
    latency_ns: npt.NDArray[np.int64] = field(repr=False)
    status: npt.NDArray[np.int16] = field(repr=False)
    warm_up_s: float
    duration_s: float
    connections: int
    sent_bytes: int
    received_bytes: int
    cpu_s: float
    wall_s: float
    problem: str | None = None

    @property
    def requests(self) -> int:
        """How many requests were sent or should have been, warm-up included."""
        return int(self.status.size)

    @property
    def errors(self) -> dict[str, int]:
        """How often what went wrong, warm-up included; an empty dict where nothing did."""
        codes, counts = np.unique(self.status[self.status != OK], return_counts=True)
        return {
            _KINDS.get(int(code), f"http {code}"): int(count)
            for code, count in zip(codes, counts, strict=True)
        }

    @property
    def answered_per_s(self) -> float:
        """Right answers that came while it was measured, a second."""
        done_ns = self.scheduled_ns + self.latency_ns
        counted = (self.status == OK) & (done_ns >= self.warm_up_s * 1e9)
        counted &= done_ns < (self.warm_up_s + self.duration_s) * 1e9
        return int(counted.sum()) / self.duration_s

    @property
    def offered_per_s(self) -> float:
        """Requests that were due while it was measured, a second."""
        return int(self._measured().sum()) / self.duration_s

    @property
    def sent_per_s(self) -> float:
        """Requests that the generator sent in that time, a second: less where it is too slow."""
        sent_ns = self.scheduled_ns + self.delay_ns
        counted = (sent_ns >= self.warm_up_s * 1e9) & (self.delay_ns < self.latency_ns)
        counted &= sent_ns < (self.warm_up_s + self.duration_s) * 1e9
        return int(counted.sum()) / self.duration_s

    @property
    def generator_busy(self) -> float:
        """Processor time of the generator over its time: near 1 it is what was measured."""
        return self.cpu_s / self.wall_s

    def latency_ms(
        self, status: int = OK, *, from_sending: bool = False, warm_up: bool = False
    ) -> Quantiles | None:
        """Return how long answers took that were due while it was measured.

        Args:
            status: those of this HTTP status.
            from_sending: from the moment of sending, not from that when they were due.
            warm_up: those of the warm-up too.

        Returns:
            Quantiles; None where there is no such answer.
        """
        chosen = self.status == status
        if not warm_up:
            chosen &= self._measured()
        times_ns = self.latency_ns[chosen]
        return Quantiles.of_ns(times_ns - self.delay_ns[chosen] if from_sending else times_ns)

    def delay_ms(self) -> Quantiles | None:
        """Return how late requests were sent that were due while it was measured."""
        return Quantiles.of_ns(self.delay_ns[self._measured()])

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values: numbers about the requests, not these themselves."""
        latency, delay = self.latency_ms(), self.delay_ms()
        return {
            "connections": self.connections,
            "warm_up_s": self.warm_up_s,
            "duration_s": self.duration_s,
            "requests": self.requests,
            "offered_per_s": self.offered_per_s,
            "answered_per_s": self.answered_per_s,
            "latency_ms": None if latency is None else latency.to_json(),
            "delay_ms": None if delay is None else delay.to_json(),
            "errors": self.errors,
            "problem": self.problem,
            "sent_bytes": self.sent_bytes,
            "received_bytes": self.received_bytes,
            "generator_busy": self.generator_busy,
        }

    def to_bytes(self) -> bytes:
        """Return what `from_bytes` reads, for another process."""
        single = {n: getattr(self, n) for n in self.__dataclass_fields__ if n not in _ARRAYS}
        head = json.dumps({**single, "requests": self.requests}).encode()
        arrays = [getattr(self, name).astype(dtype).tobytes() for name, dtype in _ARRAYS.items()]
        return b"\n".join([head, b"".join(arrays)])

    @classmethod
    def from_bytes(cls, content: bytes) -> LoadResult:
        """Return what `to_bytes` wrote."""
        head, _, raw = content.partition(b"\n")
        fields = json.loads(head)
        count, at = fields.pop("requests"), 0
        for name, dtype in _ARRAYS.items():
            fields[name] = np.frombuffer(raw, dtype, count, at)
            at += fields[name].nbytes
        return cls(**fields)

    def _measured(self) -> npt.NDArray[np.bool_]:
        return self.scheduled_ns >= self.warm_up_s * 1e9
