"""`stnkit inspect`: what is said of a model, a bundle and a file agrees."""

from __future__ import annotations

import json

import pytest

LAYER = "spatial_transformer"


@pytest.mark.parametrize("what", ["digits", "the .keras file"])
def test_model(what, keras_file, stnkit):
    path = keras_file if what != "digits" else what
    result = stnkit("inspect", path, "--json")
    assert result.stderr == ""
    found = json.loads(result.stdout)
    assert (found["kind"], found["name"]) == ("model", "digits")
    assert [it["shape"] for it in found["inputs"]] == [["batch", 28, 28, 1]]
    assert [it["shape"] for it in found["outputs"]] == [["batch", 10]]
    assert found["transformers"] == [
        {"name": LAYER, "theta": ["batch", 2, 3], "warped": ["batch", 28, 28, 1]}
    ]
    assert found["ops"]["Conv2D"] >= 2
    assert found["weights_bytes"] < 1.5e6


def test_bundle(digits_bundle, stnkit):
    found = json.loads(stnkit("inspect", digits_bundle, "--json").stdout)
    assert (found["kind"], found["name"]) == ("bundle", "digits")
    assert found["inputs"][0]["layout"] == "NHWC"
    assert found["transformers"][0]["name"] == LAYER
    assert found["classes"]["labels"] == list("0123456789")
    assert set(found["created_by"]) >= {"stnkit", "tensorflow", "keras", "tf2onnx", "onnx"}
    for file in found["files"]:
        path = digits_bundle / file["file"]
        assert file["bytes"] == path.stat().st_size
        assert file["precision"] == "fp32"
        assert file["batch"] == "dynamic"
        assert file["foreign_ops"] == []
        # A grid of 28 x 28 points would be a constant of 6,272 bytes, and no weight.
        assert file["largest_constant"]["bytes"] < file["bytes"]
    ops = {file["format"]: file["ops"] for file in found["files"]}
    assert ops["tflite"]["CONV_2D"] == ops["onnx"]["Conv"] >= 2
    assert ops["tflite"]["GATHER"] >= 1


@pytest.mark.parametrize(("suffix", "opset"), [("tflite", None), ("onnx", 19)])
def test_file(suffix, opset, digits_bundle, stnkit):
    path = digits_bundle / f"model.fp32.{suffix}"
    (found,) = json.loads(stnkit("inspect", path, "--json").stdout)["files"]
    assert (found["format"], found["opset"], found["precision"]) == (suffix, opset, "fp32")
    assert found["transformers"] == [{"name": LAYER}]
    assert found["inputs"][0]["dtype"] == "float32"
    whole = json.loads(stnkit("inspect", digits_bundle, "--json").stdout)["files"]
    same = next(it for it in whole if it["format"] == suffix)
    assert found["ops"] == same["ops"]
    assert found["weights_bytes"] == same["weights_bytes"]


@pytest.mark.parametrize("what", ["digits", "bundle", "model.fp32.tflite", "model.fp32.onnx"])
def test_text(what, digits_bundle, stnkit):
    path = {"digits": "digits", "bundle": digits_bundle}.get(what, digits_bundle / what)
    out = stnkit("inspect", path).stdout
    assert out.isascii()
    for part in (LAYER, "float32", "28, 28, 1", " ops: ", "weights"):
        assert part in out, out
    assert "not standard" not in out
    assert ("theta [batch, 2, 3]" in out) == (what in ("digits", "bundle"))
