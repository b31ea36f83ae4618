"""List the backends, and open artifacts with them; their packages are imported on first use."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from stnkit.runtime.errors import BackendError, BackendMissingError, InputError, one_line

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "BACKENDS",
    "BackendInfo",
    "CudaSettings",
    "Runner",
    "RunnerFacts",
    "TensorNames",
    "available",
    "backend_for",
    "open_runner",
]


class TensorNames(Protocol):
    """Where a signature's tensors are found in a file; an `Artifact` is one."""

    @property
    def inputs(self) -> Mapping[str, str]:
        """Signature name -> tensor name in the file."""

    @property
    def outputs(self) -> Mapping[str, str]:
        """Signature name -> tensor name in the file."""

    @property
    def taps(self) -> Mapping[str, str]:
        """Tap name -> tensor name in the file."""


@dataclass(frozen=True)
class RunnerFacts:
    """What a runner has to say of how it runs.

    Attributes:
        cuda_graph: whether runs replay a CUDA graph.
        notes: sentences for a person.
    """

    cuda_graph: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CudaSettings:
    """How a model runs on a GPU.

    Attributes:
        index: number of the GPU.
        options: options of the CUDA provider, as `stnkit.runtime.backends.cuda_options` gives them.
        buckets: batch sizes that runs have, sorted; empty where they have any.
        rows_of: name of an input that has a row an item; None without buckets.
    """

    index: int
    options: Mapping[str, str]
    buckets: tuple[int, ...] = ()
    rows_of: str | None = None


class Runner(Protocol):
    """One opened model file. `run` may be called from several threads at once."""

    @property
    def version(self) -> str:
        """Version of the backend's package."""

    @property
    def facts(self) -> RunnerFacts:
        """How it runs."""

    def run(
        self,
        inputs: Mapping[str, npt.NDArray[Any]],
        out: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Run the model.

        Args:
            inputs: signature name -> array, every input, of the dtype and shape that it takes.
            out: output or tap name -> array that it is written to, for any of them: of its dtype
                and shape, C-contiguous, writeable, and without a byte of an input or of another.

        Returns:
            Signature name -> array, every output; with taps also tap name -> array. The arrays
            belong to the caller; those of `out` are those that were given.

        Raises:
            BackendError: the backend failed.
        """

    def close(self) -> None:
        """Give the model's memory back; the runner cannot run afterwards."""


@dataclass(frozen=True)
class BackendInfo:
    """What is known of a backend before it is imported.

    Attributes:
        name: the backend's name.
        module: the module here that has its `open_runner`.
        import_name: the foreign package's import name.
        package: the foreign package's name in the package index.
        extra: the extra of stnkit that brings it; None where the base install does.
        formats: the artifact formats it runs.
    """

    name: str
    module: str
    import_name: str
    package: str
    extra: str | None
    formats: tuple[str, ...]


BACKENDS: Mapping[str, BackendInfo] = {
    info.name: info
    for info in (
        BackendInfo(
            name="litert",
            module="stnkit.runtime.backends.litert",
            import_name="ai_edge_litert",
            package="ai-edge-litert",
            extra=None,
            formats=("tflite",),
        ),
        BackendInfo(
            name="onnxruntime",
            module="stnkit.runtime.backends.onnxruntime",
            import_name="onnxruntime",
            package="onnxruntime",
            extra="cpu",
            formats=("onnx",),
        ),
    )
}


def _info(backend: str) -> BackendInfo:
    try:
        return BACKENDS[backend]
    except KeyError:
        known = ", ".join(sorted(BACKENDS))
        raise InputError(
            f'there is no backend "{one_line(backend)}": expected one of {known}'
        ) from None


def backend_for(format: str) -> BackendInfo:
    """Return the backend that runs a format.

    Args:
        format: `"tflite"` or `"onnx"`.

    Raises:
        InputError: no backend runs it.
    """
    for info in BACKENDS.values():
        if format in info.formats:
            return info
    raise InputError(f'no backend runs the format "{one_line(format)}": expected tflite or onnx')


def available(backend: str) -> bool:
    """Return whether a backend's package is installed, without importing it.

    Args:
        backend: `"litert"` or `"onnxruntime"`.

    Raises:
        InputError: no such backend.
    """
    try:
        return importlib.util.find_spec(_info(backend).import_name) is not None
    except ValueError:  # a module that was put into sys.modules by hand, without a spec
        return False


def open_runner(
    backend: str,
    model: bytes,
    names: TensorNames,
    *,
    want_taps: bool = False,
    drives: Collection[str] = (),
    threads: int | None = None,
    pool: bool = True,
    spinning: bool = False,
    cuda: CudaSettings | None = None,
) -> Runner:
    """Open a model file with a backend.

    Args:
        backend: `"litert"` or `"onnxruntime"`.
        model: the file's content.
        names: where the signature's tensors are found in it.
        want_taps: whether the taps come out too. The model is then extended in memory, so that
            the same kernels run as without.
        drives: names of taps that are given with the inputs and not computed; they do not come out.
        threads: number of threads that share one run, >= 1; None leaves it to the backend.
        pool: whether what a run has freed is kept for the next one, where the backend can do
            without. It is faster where one model runs for long; it takes more memory, and of what
            the largest batch took nothing is given back before the runner and all arrays that came
            out of it are gone. The same kernels run either way.
        spinning: whether idle threads wait busily for the next run (ONNX Runtime alone).
        cuda: the GPU that runs it (ONNX Runtime alone); None for the CPU.

    Returns:
        The runner.

    Raises:
        BackendMissingError: the backend's package is not installed.
        BackendError: the backend refuses the model.
        DeviceError: the GPU cannot be used.
        InputError: a damaged file, a tap that is not in it, or a thread count below 1.
    """
    info = _info(backend)
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}: expected at least 1, or None for the default")
    if not available(backend):
        raise BackendMissingError(info.name, info.package, info.extra)
    try:
        module = importlib.import_module(info.module)
        return module.open_runner(
            model,
            names,
            want_taps=want_taps,
            drives=drives,
            threads=threads,
            pool=pool,
            spinning=spinning,
            cuda=cuda,
        )
    except ImportError as exc:
        raise BackendError(
            f"{info.package} is installed but cannot be imported ({one_line(exc)}): reinstall it"
        ) from exc
