"""A small model in both formats with its truth in NumPy, and bundles made of it.

The model: theta = flatten(image) @ W + b, warped = image * theta[0] + theta[2],
features = tanh(flatten(warped) @ V), probabilities = softmax(flatten(warped) @ V).
In both files the outputs stand in another order than in the signature.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stnkit.runtime.compare import Tolerance
from stnkit.runtime.golden import GoldenCase, write_golden
from stnkit.runtime.manifest import (
    Artifact,
    Classes,
    FileRecord,
    Manifest,
    MeasuredErrors,
    Preprocessing,
    Signature,
    Source,
    TapSpec,
    TensorSpec,
    Tolerances,
    canonical_sha256,
    write_manifest,
)

LABELS = ("cat", "dog", "owl")


@dataclasses.dataclass(frozen=True)
class Toy:
    """The model's weights and its truth."""

    w: np.ndarray
    b: np.ndarray
    v: np.ndarray

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        x = image.astype(np.float64)
        theta = x.reshape(-1, 16) @ self.w + self.b
        warped = x * theta[:, 0, None, None, None] + theta[:, 2, None, None, None]
        logits = warped.reshape(-1, 16) @ self.v
        e = np.exp(logits - logits.max(axis=1, keepdims=True))
        return {
            "probabilities": (e / e.sum(axis=1, keepdims=True)).astype(np.float32),
            "features": np.tanh(logits).astype(np.float32),
            "st/theta": theta.astype(np.float32),
            "st/warped": warped.astype(np.float32),
        }

    def images(self, count: int, seed: int = 1) -> np.ndarray:
        return np.random.default_rng(seed).random((count, 4, 4, 1)).astype(np.float32)

    def case(self, count: int, name: str = "") -> GoldenCase:
        image = self.images(count, seed=count)
        truth = self.run(image)
        return GoldenCase(
            name or f"noise_b{count}",
            {"image": image},
            {key: truth[key] for key in ("probabilities", "features")},
            {key: truth[key] for key in ("st/theta", "st/warped")},
        )

    def onnx(self, batch: int | str = "batch", warp_error: float = 0.0) -> bytes:
        """Return the ONNX file; with `warp_error` the warp is off where the outputs hide it."""
        from onnx import TensorProto, helper, numpy_helper

        # A column of zeros in V makes one pixel of the warped image invisible at the outputs.
        offset = np.zeros((1, 4, 4, 1), np.float32)
        offset[0, 3, 3, 0] = warp_error
        constants = {
            "W": self.w,
            "B": self.b,
            "V": self.v,
            "offset": offset,
            "flat": np.array([-1, 16], np.int64),
            "column": np.array([-1, 1, 1, 1], np.int64),
            "i0": np.array([0], np.int64),
            "i2": np.array([2], np.int64),
        }
        nodes = [
            helper.make_node("Reshape", ["image_in", "flat"], ["x"]),
            helper.make_node("MatMul", ["x", "W"], ["xw"]),
            helper.make_node("Add", ["xw", "B"], ["loc:0/theta"]),
            helper.make_node("Gather", ["loc:0/theta", "i0"], ["s"], axis=1),
            helper.make_node("Gather", ["loc:0/theta", "i2"], ["t"], axis=1),
            helper.make_node("Reshape", ["s", "column"], ["s4"]),
            helper.make_node("Reshape", ["t", "column"], ["t4"]),
            helper.make_node("Mul", ["image_in", "s4"], ["scaled"]),
            helper.make_node("Add", ["scaled", "t4"], ["moved"]),
            helper.make_node("Add", ["moved", "offset"], ["sampler/warped"]),
            helper.make_node("Reshape", ["sampler/warped", "flat"], ["w_flat"]),
            helper.make_node("MatMul", ["w_flat", "V"], ["logits"]),
            helper.make_node("Tanh", ["logits"], ["out_f"]),
            helper.make_node("Softmax", ["logits"], ["out_p"], axis=1),
        ]

        def info(name: str, *shape: int | str) -> Any:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))

        graph = helper.make_graph(
            nodes,
            "toy",
            [info("image_in", batch, 4, 4, 1)],
            [info("out_f", batch, 3), info("out_p", batch, 3)],
            [numpy_helper.from_array(value, key) for key, value in constants.items()],
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=8,
            producer_name="stnkit-tests",
            producer_version="1",
        )
        return model.SerializeToString()


@pytest.fixture(scope="session")
def toy() -> Toy:
    rng = np.random.default_rng(7)
    v = rng.normal(size=(16, 3)).astype(np.float32)
    v[15] = 0.0
    return Toy(
        (rng.normal(size=(16, 6)) * 0.2).astype(np.float32),
        np.array([1, 0, 0, 0, 1, 0], np.float32),
        v,
    )


@pytest.fixture(scope="session")
def onnx_model(toy: Toy) -> bytes:
    return toy.onnx()


def _convert_tflite(toy: Toy, batch: int | None) -> bytes:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow's own, at import and while converting
        import tensorflow as tf

        def model(image: Any) -> dict[str, Any]:
            theta = tf.add(tf.matmul(tf.reshape(image, [-1, 16]), toy.w), toy.b, name="st/theta")
            scaled = image * tf.reshape(theta[:, 0], [-1, 1, 1, 1])
            warped = tf.add(scaled, tf.reshape(theta[:, 2], [-1, 1, 1, 1]), name="st/warped")
            logits = tf.matmul(tf.reshape(warped, [-1, 16]), toy.v)
            return {"features": tf.tanh(logits), "probabilities": tf.nn.softmax(logits)}

        function = tf.function(
            model, input_signature=[tf.TensorSpec([batch, 4, 4, 1], tf.float32, name="image")]
        )
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [function.get_concrete_function()]
        )
        return bytes(converter.convert())


