"""Say what a server is loaded with: how many requests at a time, or how many a second."""

from __future__ import annotations

import base64
import ipaddress
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stnkit.runtime.errors import InputError, one_line

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Arrivals", "LoadPlan"]

Arrivals = Literal["poisson", "even"]

_ARRIVALS_MOST = 20_000_000
_CONNECTIONS_MOST = 4096


@dataclass(frozen=True)
class LoadPlan:
    """What a server is loaded with.

    Closed loop, without a rate: every connection sends its next request when the answer to the one
    before has come. Open loop, with a rate: requests are sent at times that were drawn before,
    whatever the server does, and latencies count from those times. A server that stops for a
    second is seen by every request of that second.

    Attributes:
        port: where the server listens.
        request: the bytes of one HTTP/1.1 request, head and body; all requests are the same.
        connections: how many are kept open, 1 to 4096; of an open loop, how many requests can be
            on their way at once.
        duration_s: how long is measured.
        warm_up_s: how long it is loaded before that, >= 0.
        rate_per_s: arrivals a second of an open loop; None for a closed one.
        arrivals: of an open loop: `"poisson"`, as independent clients come, or `"even"`.
        timeout_s: a request without an answer for this long has failed.
        requests_most: of a closed loop: it ends after this many, warm-up included.
        expected: output name -> array that the server has to answer; nothing is compared where
            empty.
        atol: how far answers may be from those.
        host: an address of this machine's own loopback.
        seed: of the times of arrival.

    Raises:
        InputError: a number that makes no sense, or a host that is not this machine.
    """

    port: int
    request: bytes = field(repr=False)
    connections: int = 1
    duration_s: float = 5.0
    warm_up_s: float = 1.0
    rate_per_s: float | None = None
    arrivals: Arrivals = "poisson"
    timeout_s: float = 10.0
    requests_most: int = 10_000_000
    expected: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict, repr=False)
    atol: float = 1e-4
    host: str = "127.0.0.1"
    seed: int = 0

    def __post_init__(self) -> None:
        try:
            own = ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            own = False
        if not own:
            raise InputError(
                f'host is "{one_line(self.host)}": expected an address of this machine\'s own '
                "loopback, such as 127.0.0.1; load other machines with another tool"
            )
        if not self.request:
            raise InputError("the request is empty: expected the bytes of an HTTP/1.1 request")
        if self.arrivals not in ("poisson", "even"):
            raise InputError(f'arrivals is "{self.arrivals}": expected poisson or even')
        for name, value, low, high in (
            ("port", self.port, 1, 65535),
            ("connections", self.connections, 1, _CONNECTIONS_MOST),
            ("duration_s", self.duration_s, 1e-3, 86_400),
            ("warm_up_s", self.warm_up_s, 0, 3600),
            ("timeout_s", self.timeout_s, 1e-3, 3600),
            ("requests_most", self.requests_most, 1, _ARRIVALS_MOST),
            ("arrivals in all", self.arrivals_in_all, 0, _ARRIVALS_MOST),
        ):
            if not low <= value <= high:
                raise InputError(f"{name} is {value:g}: expected {low:g} to {high:g}")

    @property
    def whole_s(self) -> float:
        """Warm-up and measurement together, s."""
        return self.warm_up_s + self.duration_s

    @property
    def arrivals_in_all(self) -> int:
        """How many requests an open loop sends; 0 of a closed one."""
        if self.rate_per_s is None:
            return 0
        if not (math.isfinite(self.rate_per_s) and self.rate_per_s > 0):
            raise InputError(f"rate_per_s is {self.rate_per_s}: expected more than 0")
        return max(1, round(self.rate_per_s * self.whole_s))

    def arrival_times_ns(self) -> npt.NDArray[np.int64]:
        """Return when the requests of an open loop are due, ns from its start, in order.

        A Poisson process of which the number of arrivals is known is that many points drawn
        uniformly: so the rate is met exactly.
        """
        count = self.arrivals_in_all
        if self.arrivals == "even":
            at_s = np.arange(count) * (self.whole_s / max(1, count))
        else:
            at_s = np.sort(np.random.default_rng(self.seed).uniform(0, self.whole_s, count))
        return (at_s * 1e9).astype(np.int64)

    def to_bytes(self) -> bytes:
        """Return what `from_bytes` reads, for another process."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        fields["request"] = base64.b64encode(self.request).decode("ascii")
        fields["expected"] = {
            name: {
                "dtype": value.dtype.str,
                "shape": value.shape,
                "data": base64.b64encode(value.tobytes()).decode("ascii"),
            }
            for name, value in self.expected.items()
        }
        return json.dumps(fields).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> LoadPlan:
        """Return what `to_bytes` wrote."""
        fields = json.loads(content)
        fields["request"] = base64.b64decode(fields["request"])
        fields["expected"] = {
            name: np.frombuffer(base64.b64decode(it["data"]), it["dtype"]).reshape(it["shape"])
            for name, it in fields["expected"].items()
        }
        return cls(**fields)
