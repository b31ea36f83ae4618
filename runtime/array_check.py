"""Check the arrays of a run against the signature, before a backend sees them and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from stnkit.runtime.errors import BackendError, InputError, one_line
from stnkit.runtime.json_reader import join_names
from stnkit.runtime.signature import BATCH, Signature, TapSpec, TensorSpec, shape_problem

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["InputCheck", "OutCheck", "ResultCheck", "case_fits", "check_inputs", "check_out"]

Batch = int | Literal["dynamic"]
Spec = TensorSpec | TapSpec

_REMEMBERED_MOST = 256  # shapes: callers may have as many as there are images


def check_inputs(
    signature: Signature, batch: Batch, inputs: Mapping[str, Any]
) -> dict[str, npt.NDArray[Any]]:
    """Return the inputs of a run, checked; nothing is cast silently.

    Args:
        signature: what the model takes.
        batch: the one batch size that the artifact takes, or `"dynamic"`.
        inputs: signature name -> array.

    Returns:
        The same arrays.

    Raises:
        InputError: a missing or unknown name, not an array, another dtype, rank or size, or two
            inputs that disagree about a named dimension.
    """
    import numpy as np

    if not isinstance(inputs, Mapping):
        raise InputError(
            f"inputs is a {type(inputs).__name__}: expected a dict from name to array, e.g. "
            f'{{"{signature.inputs[0].name}": array}}'
        )
    names = [spec.name for spec in signature.inputs]
    unknown = [str(name) for name in inputs if name not in names]
    missing = [name for name in names if name not in inputs]
    if unknown or missing:
        received = join_names([str(name) for name in inputs])
        raise InputError(f"received the inputs {received}: expected exactly {join_names(names)}")

    sizes: dict[str, int] = {} if batch == "dynamic" else {BATCH: batch}
    checked: dict[str, npt.NDArray[Any]] = {}
    for spec in signature.inputs:
        value = inputs[spec.name]
        if not isinstance(value, np.ndarray):
            raise InputError(
                f'input "{spec.name}" is a {type(value).__name__}: expected a NumPy array of '
                f"{spec.dtype}; pass numpy.asarray(value, dtype={spec.dtype!r})"
            )
        if value.dtype != np.dtype(spec.dtype):
            raise InputError(
                f'input "{spec.name}" is {one_line(str(value.dtype))}: expected {spec.dtype}; '
                f"convert it with .astype({spec.dtype!r}) if its values mean the same"
            )
        expected = shape_problem(spec.shape, value.shape, sizes)
        if expected is not None:
            raise InputError(
                f'input "{spec.name}" has shape {list(value.shape)}: expected {expected}'
                f"{_hint(spec, value.shape, batch)}"
            )
        for dim, size in zip(spec.shape, value.shape, strict=True):
            if isinstance(dim, str):
                sizes.setdefault(dim, size)
        checked[spec.name] = value
    return checked


def _hint(spec: TensorSpec, shape: tuple[int, ...], batch: Batch) -> str:
    if len(shape) + 1 == len(spec.shape) and spec.shape[0] == BATCH:
        return "; add the batch dimension with array[None]"
    if batch != "dynamic" and len(shape) == len(spec.shape) and shape[:1] != (batch,):
        return f"; this artifact was converted for batches of exactly {batch}"
    return ""


class InputCheck:
    """`check_inputs` for many runs: shapes that fitted are remembered, which is most of its time.

    Args:
        signature: what the model takes.
        batch: the one batch size that the artifact takes, or `"dynamic"`.
    """

    def __init__(self, signature: Signature, batch: Batch) -> None:
        import numpy as np

        self._signature, self._batch = signature, batch
        self._array = np.ndarray
        self._wanted = [(spec.name, np.dtype(spec.dtype)) for spec in signature.inputs]
        self._fitted: set[tuple[tuple[int, ...], ...]] = set()

    def __call__(self, inputs: Mapping[str, Any]) -> Mapping[str, npt.NDArray[Any]]:
        """Return the inputs of a run, checked; raises what `check_inputs` raises."""
        if type(inputs) is dict and len(inputs) == len(self._wanted):
            shapes = []
            for name, dtype in self._wanted:
                value = inputs.get(name)
                if type(value) is not self._array or value.dtype != dtype:
                    break
                shapes.append(value.shape)
            else:
                if tuple(shapes) in self._fitted:
                    return inputs
        checked = check_inputs(self._signature, self._batch, inputs)
        if len(self._fitted) < _REMEMBERED_MOST:
            self._fitted.add(tuple(checked[name].shape for name, _ in self._wanted))
        return checked


class ResultCheck:
    """Check that a backend gave what the manifest declares; shapes that fitted are remembered.

    Args:
        file: file name of the artifact, for the error.
        specs: outputs, and taps where they come out.
    """

    def __init__(self, file: str, specs: Sequence[Spec]) -> None:
        import numpy as np

        self._file = file
        self._wanted: list[tuple[Spec, Any, set[tuple[int, ...]]]] = [
            (spec, np.dtype(spec.dtype), set()) for spec in specs
        ]

    def __call__(self, result: Mapping[str, npt.NDArray[Any]]) -> None:
        """Raise `BackendError` for another dtype, rank or size."""
        for spec, dtype, fitted in self._wanted:
            value = result[spec.name]
            if value.shape in fitted and value.dtype == dtype:
                continue
            expected = shape_problem(spec.shape, value.shape)
            if value.dtype != dtype or expected is not None:
                raise BackendError(
                    f'{self._file} gave "{spec.name}" as {value.dtype} {list(value.shape)}: '
                    f"expected {spec.dtype} {expected or list(spec.shape)}"
                )
            if len(fitted) < _REMEMBERED_MOST:
                fitted.add(value.shape)


class OutCheck:
    """`check_out` for many runs: shapes that fitted are remembered, memory is looked at anew.

    Args:
        signature: what the model takes.
        specs: outputs, and taps where they come out.
    """

    def __init__(self, signature: Signature, specs: Sequence[Spec]) -> None:
        import numpy as np

        self._signature, self._specs = signature, specs
        self._array, self._may_share = np.ndarray, np.may_share_memory
        self._inputs = [spec.name for spec in signature.inputs]
        self._dtypes = {spec.name: np.dtype(spec.dtype) for spec in specs}
        self._fitted: set[tuple[Any, ...]] = set()

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]], out: Mapping[str, Any]) -> None:
        """Raise what `check_out` raises."""
        if type(out) is dict and self._fits(inputs, out):
            return
        check_out(self._signature, self._specs, inputs, out)
        shapes = tuple(inputs[name].shape for name in self._inputs)
        if len(self._fitted) < _REMEMBERED_MOST:
            self._fitted.update((shapes, name, value.shape) for name, value in out.items())

    def _fits(self, inputs: Mapping[str, npt.NDArray[Any]], out: dict[str, Any]) -> bool:
        others = [inputs[name] for name in self._inputs]
        shapes = tuple(value.shape for value in others)
        for name, value in out.items():
            if type(value) is not self._array or (shapes, name, value.shape) not in self._fitted:
                return False
            if value.dtype != self._dtypes[name] or not value.flags.carray:
                return False
            for other in others:
                if self._may_share(value, other):
                    return False
            others.append(value)
        return True


def check_out(
    signature: Signature,
    specs: Sequence[Spec],
    inputs: Mapping[str, npt.NDArray[Any]],
    out: Mapping[str, Any],
) -> None:
    """Check the arrays that a run is to write to.

    Args:
        signature: what the model takes.
        specs: outputs, and taps where they come out.
        inputs: the run's inputs, checked.
        out: name -> array, for any of `specs`.

    Raises:
        InputError: an unknown name, not an array, another dtype, rank or size, not C-contiguous,
            not writeable, or memory that an input or another array of `out` has too.
    """
    import numpy as np

    if not isinstance(out, Mapping):
        raise InputError(
            f"out is a {type(out).__name__}: expected a dict from output name to array"
        )
    known = {spec.name: spec for spec in specs}
    unknown = [str(name) for name in out if name not in known]
    if unknown:
        raise InputError(
            f"out has {join_names(unknown)}: expected any of {join_names(list(known))}"
        )
    sizes = {
        dim: size
        for spec in signature.inputs
        for dim, size in zip(spec.shape, inputs[spec.name].shape, strict=True)
        if isinstance(dim, str)
    }
    # An input that is not contiguous is copied before the run: it may overlap with anything.
    taken = {f'input "{name}"': value for name, value in inputs.items() if value.flags.c_contiguous}
    for name, value in out.items():
        spec = known[name]
        if not isinstance(value, np.ndarray):
            raise InputError(
                f'out "{name}" is a {type(value).__name__}: expected a NumPy array of {spec.dtype}'
            )
        if value.dtype != np.dtype(spec.dtype):
            raise InputError(
                f'out "{name}" is {one_line(str(value.dtype))}: expected {spec.dtype}, which the '
                "model gives"
            )
        expected = shape_problem(spec.shape, value.shape, sizes)
        if expected is not None:
            raise InputError(f'out "{name}" has shape {list(value.shape)}: expected {expected}')
        if not value.flags.carray:
            raise InputError(
                f'out "{name}" cannot be written to in one piece: expected a writeable, '
                "C-contiguous, aligned array, e.g. numpy.empty(shape, dtype)"
            )
        for other, array in taken.items():
            # Both are contiguous, so that their bounds tell.
            if np.may_share_memory(value, array):
                raise InputError(
                    f'out "{name}" shares memory with {other}: expected an array of its own, '
                    "because a run may write before it has read all"
                )
        taken[f'out "{name}"'] = value


def case_fits(signature: Signature, batch: Batch, inputs: Mapping[str, npt.NDArray[Any]]) -> bool:
    """Return whether an artifact can take the shapes of a probe.

    Args:
        signature: what the model takes.
        batch: the one batch size that the artifact takes, or `"dynamic"`.
        inputs: signature name -> array.
    """
    sizes: dict[str, int] = {} if batch == "dynamic" else {BATCH: batch}
    return all(
        spec.name in inputs and shape_problem(spec.shape, inputs[spec.name].shape, sizes) is None
        for spec in signature.inputs
    )
