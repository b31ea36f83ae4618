"""Run batches of any size in a few fixed sizes.

A GPU plans its work anew for every shape that it meets, and a CUDA graph holds for one shape. So a
batch is filled up to the next bucket with copies of its last row, and the answers to those are cut
off; one that is larger than the largest bucket runs in several goes.

This takes rows for independent of each other, as they are in a network in inference mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stnkit.runtime.backends.registry import CudaSettings, Runner
from stnkit.runtime.errors import BackendError, InputError
from stnkit.runtime.signature import BATCH, Signature, TapSpec, TensorSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    Arrays = Mapping[str, npt.NDArray[Any]]

__all__ = ["DEFAULT_BUCKETS", "Buckets", "bucket_problem", "checked_buckets"]

DEFAULT_BUCKETS = (1, 2, 4, 8, 16, 32)
"""Sizes on a GPU, where nobody names others."""

_BUCKETS_MOST = 16
_SIZE_MAX = 65536


def checked_buckets(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return bucket sizes, sorted and each once.

    Args:
        sizes: 1 to 16 numbers of at least 1.

    Raises:
        InputError: anything else.
    """
    usable = not isinstance(sizes, (str, bytes)) and all(
        isinstance(size, int) and not isinstance(size, bool) and 1 <= size <= _SIZE_MAX
        for size in sizes
    )
    found = tuple(sorted(set(sizes))) if usable else ()
    if not 1 <= len(found) <= _BUCKETS_MOST:
        raise InputError(
            f"batch_buckets is {sizes!r}: expected 1 to {_BUCKETS_MOST} sizes from 1 to {_SIZE_MAX}"
        )
    return found


def bucket_problem(signature: Signature, taps: Sequence[TapSpec], batch: int | str) -> str | None:
    """Return why batches of a model cannot be filled up, or None.

    Args:
        signature: inputs and outputs.
        taps: the tensors inside that may come out too.
        batch: the one batch size that the artifact takes, or `"dynamic"`.
    """
    if batch != "dynamic":
        return f"the artifact takes batches of {batch} alone"
    if not any(spec.shape[:1] == (BATCH,) for spec in signature.inputs):
        return "no input has a batch as its first dimension"
    if any(BATCH in spec.shape[1:] for spec in signature.inputs):
        return "an input has the batch as a later dimension"
    specs: tuple[TensorSpec | TapSpec, ...] = (*signature.outputs, *taps)
    for spec in specs:
        if spec.shape[:1] != (BATCH,) or BATCH in spec.shape[1:]:
            return f'"{spec.name}" does not have one row an item'
    return None


class Buckets:
    """Batches of any size on a runner, in fixed sizes.

    Args:
        signature: inputs and outputs.
        sizes: what `checked_buckets` returned.
    """

    def __init__(self, signature: Signature, sizes: tuple[int, ...]) -> None:
        self.sizes = sizes
        self._known = frozenset(sizes)
        self._rows = [spec.name for spec in signature.inputs if spec.shape[:1] == (BATCH,)]

    def cuda_settings(self, index: int, options: Mapping[str, str]) -> CudaSettings:
        """Return how batches in these sizes run on a GPU.

        Args:
            index: number of the GPU.
            options: options of the CUDA provider, checked.
        """
        return CudaSettings(index, options, self.sizes, self._rows[0])

    def run(
        self, runner: Runner, inputs: Arrays, out: Arrays | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Run a batch.

        Args:
            runner: what runs it.
            inputs: signature name -> array, checked.
            out: arrays to write to; see `Session.run`.

        Returns:
            As `Runner.run`.

        Raises:
            BackendError: the backend failed, or gave another number of rows.
        """
        import numpy as np

        count = len(inputs[self._rows[0]])
        if count in self._known:
            return runner.run(inputs, out)
        parts: dict[str, list[npt.NDArray[Any]]] = {}
        for start in range(0, count, self.sizes[-1]):
            rows = min(self.sizes[-1], count - start)
            size = next(size for size in self.sizes if size >= rows)
            piece = dict(inputs)
            for name in self._rows:
                piece[name] = _filled(inputs[name][start : start + rows], size)
            for name, value in runner.run(piece).items():
                if value.shape[:1] != (size,):
                    raise BackendError(
                        f'"{name}" came with shape {list(value.shape)}: expected {size} rows, one '
                        "an item; load the bundle without batch buckets"
                    )
                parts.setdefault(name, []).append(value[:rows])
        given = out or {}
        return {
            name: np.concatenate(found, out=given[name])
            if name in given
            else (np.concatenate(found) if len(found) > 1 else found[0])
            for name, found in parts.items()
        }


def _filled(rows: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    import numpy as np

    missing = size - len(rows)
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows
