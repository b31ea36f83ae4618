"""Run ONNX files with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy.typing as npt
import onnxruntime as ort

from stnkit.runtime.backends.cuda import CudaRunner
from stnkit.runtime.backends.failure import failure
from stnkit.runtime.backends.onnx_session import (
    check_names,
    create_session,
    feeds_of,
    run_into,
    session_options,
)
from stnkit.runtime.backends.registry import CudaSettings, Runner, RunnerFacts, TensorNames
from stnkit.runtime.errors import BackendError
from stnkit.runtime.onnx_drive import with_driven_tensors
from stnkit.runtime.onnx_file import refuse_external_data, with_extra_outputs

__all__ = ["ONNXRuntimeRunner", "open_runner"]


def open_runner(
    model: bytes,
    names: TensorNames,
    *,
    want_taps: bool,
    drives: Collection[str] = (),
    threads: int | None,
    pool: bool = True,
    spinning: bool = False,
    cuda: CudaSettings | None = None,
) -> Runner:
    """Open an ONNX file; see `stnkit.runtime.backends.open_runner`.

    Args:
        model: the file's content.
        names: where the signature's tensors are found in it.
        want_taps: whether the taps come out too.
        drives: taps that are given and not computed.
        threads: number of threads that share one run; None leaves it to ONNX Runtime.
        pool: whether the session has an arena.
        spinning: whether idle threads wait busily for the next run.
        cuda: the GPU that runs it; None for the CPU.

    Raises:
        BackendError: ONNX Runtime refuses the model, or it has no tensor of a given name.
        BundleError: the file points at data in another file.
        DeviceError: the GPU cannot be used.
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
    if cuda is not None:
        return CudaRunner(model, inputs, outputs, cuda, threads)
    return ONNXRuntimeRunner(model, inputs, outputs, threads, pool, spinning)


class ONNXRuntimeRunner:
    """One inference session on the CPU; several threads may run it at once.

    Args:
        model: the file's content.
        inputs: signature name -> tensor name in the file.
        outputs: signature or tap name -> tensor name in the file.
        threads: number of threads that share one run; None leaves it to ONNX Runtime.
        pool: whether the session has an arena.
        spinning: whether idle threads wait busily for the next run.
    """

    facts = RunnerFacts()

    def __init__(
        self,
        model: bytes,
        inputs: Mapping[str, str],
        outputs: Mapping[str, str],
        threads: int | None,
        pool: bool = True,
        spinning: bool = False,
    ) -> None:
        options = session_options(threads)
        # Two spinning threads were measured to burn 0.65 CPU seconds a second at 20 requests a
        # second; without spinning it was 0.01, at twice the throughput on two cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        # The arrays that a run returns lie in the arena: one of them that is kept keeps all of it,
        # also when the session is gone.
        options.enable_cpu_mem_arena = pool
        try:
            session = create_session(model, options, ["CPUExecutionProvider"])
        except Exception as exc:  # the boundary: its exceptions have no common base of their own
            raise failure("ONNX Runtime refused the model", exc) from exc
        check_names(session, inputs, outputs)
        self._session: Any = session
        self._inputs = dict(inputs)
        self._outputs = dict(outputs)
        # Two names may stand for one tensor, which ONNX Runtime gives once.
        self._tensors = list(dict.fromkeys(outputs.values()))

    @property
    def version(self) -> str:
        """Version of ONNX Runtime."""
        return str(ort.__version__)

    def run(
        self,
        inputs: Mapping[str, npt.NDArray[Any]],
        out: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Run the model; see `stnkit.runtime.backends.Runner`.

        Args:
            inputs: signature name -> array.
            out: name -> array that it is written to.

        Raises:
            BackendError: ONNX Runtime failed, or the runner is closed.
        """
        session = self._session  # kept alive by this reference if another thread closes
        if session is None:
            raise BackendError("the ONNX Runtime runner is closed: open the model again")
        feeds = feeds_of(inputs, self._inputs)
        if out:
            return run_into(session, feeds, self._outputs, out)
        try:
            # Inputs and outputs are not copied here either: what comes out lies in the arena.
            values = session.run(self._tensors, feeds)
        except Exception as exc:  # the boundary, as above
            raise failure("ONNX Runtime failed to run the model", exc) from exc
        found = dict(zip(self._tensors, values, strict=True))
        return {name: found[tensor] for name, tensor in self._outputs.items()}

    def close(self) -> None:
        """Give the session's memory back, once the runs in progress have ended."""
        self._session = None
