"""One request on its way through a model's queue, and how its answer gets back to its loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from stnkit.runtime.errors import StnkitError
from stnkit.runtime.serving.errors import DeadlineError, ServingError

if TYPE_CHECKING:
    import numpy.typing as npt

    Arrays = Mapping[str, npt.NDArray[Any]]

__all__ = ["RetiredError", "Waiter", "Work", "deliver", "deliver_here"]

_LOG = logging.getLogger("stnkit.serving")


class RetiredError(StnkitError):
    """The batcher takes no more work: another one has its place."""


class Waiter(Protocol):
    """Who waits for an answer, on an event loop: one of asyncio's futures, or what is like one."""

    def done(self) -> bool:
        """Return whether nothing is waited for any more."""

    def set_result(self, outputs: Arrays, /) -> None:
        """Take the answer."""

    def set_exception(self, error: ServingError, /) -> None:
        """Take what is said in place of an answer."""


class Work:
    """One request in the queue.

    Args:
        inputs: input name -> array, checked.
        items: how many items the arrays hold.
        key: requests with equal keys may run in one batch.
        timeout_ms: time until the answer must be there.
        waiter: who waits for the outputs, on the event loop that runs here; None makes a future.

    Attributes:
        future: the one who waits; a request whose answer nobody waits for does not run.
    """

    __slots__ = ("arrived_ns", "deadline_ns", "future", "inputs", "items", "key", "loop")

    def __init__(
        self,
        inputs: Arrays,
        items: int,
        key: Hashable,
        timeout_ms: float,
        waiter: Waiter | None = None,
    ) -> None:
        self.inputs = inputs
        self.items = items
        self.key = key
        self.loop = asyncio.get_running_loop()
        self.future: Waiter = self.loop.create_future() if waiter is None else waiter
        self.arrived_ns = time.monotonic_ns()
        self.deadline_ns = self.arrived_ns + int(timeout_ms * 1e6)

    def expire_soon(self) -> None:
        """Have `expire` called on the loop; any thread may ask for it."""
        _on_loop(self.loop, self.expire)

    def expire(self) -> None:
        """End the wait with `DeadlineError`; to be called on the loop."""
        if not self.future.done():
            waited_ms = (time.monotonic_ns() - self.arrived_ns) / 1e6
            self.future.set_exception(
                DeadlineError(
                    f"the request's time was over after {waited_ms:.0f} ms: allow more time, or "
                    "send fewer requests at once"
                )
            )


def deliver(results: Sequence[tuple[Work, Arrays | ServingError]]) -> None:
    """Give answers to who waits for them, each on its own loop; mostly there is one.

    Args:
        results: requests, with their outputs or what is said in place of them.
    """
    loops: dict[asyncio.AbstractEventLoop, list[tuple[Work, Arrays | ServingError]]] = {}
    for result in results:
        loops.setdefault(result[0].loop, []).append(result)
    for loop, there in loops.items():
        _on_loop(loop, deliver_here, there)


def _on_loop(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *args: object) -> None:
    try:
        loop.call_soon_threadsafe(call, *args)
    except RuntimeError:  # the loop is closed: nobody waits
        _LOG.debug("an answer came after its loop had ended")


def deliver_here(results: Sequence[tuple[Work, Arrays | ServingError]]) -> None:
    """Give answers to who waits for them on the loop that runs here.

    Args:
        results: as for `deliver`.
    """
    for work, value in results:
        if work.future.done():
            continue
        if isinstance(value, ServingError):
            work.future.set_exception(value)
        else:
            work.future.set_result(value)
