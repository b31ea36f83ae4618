"""Run ONNX files on a GPU with ONNX Runtime's CUDA provider.

Three ways, tried in this order; the first that ONNX Runtime takes is kept:

1. A session for every batch bucket, with every size fixed and every node on the GPU, whose runs
   replay a CUDA graph: one call in place of one a kernel. Fixing the batch lets ONNX Runtime
   compute the shapes inside when it opens the file; else their arithmetic is nodes on the CPU.
2. One session for all batch sizes with every node on the GPU.
3. One session in which some nodes are on the CPU; `facts` names them.

A graph reads and writes the same memory in every run, so inputs and outputs have buffers on the
GPU that stay. ONNX Runtime captures one graph a thread, and forbids two threads at once: runs with
graphs have a thread of their own.

Source: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html, "Using CUDA
Graphs", and `OnRunEnd` in onnxruntime/core/providers/cuda/cuda_execution_provider.cc.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from stnkit.runtime.backends.failure import failure
from stnkit.runtime.backends.onnx_session import (
    check_names,
    create_session,
    feeds_of,
    run_into,
    session_options,
)
from stnkit.runtime.backends.registry import CudaSettings, RunnerFacts
from stnkit.runtime.errors import BackendError, DeviceError, one_line
from stnkit.runtime.signature import BATCH

__all__ = ["CudaRunner"]

_PROVIDER = "CUDAExecutionProvider"
# While a graph is captured, memory that another thread takes on the GPU spoils it: no other graph
# is captured or replayed meanwhile, whichever model's it is.
_GRAPH_LOCK = threading.Lock()
_BUFFER_BYTES_MOST = 2**31  # of one tensor: more is no case for a graph
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(bool)": "bool",
}


class _NoGraphError(Exception):
    """A graph cannot be used; says why."""


@dataclass(frozen=True)
class _Graph:
    """A session for fixed sizes, and the buffers that its graph reads and writes."""

    session: Any
    binding: Any
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]


class CudaRunner:
    """One model on one GPU; several threads may run it at once.

    Args:
        model: the file's content.
        inputs: signature name -> tensor name in the file.
        outputs: signature or tap name -> tensor name in the file.
        settings: GPU, provider options, and the batch sizes of the runs.
        threads: number of threads of the CPU that share the part of a run that is there; None
            leaves it to ONNX Runtime.

    Raises:
        BackendError: ONNX Runtime refuses the model, or can run none of it on the GPU.
        DeviceError: the CUDA provider does not start.
    """

    def __init__(
        self,
        model: bytes,
        inputs: Mapping[str, str],
        outputs: Mapping[str, str],
        settings: CudaSettings,
        threads: int | None = None,
    ) -> None:
        self._model = model
        self._inputs, self._outputs = dict(inputs), dict(outputs)
        self._settings = settings
        self._threads = threads
        self._session: Any = None
        self._graphs: dict[int | None, _Graph] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="stnkit-cuda")
        self._closed = False
        notes: list[str] = []
        try:
            if settings.options.get("enable_cuda_graph") == "1":
                smallest = settings.buckets[0] if settings.buckets else None
                try:
                    self._thread.submit(self._first_graph, smallest).result()
                except Exception as exc:  # whatever it is, the next way may do
                    notes.append(f"no CUDA graph: {one_line(exc)}")
            if not self._graphs:
                self._session = self._open_session(notes)
        except BaseException:
            self.close()
            raise
        self.facts = RunnerFacts(cuda_graph=bool(self._graphs), notes=tuple(notes))

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
        session = self._session
        if self._closed:
            raise BackendError("the ONNX Runtime runner is closed: open the model again")
        if session is not None:
            return run_into(session, feeds_of(inputs, self._inputs), self._outputs, out or {})
        try:
            return self._thread.submit(self._replay, inputs, out or {}).result()
        except BackendError:
            raise
        except Exception as exc:  # the boundary: its exceptions have no common base of their own
            raise failure("ONNX Runtime failed to run the model", exc) from exc

    def close(self) -> None:
        """Give the memory back, once the runs in progress have ended."""
        self._closed = True
        self._session = None
        self._thread.shutdown(wait=True)
        self._graphs.clear()

    def _replay(
        self, inputs: Mapping[str, npt.NDArray[Any]], out: Mapping[str, npt.NDArray[Any]]
    ) -> dict[str, npt.NDArray[Any]]:
        """Run with a graph, on the thread for that."""
        rows_of = self._settings.rows_of
        with _GRAPH_LOCK:
            graph = self._graph(None if rows_of is None else len(inputs[rows_of]))
            for tensor, array in feeds_of(inputs, self._inputs).items():
                graph.inputs[tensor].update_inplace(array)
            graph.session.run_with_iobinding(graph.binding)
            found = {tensor: _on_host(value) for tensor, value in graph.outputs.items()}
        result = {}
        for name, tensor in self._outputs.items():
            value = found[tensor]
            if name in out:
                if out[name].shape != value.shape or out[name].dtype != value.dtype:
                    raise BackendError(
                        f'"{name}" came as {value.dtype} {list(value.shape)}: the array to write '
                        f"it to is {out[name].dtype} {list(out[name].shape)}"
                    )
                np.copyto(out[name], value)
                value = out[name]
            result[name] = value
        return result

    def _first_graph(self, batch: int | None) -> None:
        with _GRAPH_LOCK:
            self._graph(batch)

    def _graph(self, batch: int | None) -> _Graph:
        """Return the graph for a batch size, on the thread for that; captured if it is new."""
        if batch not in self._graphs:
            self._graphs[batch] = self._captured(batch)
        return self._graphs[batch]

    def _captured(self, batch: int | None) -> _Graph:
        options = self._options()
        if batch is not None:
            options.add_free_dimension_override_by_name(BATCH, batch)
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        session = self._create(options)
        check_names(session, self._inputs, self._outputs)
        buffers = [
            {item.name: self._buffer(item) for item in items}
            for items in (session.get_inputs(), session.get_outputs())
        ]
        binding = session.io_binding()
        for tensor, value in buffers[0].items():
            binding.bind_ortvalue_input(tensor, value)
        for tensor, value in buffers[1].items():
            binding.bind_ortvalue_output(tensor, value)
        # The first run captures the graph: what cannot be captured is found here.
        session.run_with_iobinding(binding)
        return _Graph(session, binding, *buffers)

    def _buffer(self, item: Any) -> Any:
        """Return memory on the GPU for an input or output, filled with zeros."""
        dtype = _DTYPES.get(item.type)
        fixed = all(isinstance(size, int) for size in item.shape)
        if dtype is None or not fixed:
            raise _NoGraphError(f'the sizes of "{item.name}" are not fixed: {list(item.shape)}')
        if math.prod(item.shape) * np.dtype(dtype).itemsize > _BUFFER_BYTES_MOST:
            raise _NoGraphError(f'"{item.name}" is too large: {list(item.shape)}')
        return _on_device(np.zeros(item.shape, dtype), self._settings.index)

    def _open_session(self, notes: list[str]) -> Any:
        """Return a session for all batch sizes, with no more on the CPU than has to be."""
        options = self._options()
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        plain = {**self._settings.options, "enable_cuda_graph": "0"}
        try:
            session = self._create(options, plain)
        except DeviceError:
            raise
        except Exception:  # it does not say which nodes it cannot place: the next session will
            options = self._options()
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
            try:
                session = self._create(options, plain)
            except DeviceError:
                raise
            except Exception as exc:  # the boundary, as above
                raise failure("ONNX Runtime refused the model", exc) from exc
            notes += _placement(session)
        check_names(session, self._inputs, self._outputs)
        return session

    def _options(self) -> Any:
        options = session_options(self._threads)
        # While the GPU works, the threads of the CPU have nothing to wait busily for.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return options

    def _create(self, options: Any, provider_options: Mapping[str, str] | None = None) -> Any:
        chosen = {
            **(self._settings.options if provider_options is None else provider_options),
            "device_id": str(self._settings.index),
        }
        session = create_session(self._model, options, [(_PROVIDER, chosen)])
        # A provider that does not start is left out without an error, and all runs on the CPU.
        if _PROVIDER not in session.get_providers():
            raise DeviceError(
                f"cuda:{self._settings.index}",
                [
                    f"the CUDA provider of onnxruntime {ort.__version__} does not start, though "
                    "its libraries are there: do driver, CUDA and cuDNN fit together?"
                ],
                ["provider"],
            )
        return session


def _on_device(array: npt.NDArray[Any], index: int) -> Any:
    """Return a copy of an array on a GPU."""
    return ort.OrtValue.ortvalue_from_numpy(array, "cuda", index)


def _on_host(value: Any) -> npt.NDArray[Any]:
    """Return a copy of what is in the memory of a GPU, which no array can lie in."""
    array: npt.NDArray[Any] = value.numpy()
    return array


def _placement(session: Any) -> list[str]:
    """Return a note on the nodes that are on the CPU.

    Raises:
        BackendError: that is all of them.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):  # an older ONNX Runtime
        return ["some nodes are on the CPU"]
    placed: dict[bool, list[str]] = {True: [], False: []}
    for part in session.get_provider_graph_assignment_info():
        placed[part.ep_name == _PROVIDER] += [node.op_type for node in part.get_nodes()]
    on_gpu, on_cpu = placed[True], placed[False]
    if not on_gpu:
        raise BackendError("ONNX Runtime can run no node of the model on the GPU: use device cpu")
    if not on_cpu:
        return []
    kinds = ", ".join(sorted(set(on_cpu)))
    return [f"{len(on_cpu)} of {len(on_cpu) + len(on_gpu)} nodes are on the CPU: {kinds}"]
