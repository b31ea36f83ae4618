"""Reading many tensors from inside a model without holding all of them at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stnkit.runtime.equivalence.subject import Subject
from stnkit.runtime.errors import BackendError, InputError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Readings"]

_CHUNK_BYTES = 128 * 2**20
_CHUNK_TENSORS = 512
# A convolution at full size has 64 channels where an image has 3: what the first tensors of a
# model are likely to take, each, before any has been seen.
_GROWTH = 24
_REFUSALS_MAX = 16


class Readings:
    """The tensors inside a subject on one probe, read by as few runs as memory allows.

    Args:
        subject: the model.
        inputs: its inputs.
        drives: theta for taps that are not computed.
        keep_bytes: how much of what was read is kept, so that it need not be read again.
        known: tensors whose values need not be read.
    """

    def __init__(
        self,
        subject: Subject,
        inputs: Mapping[str, npt.NDArray[Any]],
        drives: Mapping[str, npt.NDArray[Any]],
        keep_bytes: int,
        known: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> None:
        self._subject, self._inputs, self._drives = subject, inputs, drives
        self._room, self._kept = keep_bytes, dict(known or {})
        self._bytes: dict[str, int] = {}
        self._usual = _GROWTH * max((value.nbytes for value in inputs.values()), default=1)
        self._refused: set[str] = set()
        self.runs = 0

    def chunks(self, names: Sequence[str]) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """Yield name -> value in the order of the names, a part at a time.

        What cannot be read is left out.
        """
        left = list(dict.fromkeys(names))
        while left:
            count = self._fitting(left)
            yield self.read(left[:count])
            left = left[count:]

    def read(self, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        """Return name -> value, all of them at once."""
        missing = [name for name in names if name not in self._kept and name not in self._refused]
        fresh = self._fetch(missing) if missing else {}
        if fresh:
            self._usual = 1 + 2 * sum(value.nbytes for value in fresh.values()) // len(fresh)
        for name, value in fresh.items():
            self._bytes[name] = value.nbytes
            if value.nbytes <= self._room:
                self._room -= value.nbytes
                self._kept[name] = value
        found = {**self._kept, **fresh}
        return {name: found[name] for name in names if name in found}

    def _fitting(self, names: Sequence[str]) -> int:
        """Return how many of the names are read together, one at least."""
        total = 0
        for count, name in enumerate(names[:_CHUNK_TENSORS]):
            total += self._bytes.get(name, self._usual)
            if total > _CHUNK_BYTES and count:
                return count
        return min(len(names), _CHUNK_TENSORS)

    def _fetch(self, names: Sequence[str]) -> dict[str, Any]:
        """Fetch names; where the subject refuses, those that it does not refuse."""
        self.runs += 1
        try:
            found = self._subject.fetch(self._inputs, names, self._drives)
        except (BackendError, InputError):
            if len(names) == 1 or len(self._refused) >= _REFUSALS_MAX:
                self._refused |= {*names}
                return {}
            half = len(names) // 2
            return {**self._fetch(names[:half]), **self._fetch(names[half:])}
        self._refused |= {*names} - {*found}
        # A sequence or a string is a value too, of which no difference can be taken.
        numbers = {name: value for name, value in found.items() if _is_number(value)}
        self._refused |= {*found} - {*numbers}
        return numbers


def _is_number(value: Any) -> bool:
    return getattr(getattr(value, "dtype", None), "kind", "") in "biuf" and value.size > 0
