"""Devices: their names, and what a GPU lacks, with a driver and packages that are made up."""

from __future__ import annotations

import ctypes
import importlib.util
import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest

from stnkit.runtime import DeviceError, InputError, devices, load
from stnkit.runtime.devices import CPU, Device, cuda_problems, named_device, parse_device


class Driver:
    """Stands for libcuda: a status of cuInit, GPUs, and the newest CUDA that it supports."""

    def __init__(self, init: int = 0, count: int = 1, version: int = 13010, counting: int = 0):
        self.init, self.count, self.version, self.counting = init, count, version, counting

    def cuInit(self, flags):  # noqa: N802
        assert flags == 0
        return self.init

    def cuDeviceGetCount(self, pointer):  # noqa: N802
        ctypes.cast(pointer, ctypes.POINTER(ctypes.c_int)).contents.value = self.count
        return self.counting

    def cuDriverGetVersion(self, pointer):  # noqa: N802
        ctypes.cast(pointer, ctypes.POINTER(ctypes.c_int)).contents.value = self.version
        return 0


def runtime_with(providers=("CUDAExecutionProvider", "CPUExecutionProvider"), **more):
    preloaded = []

    def preload_dlls():
        preloaded.append(True)
        print("Failed to load libcublas.so.13")  # as the real one does

    values = {"__version__": "1.31.1", "cuda_version": "13.0", "preload_dlls": preload_dlls}
    return SimpleNamespace(
        get_available_providers=lambda: list(providers), preloaded=preloaded, **{**values, **more}
    )


@pytest.fixture
def machine(monkeypatch):
    """Make a machine up: a driver or none, the onnxruntime, and libraries that are missing."""

    def make(driver=None, runtime=None, missing=()):
        def load_library(name):
            if name == "libcuda.so.1":
                if driver is None:
                    raise OSError("cannot open shared object file")
                return driver
            if name in missing:
                raise OSError("cannot open shared object file")
            return object()

        monkeypatch.setattr(devices, "_load_library", load_library)
        monkeypatch.setitem(sys.modules, "onnxruntime", runtime or runtime_with())

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: name if name == "onnxruntime" else real(name)
    )
    return make


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("auto", None),
        ("cpu", CPU),
        ("cuda", Device("cuda", 0)),
        ("cuda:0", Device("cuda", 0)),
        ("cuda:12", Device("cuda", 12)),
    ],
)
def test_names(text, device):
    assert parse_device(text) == device
    if device is not None:
        assert device.name == ("cuda:0" if text == "cuda" else text)


@pytest.mark.parametrize(
    "text", ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda: 1", "cuda:1000", "cuda:٣", "cpu\n", 0]
)
def test_other_names_are_refused(text):
    with pytest.raises(InputError, match=r"no device .*expected auto, cpu, cuda or cuda:N"):
        parse_device(text)


def test_where_a_device_has_to_be_named_auto_is_none():
    assert named_device("cpu") is CPU
    with pytest.raises(InputError, match='no device "auto": expected cpu, cuda or cuda:N'):
        named_device("auto")


