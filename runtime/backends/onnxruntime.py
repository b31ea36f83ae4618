"""Run ONNX files with ONNX Runtime."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from stnkit.runtime.backends.failure import failure
from stnkit.runtime.backends.registry import TensorNames
from stnkit.runtime.errors import BackendError
from stnkit.runtime.json_reader import join_names
from stnkit.runtime.onnx_drive import with_driven_tensors
from stnkit.runtime.onnx_file import refuse_external_data, with_extra_outputs

__all__ = ["ONNXRuntimeRunner", "open_runner"]

_SEVERITY_FATAL = 4
# Creating sessions in several threads at once is reported to race; running them is safe.
_CREATION_LOCK = threading.Lock()


def open_runner(
    model: bytes,
    names: TensorNames,
    *,
    want_taps: bool,
    drives: Collection[str] = (),
    threads: int | None,
) -> ONNXRuntimeRunner:
    """Open an ONNX file; see `stnkit.runtime.backends.open_runner`.

    Args:
        model: the file's content.
        names: where the signature's tensors are found in it.
        want_taps: whether the taps come out too.
        drives: taps that are given and not computed.
        threads: number of threads that share one run; None leaves it to ONNX Runtime.

    Raises:
        BackendError: ONNX Runtime refuses the model, or it has no tensor of a given name.
        BundleError: the file points at data in another file.
        InputError: a damaged file, or a tap that is not in it.
    """
    refuse_external_data(model)
    inputs, outputs = dict(names.inputs), dict(names.outputs)
    if drives:
        model = with_driven_tensors(model, {names.taps[tap]: "float32" for tap in drives})
        inputs.update({tap: names.taps[tap] for tap in drives})
    if want_taps:
        taps = {name: tensor for name, tensor in names.taps.items() if name not in drives}
        model = with_extra_outputs(model, taps.values())
        outputs.update(taps)
    return ONNXRuntimeRunner(model, inputs, outputs, threads)


class ONNXRuntimeRunner:
    """One inference session on the CPU; several threads may run it at once.

    Args:
        model: the file's content.
        inputs: signature name -> tensor name in the file.
        outputs: signature or tap name -> tensor name in the file.
        threads: number of threads that share one run; None leaves it to ONNX Runtime.
    """

    def __init__(
        self,
        model: bytes,
        inputs: Mapping[str, str],
        outputs: Mapping[str, str],
        threads: int | None,
    ) -> None:
        options = ort.SessionOptions()
        # What fails is raised as an error; the log would only repeat it on stderr.
        options.log_severity_level = _SEVERITY_FATAL
        # Two spinning threads were measured to burn 0.65 CPU seconds a second at 20 requests a
        # second; without spinning it was 0.01, at twice the throughput on two cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            with _CREATION_LOCK:
                # The default logger speaks before any session exists, of GPUs that are not there.
                ort.set_default_logger_severity(_SEVERITY_FATAL)
                session = ort.InferenceSession(
                    model,
                    sess_options=options,
                    providers=["CPUExecutionProvider"],
                    # A second try with the same provider would fail again, and print to stdout.
                    enable_fallback=0,
                )
            inputs_there = [item.name for item in session.get_inputs()]
            outputs_there = [item.name for item in session.get_outputs()]
        except Exception as exc:  # the boundary: its exceptions have no common base of their own
            raise failure("ONNX Runtime refused the model", exc) from exc
        _check_names(inputs, inputs_there, "input")
        _check_names(outputs, outputs_there, "output")
        self._session: Any = session
        self._inputs = dict(inputs)
        self._outputs = dict(outputs)

    @property
    def version(self) -> str:
        """Version of ONNX Runtime."""
        return str(ort.__version__)

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Run the model; see `stnkit.runtime.backends.Runner`.

        Args:
            inputs: signature name -> array.

        Raises:
            BackendError: ONNX Runtime failed, or the runner is closed.
        """
        session = self._session  # kept alive by this reference if another thread closes
        if session is None:
            raise BackendError("the ONNX Runtime runner is closed: open the model again")
        feeds = {
            tensor: np.asarray(inputs[name], order="C") for name, tensor in self._inputs.items()
        }
        # Two names may stand for one tensor, which ONNX Runtime gives once.
        tensors = list(dict.fromkeys(self._outputs.values()))
        try:
            values = session.run(tensors, feeds)
        except Exception as exc:  # the boundary, as above
            raise failure("ONNX Runtime failed to run the model", exc) from exc
        found = dict(zip(tensors, values, strict=True))
        return {name: found[tensor] for name, tensor in self._outputs.items()}

    def close(self) -> None:
        """Give the session's memory back, once the runs in progress have ended."""
        self._session = None


def _check_names(names: Mapping[str, str], there: list[str], what: str) -> None:
    for name, tensor in names.items():
        if tensor not in there:
            raise BackendError(
                f'the ONNX file has no tensor "{tensor}" for the {what} "{name}": expected one of '
                f"{join_names(there)}"
            )
