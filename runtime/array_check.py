"""Check the arrays of a run against the signature before a backend sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from stnkit.runtime.errors import InputError, one_line
from stnkit.runtime.json_reader import join_names
from stnkit.runtime.signature import BATCH, Signature, TensorSpec, shape_problem

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["case_fits", "check_inputs"]

Batch = int | Literal["dynamic"]


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
