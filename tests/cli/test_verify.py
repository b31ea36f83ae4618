"""`stnkit verify`: the proof repeated, and what a false artifact looks like."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace

import keras
import numpy as np
import pytest

from stnkit.convert.frozen import freeze
from stnkit.convert.source.model import source_from_keras
from stnkit.convert.tflite import export_tflite
from stnkit.runtime import open_bundle
from stnkit.runtime.manifest import write_manifest


def test_report(digits_bundle, stnkit):
    out = stnkit("verify", digits_bundle).stdout
    lines = out.splitlines()
    assert re.split(r"\s{2,}", lines[0]) == [
        "artifact",
        "ran on",
        "theta error",
        "warp error",
        "output error",
        "verdict",
    ]
    for line, file, backend in zip(
        lines[1:3], ("tflite", "onnx"), ("litert", "onnxruntime"), strict=True
    ):
        cells = re.split(r"\s{2,}", line)
        assert cells[0] == f"model.fp32.{file}"
        assert re.fullmatch(rf"{backend} [\d.]+", cells[1])
        assert all(re.fullmatch(r"\d\.\de-\d\d / \de-0[45]", cell) for cell in cells[2:5])
        assert cells[5] == "equal"
    assert "2 of 2 artifacts" in lines[3]
    assert out.isascii()


def test_json(digits_bundle, stnkit):
    result = stnkit("verify", digits_bundle, "--json")
    assert result.stderr == ""
    document = json.loads(result.stdout)
    assert document["passed"] is True
    kinds = {"output", "theta", "warped"}
    for artifact in document["artifacts"]:
        assert {item["kind"] for item in artifact["comparisons"]} == kinds
        assert artifact["largest_errors"]["output"] <= 1e-5
        assert artifact["largest_errors"]["warped"] <= 1e-4


@pytest.mark.parametrize("artifact", ["onnx", "model.fp32.onnx"])
def test_one_artifact(artifact, digits_bundle, stnkit):
    result = stnkit("verify", digits_bundle, "--artifact", artifact, "--json", "--threads", 1)
    assert [it["file"] for it in json.loads(result.stdout)["artifacts"]] == ["model.fp32.onnx"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--device", "auto"], ['no device "auto"', "expected cpu, cuda or cuda:N"]),
        (["--device", "cuda:9"], ["device cuda:9 cannot be used"]),
        (["--device", "cuda", "--junit", "x.xml"], ["--device is for the stored proof"]),
    ],
)
def test_a_device_that_is_not_there(arguments, says, digits_bundle, refused):
    refused("verify", digits_bundle, *arguments, says=says)


@pytest.fixture
def false_bundle(bundle, keras_file):
    """Make the TFLite artifact one of other weights; every hash in the bundle is right."""
    model = keras.saving.load_model(keras_file, compile=False)
    for variable in model.trainable_variables:
        if variable.path.endswith("bias"):
            variable.assign(variable + 0.02)
    exported = export_tflite(freeze(source_from_keras(model), None))
    opened = open_bundle(bundle)
    right, other = opened.manifest.artifacts
    content = exported.content
    false = replace(
        right,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        inputs=exported.inputs,
        outputs=exported.outputs,
        taps=exported.taps,
    )
    (bundle / right.file).write_bytes(content)
    manifest = replace(opened.manifest, artifacts=(false, other))
    (bundle / "manifest.json").write_bytes(write_manifest(manifest))
    return bundle


def test_a_false_artifact_is_exit_code_1_with_the_evidence(false_bundle, stnkit):
    result = stnkit("verify", false_bundle, code=1)
    assert [line.split()[-1] for line in result.stdout.splitlines()[1:3]] == ["DIFFERS", "equal"]
    (line,) = result.stderr.splitlines()
    found = re.fullmatch(
        r"error: model\.fp32\.tflite differs from its source: "
        r'(?P<what>output|theta tap|warped tap) "(?P<tensor>[^"]+)", case "(?P<case>[^"]+)": '
        r"worst at \[(?P<index>[\d, ]+)\], expected (?P<want>\S+), got (?P<got>\S+) "
        r"\(largest difference (?P<error>\S+), tolerance (?P<atol>\S+) \+ (?P<rtol>\S+) \* "
        r"\|reference\|\) \(and \d+ more\)",
        line,
    )
    assert found, line
    # The line is true: the value at that place of that probe is what the source gave.
    (case,) = [it for it in open_bundle(false_bundle).golden() if it.name == found["case"]]
    tensors = case.outputs if found["what"] == "output" else case.taps
    place = tuple(int(part) for part in found["index"].split(","))
    want, got = float(found["want"]), float(found["got"])
    np.testing.assert_allclose(tensors[found["tensor"]][place], want, rtol=1e-5)
    assert abs(got - want) > float(found["atol"]) + float(found["rtol"]) * abs(want)
    assert float(found["error"]) > 1e-3


def test_a_false_artifact_in_json(false_bundle, stnkit):
    result = stnkit("verify", false_bundle, "--json", code=1)
    document = json.loads(result.stdout)
    assert document["passed"] is False
    assert [it["passed"] for it in document["artifacts"]] == [False, True]
    assert result.stderr.startswith("error: model.fp32.tflite differs")


def test_the_right_artifact_beside_a_false_one(false_bundle, stnkit):
    stnkit("verify", false_bundle, "--artifact", "onnx")


def test_a_false_artifact_ends_a_conversion(stnkit, scratch, monkeypatch):
    from stnkit.convert import pipeline

    honest = pipeline.export_onnx

    def false(graph, opset, sampler):
        """Nudge one bias of the network's last layer, as a broken exporter might."""
        import onnx
        from onnx import numpy_helper

        exported = honest(graph, opset, sampler)
        model = onnx.load_from_string(exported.content)
        bias = next(it for it in model.graph.initializer if list(it.dims) == [10])
        bias.CopyFrom(
            numpy_helper.from_array(
                numpy_helper.to_array(bias) + np.eye(10, dtype=np.float32)[3], bias.name
            )
        )
        return replace(exported, content=model.SerializeToString())

    monkeypatch.setattr(pipeline, "export_onnx", false)
    result = stnkit("convert", "digits", "-o", "x.bundle", "--to", "onnx", code=1)
    assert result.stdout == ""
    assert re.search(
        r'^error: model\.fp32\.onnx differs from its source: output "\w+", case "\w+": worst at '
        r"\[\d+, \d+\], expected \S+, got \S+ \(largest difference \S+, tolerance \S+e-05 .*; "
        r"likely cause: \w+: ",
        result.stderr.splitlines()[-1],
    )
    assert list(scratch.iterdir()) == []