@pytest.fixture(scope="session")
def tflite_model(toy: Toy) -> bytes:
    return _convert_tflite(toy, None)


@pytest.fixture(scope="session")
def tflite_fixed_model(toy: Toy) -> bytes:
    return _convert_tflite(toy, 2)


def record(file: str, data: bytes) -> FileRecord:
    return FileRecord(file, hashlib.sha256(data).hexdigest(), len(data))


class Maker:
    """Writes bundles of the toy model, whole or spoilt."""

    def __init__(self, toy: Toy) -> None:
        self.toy = toy

    def artifact(self, model: bytes, *, file: str = "", **changes: Any) -> Artifact:
        tflite = model[4:8] == b"TFL3"
        file = file or ("model.fp32.tflite" if tflite else "model.fp32.onnx")
        found = record(file, model)
        taps = {"st/theta": "loc:0/theta", "st/warped": "sampler/warped"}
        if tflite:
            from stnkit.runtime import summarize

            names = summarize(model).tap_names
            taps = {
                f"st/{kind}": next(name for name in names if name.endswith(kind))
                for kind in ("theta", "warped")
            }
        values: dict[str, Any] = {
            "file": file,
            "format": "tflite" if tflite else "onnx",
            "precision": "fp32",
            "sampler": "gather",
            "opset": None if tflite else 17,
            "batch": "dynamic",
            "sha256": found.sha256,
            "bytes": found.bytes,
            "inputs": {"image": "image" if tflite else "image_in"},
            # The converter sorts a dict's outputs by key.
            "outputs": {"probabilities": "Identity_1", "features": "Identity"}
            if tflite
            else {"probabilities": "out_p", "features": "out_f"},
            "taps": taps,
            "errors": MeasuredErrors(1e-7, 2e-7, 3e-7),
        }
        return Artifact(**{**values, **changes})

    def manifest(self, artifacts: tuple[Artifact, ...], golden: FileRecord, **changes: Any):
        values: dict[str, Any] = {
            "name": "toy",
            "created_by": {"stnkit": "0.1.0"},
            "source": Source("toy model.keras", "keras", "0" * 64),
            "signature": Signature(
                (TensorSpec("image", "float32", ("batch", 4, 4, 1), "NHWC", (0.0, 1.0)),),
                (
                    TensorSpec("probabilities", "float32", ("batch", 3)),
                    TensorSpec("features", "float32", ("batch", 3)),
                ),
            ),
            "taps": (
                TapSpec("st/theta", "theta", "st", ("batch", 6)),
                TapSpec("st/warped", "warped", "st", ("batch", 4, 4, 1)),
            ),
            "preprocessing": Preprocessing("image", (4, 4), 1, 1 / 255),
            "classes": Classes("probabilities", LABELS, "probabilities"),
            "artifacts": artifacts,
            "golden": golden,
            "equivalence": record("equivalence.json", b"{}\n"),
            "tolerances": Tolerances(Tolerance(1e-5), Tolerance(1e-5), Tolerance(1e-4, 1e-5)),
        }
        return Manifest(**{**values, **changes})

    def write(
        self,
        folder: Path,
        models: list[bytes],
        *,
        cases: tuple[GoldenCase, ...] | None = None,
        golden: bytes | None = None,
        artifact_changes: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Path:
        """Write a bundle; every argument replaces one part of a whole one."""
        folder.mkdir(parents=True)
        if golden is None:
            golden = write_golden(cases or (self.toy.case(1), self.toy.case(3)))
        artifacts = tuple(self.artifact(model, **(artifact_changes or {})) for model in models)
        manifest = self.manifest(artifacts, record("golden.npz", golden), **changes)
        for artifact, model in zip(artifacts, models, strict=True):
            (folder / artifact.file).write_bytes(model)
        (folder / "golden.npz").write_bytes(golden)
        (folder / "equivalence.json").write_bytes(b"{}\n")
        (folder / "manifest.json").write_bytes(write_manifest(manifest))
        return folder

    def reseal(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return the document with the hash that its content deserves, as an attacker would."""
        rest = {key: value for key, value in document.items() if key != "sha256"}
        return {**rest, "sha256": canonical_sha256(rest)}

    def edit(self, folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
        """Change a bundle's manifest and give it a right hash again."""
        path = folder / "manifest.json"
        document = json.loads(path.read_bytes())
        change(document)
        path.write_text(json.dumps(self.reseal(document)))


@pytest.fixture(scope="session")
def maker(toy: Toy) -> Maker:
    return Maker(toy)


@pytest.fixture
def bundle_path(maker: Maker, onnx_model: bytes, tmp_path: Path) -> Path:
    """A bundle with the ONNX artifact alone: no TensorFlow is needed to make it."""
    return maker.write(tmp_path / "toy.bundle", [onnx_model])


@pytest.fixture
def both_path(maker: Maker, onnx_model: bytes, tflite_model: bytes, tmp_path: Path) -> Path:
    """A bundle with both artifacts, TFLite first."""
    return maker.write(tmp_path / "both.bundle", [tflite_model, onnx_model])
