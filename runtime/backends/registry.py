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
    "Runner",
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


class Runner(Protocol):
    """One opened model file. `run` may be called from several threads at once."""

    @property
    def version(self) -> str:
        """Version of the backend's package."""

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Run the model.

        Args:
            inputs: signature name -> array, every input, of the dtype and shape that it takes.

        Returns:
            Signature name -> array, every output; with taps also tap name -> array. The arrays
            belong to the caller.

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

    Returns:
        The runner.

    Raises:
        BackendMissingError: the backend's package is not installed.
        BackendError: the backend refuses the model.
        InputError: a damaged file, a tap that is not in it, or a thread count below 1.
    """
    info = _info(backend)
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}: expected at least 1, or None for the default")
    if not available(backend):
        raise BackendMissingError(info.name, info.package, info.extra)
    try:
        module = importlib.import_module(info.module)
        return module.open_runner(model, names, want_taps=want_taps, drives=drives, threads=threads)
    except ImportError as exc:
        raise BackendError(
            f"{info.package} is installed but cannot be imported ({one_line(exc)}): reinstall it"
        ) from exc