class TestWhatIsMissing:
    """Everything that CUDA needs, taken away one by one."""

    def test_nothing(self, machine, capsys):
        runtime = runtime_with()
        machine(Driver(count=2), runtime)
        assert list(cuda_problems(1)) == []
        assert runtime.preloaded == [True]
        assert named_device("cuda:1") == Device("cuda", 1)
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize(
        ("driver", "what", "parts"),
        [
            (None, "driver", ["no NVIDIA driver", "libcuda.so.1", "install one"]),
            (Driver(init=100), "gpu", ["finds no GPU", "CUDA_VISIBLE_DEVICES"]),
            (Driver(count=0), "gpu", ["finds no GPU"]),
            (Driver(init=803), "driver", ["cannot start", "CUDA error 803"]),
            (Driver(counting=999), "driver", ["CUDA error 999"]),
            (Driver(count=3), "gpu", ["no GPU 5", "expected 0 to 2"]),
            (Driver(count=6, version=12040), "driver", ["supports CUDA 12.4", "needs CUDA 13"]),
        ],
    )
    def test_driver_and_gpus(self, machine, driver, what, parts):
        machine(driver)
        ((missing, text),) = cuda_problems(5)
        assert missing == what
        for part in parts:
            assert part in text

    def test_package_without_cuda(self, machine):
        machine(Driver(), runtime_with(("CPUExecutionProvider",)))
        ((missing, text),) = cuda_problems(0)
        assert missing == "package"
        assert "has no CUDA provider: pip uninstall onnxruntime" in text
        assert 'pip install "stnkit[cuda]"' in text

    def test_no_package(self, machine, monkeypatch):
        machine(Driver())
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        ((missing, text),) = cuda_problems(0)
        assert (missing, text.split(":")[0]) == ("package", "onnxruntime-gpu is not installed")

    def test_libraries(self, machine):
        machine(Driver(), missing=("libcudnn.so.9", "libcublas.so.13"))
        ((missing, text),) = cuda_problems(0)
        assert missing == "libraries"
        assert "libcublas.so.13, libcudnn.so.9 cannot be loaded" in text
        assert 'pip install "stnkit[cuda]"' in text

    def test_an_onnxruntime_that_says_less(self, machine):
        runtime = runtime_with(cuda_version=None)
        del runtime.preload_dlls  # as before 1.21
        machine(Driver(version=11080), runtime, missing=("libcublas.so.13",))
        assert list(cuda_problems(0)) == []

    def test_all_of_it_stands_in_one_error(self, machine):
        machine(None, missing=("libcudart.so.13",))
        with pytest.raises(DeviceError) as caught:
            named_device("cuda:1")
        assert caught.value.missing == ("driver", "libraries")
        assert caught.value.device == "cuda:1"
        assert caught.value.exit_code == 2
        text = str(caught.value)
        assert text.startswith("device cuda:1 cannot be used: there is no NVIDIA driver")
        assert "; the CUDA libraries libcudart.so.13" in text
        assert "\n" not in text
        copy = pickle.loads(pickle.dumps(caught.value))
        assert (str(copy), copy.missing) == (text, caught.value.missing)

    def test_the_cheapest_is_looked_at_first(self, machine, monkeypatch):
        machine(None)
        monkeypatch.delitem(sys.modules, "onnxruntime")
        monkeypatch.setattr(
            devices.importlib, "import_module", lambda name: pytest.fail(f"imported {name}")
        )
        assert next(cuda_problems(0))[0] == "driver"


@pytest.mark.skipif(
    not any(what == "driver" for what, _ in cuda_problems(0)), reason="there is a driver here"
)
class TestHere:
    """The installed ONNX Runtime on a machine without a driver."""

    @pytest.mark.parametrize("device", ["cuda", "cuda:1"])
    def test_cuda_is_an_error_and_no_cpu_run(self, bundle_path, device, capfd):
        with pytest.raises(DeviceError, match=r"there is no NVIDIA driver \(libcuda"):
            load(bundle_path, device=device)
        assert capfd.readouterr() == ("", "")

    def test_auto_takes_the_cpu_and_says_why(self, bundle_path):
        with load(bundle_path) as session:
            assert session.device == "cpu"
            assert "no GPU can be used: there is no NVIDIA driver" in str(session.explain())

    def test_auto_imports_no_backend_that_does_not_run(self, both_path):
        code = (
            "import sys; from stnkit.runtime import load; "
            f"print(load({str(both_path)!r}).backend, 'onnxruntime' in sys.modules)"
        )
        run = [sys.executable, "-c", code]
        result = subprocess.run(run, capture_output=True, text=True, check=True)
        assert result.stdout.split() == ["litert", "False"]
