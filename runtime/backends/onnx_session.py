"""Open ONNX Runtime sessions, and give them their arrays; what CPU and GPU have in common."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from stnkit.runtime.backends.failure import failure
from stnkit.runtime.errors import BackendError
from stnkit.runtime.json_reader import join_names

__all__ = ["check_names", "create_session", "feeds_of", "run_into", "session_options"]

_SEVERITY_FATAL = 4
# Creating sessions in several threads at once is reported to race; running them is safe.
_CREATION_LOCK = threading.Lock()

Arrays = Mapping[str, npt.NDArray[Any]]


def session_options(threads: int | None = None) -> Any:
    """Return the options of a session that says nothing on stderr.

    Args:
        threads: number of threads that share one run; None leaves it to ONNX Runtime.
    """
    options = ort.SessionOptions()
    # What fails is raised as an error; the log would only repeat it on stderr.
    options.log_severity_level = _SEVERITY_FATAL
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def create_session(
    model: bytes, options: Any, providers: Sequence[str | tuple[str, dict[str, str]]]
) -> Any:
    """Return a session; what ONNX Runtime raises comes through as it is.

    Args:
        model: the file's content.
        options: what `session_options` returned.
        providers: execution providers, the preferred one first.
    """
    with _CREATION_LOCK:
        # The default logger speaks before any session exists, of GPUs that are not there.
        ort.set_default_logger_severity(_SEVERITY_FATAL)
        # Without enable_fallback=0 there is a second try on the CPU, which prints to stdout.
        return ort.InferenceSession(
            model, sess_options=options, providers=providers, enable_fallback=0
        )


def check_names(session: Any, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    """Check that a session has the tensors that are to be bound.

    Args:
        session: the session.
        inputs: signature name -> tensor name in the file.
        outputs: signature or tap name -> tensor name in the file.

    Raises:
        BackendError: it has not.
    """
    for what, names, items in (
        ("input", inputs, session.get_inputs()),
        ("output", outputs, session.get_outputs()),
    ):
        there = [item.name for item in items]
        for name, tensor in names.items():
            if tensor not in there:
                raise BackendError(
                    f'the ONNX file has no tensor "{tensor}" for the {what} "{name}": expected one '
                    f"of {join_names(there)}"
                )


def feeds_of(inputs: Arrays, names: Mapping[str, str]) -> dict[str, npt.NDArray[Any]]:
    """Return arrays by the names of the file, contiguous; one that is so already is not copied.

    Args:
        inputs: signature name -> array.
        names: signature name -> tensor name in the file.
    """
    return {tensor: np.asarray(inputs[name], order="C") for name, tensor in names.items()}


def run_into(
    session: Any, feeds: Arrays, outputs: Mapping[str, str], out: Arrays
) -> dict[str, npt.NDArray[Any]]:
    """Run a session and let it write to arrays that are there already.

    Args:
        session: a session.
        feeds: tensor name in the file -> contiguous array.
        outputs: signature or tap name -> tensor name in the file.
        out: signature or tap name -> array, for any of them.

    Returns:
        Signature or tap name -> array; those of `out` are those that were given.

    Raises:
        BackendError: ONNX Runtime failed, also where an array does not fit.
    """
    # Two names may stand for one tensor: it is written once, and copied for the second.
    targets: dict[str, npt.NDArray[Any]] = {}
    for name, tensor in outputs.items():
        if name in out:
            targets.setdefault(tensor, out[name])
    tensors = list(dict.fromkeys(outputs.values()))
    try:
        binding = session.io_binding()
        for tensor, array in feeds.items():
            binding.bind_cpu_input(tensor, array)
        for tensor in tensors:
            if tensor in targets:
                value = ort.OrtValue.ortvalue_from_numpy(targets[tensor])
                binding.bind_ortvalue_output(tensor, value)
            else:
                binding.bind_output(tensor)
        session.run_with_iobinding(binding)
        found = dict(targets)
        if len(found) < len(tensors):
            for tensor, value in zip(tensors, binding.get_outputs(), strict=True):
                if tensor not in found:
                    found[tensor] = value.numpy()
    except Exception as exc:  # the boundary: its exceptions have no common base of their own
        raise failure("ONNX Runtime failed to run the model", exc) from exc
    result = {}
    for name, tensor in outputs.items():
        value = found[tensor]
        if name in out and out[name] is not value:
            np.copyto(out[name], value)
            value = out[name]
        elif name not in out and tensor in targets:
            value = value.copy()  # the array that was given belongs to another name
        result[name] = value
    return result
