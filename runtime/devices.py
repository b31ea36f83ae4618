"""Name the device that a model runs on, and find out what a GPU lacks before anything falls back.

ONNX Runtime takes a GPU that it cannot use for a wish: it prints a line and runs on the CPU. So
what CUDA needs is looked at here, in the order in which it is the cheapest to find missing: the
driver, its GPUs, the package, the CUDA libraries. What only opening a session can show, whether the
provider itself starts, is found by `stnkit.runtime.backends.cuda`.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import io
import os
import re
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from stnkit.runtime.errors import DeviceError, InputError, one_line

__all__ = ["CPU", "Device", "cuda_problems", "named_device", "parse_device", "require_cuda"]

_DRIVER = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
_NO_GPU = 100  # CUDA_ERROR_NO_DEVICE
# preload_dlls prints what it cannot load, and stdout, which is silenced meanwhile, is everybody's.
_PRELOAD_LOCK = threading.Lock()


@dataclass(frozen=True)
class Device:
    """Where a model runs.

    Attributes:
        kind: `"cpu"` or `"cuda"`.
        index: number of the GPU, in the order of CUDA, which `CUDA_VISIBLE_DEVICES` changes.
    """

    kind: Literal["cpu", "cuda"]
    index: int = 0

    @property
    def name(self) -> str:
        """`"cpu"`, or `"cuda:"` and the number."""
        return "cpu" if self.kind == "cpu" else f"cuda:{self.index}"


CPU = Device("cpu")


def parse_device(text: str) -> Device | None:
    """Return the device of a name.

    Args:
        text: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:1"`.

    Returns:
        The device; None for `"auto"`.

    Raises:
        InputError: anything else.
    """
    device = _device(text)
    if device is None and text != "auto":
        raise InputError(
            f'there is no device "{one_line(str(text))}": expected auto, cpu, cuda or cuda:N'
        )
    return device


def _device(text: str) -> Device | None:
    if text == "cpu":
        return CPU
    found = re.fullmatch(r"cuda(?::([0-9]{1,3}))?", text) if isinstance(text, str) else None
    return Device("cuda", int(found[1] or 0)) if found else None


def named_device(text: str) -> Device:
    """Return the device of a name, ready for use, where the user has to name one.

    Args:
        text: `"cpu"`, `"cuda"` or `"cuda:1"`.

    Raises:
        InputError: anything else.
        DeviceError: a GPU that cannot be used.
    """
    device = _device(text)
    if device is None:
        raise InputError(
            f'there is no device "{one_line(str(text))}": expected cpu, cuda or cuda:N'
        )
    if device.kind == "cuda":
        require_cuda(device)
    return device


def require_cuda(device: Device) -> None:
    """Make a GPU usable, as far as that is possible without a session.

    Args:
        device: a GPU.

    Raises:
        DeviceError: something is missing; all of it is named.
    """
    problems = list(cuda_problems(device.index))
    if problems:
        raise DeviceError(
            device.name, [text for _, text in problems], [what for what, _ in problems]
        )


def cuda_problems(index: int) -> Iterator[tuple[str, str]]:
    """Yield what CUDA lacks here, one pair at a time, the cheapest to find first.

    Libraries that pip installed are loaded on the way, so that a session finds them.

    Args:
        index: number of the GPU.

    Yields:
        What is missing (see `DeviceError`), and a sentence that says so and what to do.
    """
    driver_cuda = yield from _driver_problems(index)
    if importlib.util.find_spec("onnxruntime") is None:
        yield "package", 'onnxruntime-gpu is not installed: pip install "stnkit[cuda]"'
        return
    try:
        ort = importlib.import_module("onnxruntime")
    except Exception as exc:  # the boundary: a broken package may raise anything
        yield "package", f"onnxruntime cannot be imported ({one_line(exc)}): reinstall it"
        return
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        yield (
            "package",
            f"the installed onnxruntime {ort.__version__} has no CUDA provider: pip uninstall "
            'onnxruntime, then pip install "stnkit[cuda]"',
        )
        return
    built = _cuda_version(ort)
    if driver_cuda is not None and built is not None and driver_cuda[0] < built[0]:
        yield (
            "driver",
            f"the NVIDIA driver supports CUDA {driver_cuda[0]}.{driver_cuda[1]}, and "
            f"onnxruntime-gpu {ort.__version__} needs CUDA {built[0]}: update the driver, or "
            "install an onnxruntime-gpu that was built for the older CUDA",
        )
    absent = _absent_libraries(ort, built)
    if absent:
        yield (
            "libraries",
            f"the CUDA libraries {', '.join(absent)} cannot be loaded: pip install "
            '"stnkit[cuda]", or install CUDA and cuDNN',
        )


def _driver_problems(
    index: int,
) -> Generator[tuple[str, str], None, tuple[int, int] | None]:
    """Yield what driver and GPUs lack; return the newest CUDA version that the driver supports."""
    try:
        driver = _load_library(_DRIVER)
    except OSError:
        yield "driver", f"there is no NVIDIA driver ({_DRIVER} cannot be loaded): install one"
        return None
    version, count = ctypes.c_int(), ctypes.c_int()
    status = driver.cuInit(0)
    if status == 0:
        status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status == _NO_GPU or (status == 0 and count.value == 0):
        yield (
            "gpu",
            "the NVIDIA driver finds no GPU: is one there, and does CUDA_VISIBLE_DEVICES hide it?",
        )
    elif status != 0:
        yield (
            "driver",
            f"the NVIDIA driver cannot start (CUDA error {status}): is it as new as its kernel "
            "module, and is the device handed to this container?",
        )
    elif index >= count.value:
        yield (
            "gpu",
            f"there is no GPU {index}: expected 0 to {count.value - 1}, as CUDA counts them",
        )
    if driver.cuDriverGetVersion(ctypes.byref(version)) != 0 or version.value <= 0:
        return None
    return version.value // 1000, version.value % 1000 // 10


def _cuda_version(ort: Any) -> tuple[int, int] | None:
    """Return the CUDA version that ONNX Runtime was built with; None where it does not say."""
    found = re.match(r"(\d+)\.(\d+)", str(getattr(ort, "cuda_version", "") or ""))
    return (int(found[1]), int(found[2])) if found else None


def _absent_libraries(ort: Any, built: tuple[int, int] | None) -> list[str]:
    """Preload what pip installed, and return the names of the libraries that cannot be loaded."""
    # Before 1.21 there is no preload_dlls, and elsewhere than on Linux other names hold: what is
    # missing then is found when the provider starts.
    if hasattr(ort, "preload_dlls"):
        with _PRELOAD_LOCK, contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()
    if built is None or os.name != "posix":
        return []
    major = built[0]
    # cublasLt to cudart are what the provider's library names itself. cuDNN it loads when it first
    # meets a convolution, and then fails; cuFFT and NVRTC are for ops that no transformer has.
    wanted = (
        f"libcublasLt.so.{major}",
        f"libcublas.so.{major}",
        "libcurand.so.10",
        f"libcudart.so.{major}",
        "libcudnn.so.9",
    )
    return [name for name in wanted if not _loads(name)]


def _loads(name: str) -> bool:
    try:
        _load_library(name)
    except OSError:
        return False
    return True


def _load_library(name: str) -> Any:
    """Load a shared library; the one place that does."""
    return ctypes.CDLL(name)
