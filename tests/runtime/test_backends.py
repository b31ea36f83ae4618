"""The registry of backends, and what a backend may not do: speak on stderr, or leak a traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

from stnkit.runtime.backends import BACKENDS, available, backend_for, open_runner
from stnkit.runtime.backends.failure import failure
from stnkit.runtime.errors import BackendError, BackendMissingError, BundleError, InputError


def test_registry():
    assert {name: info.formats for name, info in BACKENDS.items()} == {
        "litert": ("tflite",),
        "onnxruntime": ("onnx",),
    }
    assert backend_for("onnx").name == "onnxruntime"
    with pytest.raises(InputError, match='no backend runs the format "pb"'):
        backend_for("pb")
    with pytest.raises(InputError, match='no backend "tpu": expected one of litert, onnxruntime'):
        available("tpu")


def test_available_does_not_import():
    code = (
        "import sys; from stnkit.runtime import available; "
        "print(available('onnxruntime'), available('litert'), "
        "'onnxruntime' in sys.modules, 'ai_edge_litert' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["True", "True", "False", "False"]


@pytest.mark.parametrize(
    ("backend", "package"), [("onnxruntime", "onnxruntime"), ("litert", "ai_edge_litert")]
)
def test_not_installed(monkeypatch, maker, onnx_model, backend, package):
    monkeypatch.setitem(sys.modules, package, None)  # as the import system marks what is missing
    assert not available(backend)
    with pytest.raises(BackendMissingError, match="is not installed: pip install"):
        open_runner(backend, onnx_model, maker.artifact(onnx_model))


def test_installed_but_broken(monkeypatch, maker, onnx_model, tmp_path):
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text(
        "raise ImportError('libcuda.so\\nis odd')"
    )
    for name in [name for name in sys.modules if name.split(".")[0] == "onnxruntime"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "stnkit.runtime.backends.onnxruntime", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BackendError) as caught:
        open_runner("onnxruntime", onnx_model, maker.artifact(onnx_model))
    assert "onnxruntime is installed but cannot be imported (libcuda.so is odd)" in str(
        caught.value
    )


def test_external_data_is_refused_without_a_bundle_too(maker, onnx_model):
    from onnx import ModelProto, TensorProto

    proto = ModelProto.FromString(onnx_model)
    proto.graph.initializer[0].ClearField("raw_data")
    proto.graph.initializer[0].data_location = TensorProto.EXTERNAL
    proto.graph.initializer[0].external_data.add(key="location", value="/etc/hostname")
    with pytest.raises(BundleError, match="has its data in another file"):
        open_runner("onnxruntime", proto.SerializeToString(), maker.artifact(onnx_model))


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_garbage_is_refused_in_one_line(maker, onnx_model, tflite_model, backend):
    model = {"onnxruntime": onnx_model, "litert": tflite_model}[backend]
    names = maker.artifact(model)
    for data in (b"", b"hello", model[: len(model) // 2]):
        with pytest.raises((BackendError, InputError)) as caught:
            open_runner(backend, data, names)
        assert "\n" not in str(caught.value)


def test_onnx_runtime_says_nothing_on_stderr(bundle_path):
    code = (
        "from stnkit.runtime import load, verify; "
        f"verify({str(bundle_path)!r}); load({str(bundle_path)!r}).close()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert (result.stdout, result.stderr) == ("", "")


def test_an_older_onnx_runtime_without_deform_conv_says_what_to_do():
    text = (
        "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for "
        "DeformConv(19) node with name 'stn/DeformConv_20'"
    )
    told = str(failure("ONNX Runtime cannot open the model", RuntimeError(text)))
    assert told.startswith("ONNX Runtime cannot open the model: it has no DeformConv")
    assert "1.25" in told
    assert "--sampler grid-sample" in told
    other = text.replace("DeformConv", "Gelu")
    assert "Could not find" in str(
        failure("ONNX Runtime cannot open the model", RuntimeError(other))
    )
