"""A TFLite or ONNX file as a subject, made by stnkit or not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stnkit.runtime.backends import Runner, backend_for, open_runner
from stnkit.runtime.equivalence.subject import Node, Role, Subject, Tap
from stnkit.runtime.errors import BackendError, InputError
from stnkit.runtime.file_constants import Constant, float_constants
from stnkit.runtime.file_precision import Grid, grids_of, precision_of
from stnkit.runtime.memory import LARGE_BYTES, give_back
from stnkit.runtime.model_file import (
    FileSummary,
    FileTensor,
    detect_format,
    list_nodes,
    summarize,
)
from stnkit.runtime.signature import BATCH, DTYPES, TensorSpec

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["FileSubject", "Names"]

_FETCHED = "stnkit_fetched::"
"""Prefix of what a tensor that is fetched is called while it is: signatures have other names."""


@dataclass(frozen=True)
class Names:
    """Where a file's tensors are found: signature or tap name -> tensor name in the file."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    taps: Mapping[str, str]


class FileSubject(Subject):
    """A model file, run by the backend of its format.

    Args:
        name: the file as the user named it.
        content: the file's bytes.
        names: where its tensors are found; None takes them from the file.
        threads: threads that share one run; None leaves it to the backend.

    Raises:
        InputError: the file is neither TFLite nor ONNX, is damaged, or has inputs without a batch
            dimension or of a dtype that cannot be probed.
        BackendMissingError: the backend is not installed.
        BackendError: the backend refuses the file.
    """

    def __init__(
        self, name: str, content: bytes, names: Names | None = None, threads: int | None = None
    ) -> None:
        self.name, self._content, self._threads = name, content, threads
        self.format = detect_format(content)
        self.summary = summarize(content)
        self._names = names or _names_in(self.summary, content)
        self._grids = grids_of(content, self.format)
        self.precision = precision_of(self.summary, self._grids)
        shown = {name: "float32" for name in self._grids}
        self.inputs = _specs(self._names.inputs, self.summary.inputs, name, "input", shown)
        self.outputs = _specs(self._names.outputs, self.summary.outputs, name, "output", shown)
        self._halves = {
            key
            for names, tensors in (
                (self._names.inputs, self.summary.inputs),
                (self._names.outputs, self.summary.outputs),
            )
            for key, there in names.items()
            for tensor in tensors
            if tensor.name == there and tensor.dtype == "float16"
        }
        self.taps = tuple(Tap.of_name(tap) for tap in self._names.taps)
        self.backend = backend_for(self.format).name
        self._runners: dict[tuple[bool, tuple[str, ...]], Runner] = {}
        with _named(name):
            self.backend_version = self._runner(False, ()).version

    def run(
        self,
        inputs: Mapping[str, npt.NDArray[Any]],
        *,
        taps: bool = False,
        drives: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Run the file; outputs come from the very file, taps from a copy that shows them."""
        driven = dict(drives or {})
        given = self._as_stored({**inputs, **driven})
        with _named(self.name):
            runner = self._runner(taps or bool(driven), tuple(sorted(driven)))
            found = self._as_floats(runner.run(given))
        if not taps or driven:
            return found
        return {name: value for name, value in found.items() if name in self._names.taps}

    @property
    def content(self) -> bytes:
        """The file's bytes."""
        return self._content

    def rounding_length(self) -> float:
        """Return the sum of the lengths of all dot products with a constant."""
        return float(sum(_length(shape) for shape in self.summary.constant_shapes))

    def nodes(self) -> tuple[Node, ...]:
        """Return the tensors that are computed from the inputs; the file knows no layers."""
        known = set(self._names.inputs.values())
        found = []
        for node in list_nodes(self._content):
            if not known.isdisjoint(node.inputs):
                known.add(node.name)
                found.append(Node(node.name, node.op, "", node.inputs))
        return tuple(found)

    def constants(self) -> list[Constant]:
        """Return the file's float32 constants that are no scalars or nearly so."""
        return float_constants(self._content, self.format)

    def node_of(self, role: Role, name: str) -> str | None:
        """Return the tensor in the file that a signature name or a tap stands for."""
        names = {"input": self._names.inputs, "output": self._names.outputs}
        return names.get(role, self._names.taps).get(name)

    def fetch(
        self,
        inputs: Mapping[str, npt.NDArray[Any]],
        names: Sequence[str],
        drives: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Run a copy of the file that has the tensors as outputs; see `Subject.fetch`."""
        driven = dict(drives or {})
        taps = {tap: self._names.taps[tap] for tap in driven}
        given = set(taps.values())
        wanted = {f"{_FETCHED}{name}": name for name in names if name not in given}
        runner = open_runner(
            self.backend,
            self._content,
            Names(self._names.inputs, self._names.outputs, {**taps, **wanted}),
            want_taps=True,
            drives=tuple(sorted(driven)),
            threads=self._threads,
            pool=False,
        )
        try:
            found = runner.run(self._as_stored({**inputs, **driven}))
        finally:
            runner.close()
        return {name: _from_grid(found[key], self._grids.get(name)) for key, name in wanted.items()}

    def _as_stored(self, values: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Return inputs and driven thetas as the file takes them: integers, or float16."""
        import numpy as np

        there = {**self._names.taps, **self._names.inputs}
        found = {}
        for name, value in values.items():
            grid = self._grids.get(there[name])
            if grid is not None and value.dtype.kind == "f":
                value = grid.integers(value)
            elif name in self._halves:
                with np.errstate(over="ignore"):
                    value = value.astype(np.float16)
            found[name] = value
        return found

    def _as_floats(self, values: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Return outputs and taps in float32, whatever the file keeps them in."""
        there = {**self._names.taps, **self._names.outputs}
        return {
            name: _from_grid(value, self._grids.get(there[name])) for name, value in values.items()
        }

    def show_taps(self, tensors: Mapping[str, str]) -> None:
        """Let tensors be read as taps from now on.

        Args:
            tensors: tap -> name of the tensor in the file.
        """
        known = self._names
        self._names = Names(known.inputs, known.outputs, {**known.taps, **tensors})
        self.taps = tuple(Tap.of_name(tap) for tap in self._names.taps)
        for other in [key for key in self._runners if key != (False, ())]:
            self._runners.pop(other).close()

    def rest(self) -> None:
        """Close every runner; they are opened again when they are needed."""
        self.close()
        give_back()

    def close(self) -> None:
        """Close every runner."""
        for runner in self._runners.values():
            runner.close()
        self._runners.clear()

    def _runner(self, taps: bool, driven: tuple[str, ...]) -> Runner:
        key = (taps, driven)
        if key not in self._runners:
            # One at a time beside the plain one: each holds a copy of the weights.
            for other in [known for known in self._runners if known != (False, ())]:
                self._runners.pop(other).close()
            self._runners[key] = open_runner(
                self.backend,
                self._content,
                self._names,
                want_taps=taps,
                drives=driven,
                threads=self._threads,
                pool=False,
            )
            if len(self._content) >= LARGE_BYTES:
                give_back()  # opening it took several copies of the weights
        return self._runners[key]


@contextmanager
def _named(file: str) -> Iterator[None]:
    """Say which file it was that a backend failed on: a comparison runs several."""
    try:
        yield
    except BackendError as exc:
        raise type(exc)(f"{file}: {exc}") from exc


def _from_grid(value: npt.NDArray[Any], grid: Grid | None) -> npt.NDArray[Any]:
    if grid is not None and value.dtype.kind in "iu":
        return grid.floats(value)
    return value.astype("float32") if value.dtype == "float16" else value


def _length(shape: tuple[int, ...]) -> int:
    """Return the longest dot product that a constant of this shape can stand for."""
    if len(shape) < 2 or math.prod(shape) == 0:
        return 0
    if len(shape) == 2:
        return max(shape)
    # The output channels are the first axis or the last, by the format.
    return math.prod(shape) // min(shape[0], shape[-1])


def _names_in(summary: FileSummary, content: bytes) -> Names:
    """Return the names by which a file calls its own tensors."""
    if summary.format == "tflite":
        from stnkit.runtime.tflite_file import signature_names

        inputs, outputs = signature_names(content)
    else:
        inputs = {tensor.name: tensor.name for tensor in summary.inputs}
        outputs = {tensor.name: tensor.name for tensor in summary.outputs}
    own = {*inputs.values(), *outputs.values()}
    taps = {name: name for name in summary.tap_names if name not in own}
    return Names(inputs, outputs, taps)


def _specs(
    names: Mapping[str, str],
    tensors: tuple[FileTensor, ...],
    file: str,
    what: str,
    shown: Mapping[str, str],
) -> tuple[TensorSpec, ...]:
    found = {tensor.name: tensor for tensor in tensors}
    specs = []
    for name, there in names.items():
        if there not in found:
            raise InputError(f"{file}: has no {what} {there!r}: expected one for {name!r}")
        tensor = found[there]
        dtype = shown.get(there, "float32" if tensor.dtype == "float16" else tensor.dtype)
        if dtype not in DTYPES:
            raise InputError(
                f"{file}: the {what} {name!r} is {dtype}: expected {', '.join(DTYPES)}"
            )
        shape = tuple(
            size if isinstance(size, int) else (BATCH if axis == 0 else f"dim_{axis}")
            for axis, size in enumerate(tensor.shape)
        )
        if what == "input" and not shape:
            raise InputError(f"{file}: the input {name!r} is a scalar: expected a batch first")
        specs.append(TensorSpec(name, dtype, shape))
    if not specs:
        raise InputError(f"{file}: has no {what}: there is nothing to compare")
    return tuple(specs)
