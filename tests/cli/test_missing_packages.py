"""A package that is not installed: the message names the extra that brings it."""

from __future__ import annotations

import json

import pytest

CONVERTERS = "tensorflow,keras,tf2onnx,onnx"
CPU = ["onnxruntime is not installed", 'pip install "stnkit[cpu]"', '"stnkit[gpu]"']
LITERT = ["ai-edge-litert is not installed", "pip install ai-edge-litert"]


@pytest.mark.parametrize("missing", ["tensorflow", "keras", "tf2onnx", "onnx", CONVERTERS])
@pytest.mark.parametrize(
    "arguments",
    [
        ["convert", "digits", "-o", "x.bundle"],
        ["inspect", "digits"],
        ["train", "digits", "-o", "x.keras"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_convert(arguments, missing, refused_process):
    says = [missing.split(",")[0], "is not installed", 'pip install "stnkit[convert]"']
    refused_process(*arguments, missing=missing, says=says)


@pytest.mark.parametrize(
    ("missing", "format", "says"),
    [("onnxruntime", "onnx", CPU), ("ai_edge_litert", "tflite", LITERT)],
)
def test_a_proof_needs_the_backend_and_says_so_before_long_work(
    missing, format, says, refused_process
):
    for options in ([], ["--to", format]):
        arguments = ["convert", "digits", "-o", "x.bundle", *options]
        line = refused_process(*arguments, missing=missing, says=says)
        assert "starting" not in line


def test_both_backends_run_without_converters(bundle, digit, process):
    for arguments in (
        ["verify", bundle, "--json"],
        ["run", bundle, digit, "--artifact", "tflite", "--json"],
        ["run", bundle, digit, "--artifact", "onnx", "--save-warp", "seen", "--json"],
        ["inspect", bundle, "--json"],
        ["inspect", bundle / "model.fp32.onnx", "--json"],
        ["inspect", bundle / "model.fp32.tflite", "--json"],
    ):
        result = process(*arguments, missing=CONVERTERS)
        assert (result.returncode, result.stderr) == (0, ""), result
        assert json.loads(result.stdout)


@pytest.mark.parametrize(
    ("missing", "lost", "left", "says"),
    [
        ("onnxruntime", "onnx", "tflite", CPU),
        ("ai_edge_litert", "tflite", "onnx", LITERT),
    ],
)
def test_one_backend(missing, lost, left, says, bundle, digit, process, refused_process):
    for command in (["verify", bundle], ["run", bundle, digit]):
        refused_process(*command, "--artifact", lost, missing=missing, says=says)
        assert process(*command, "--artifact", left, missing=missing).returncode == 0
    # Without a choice of the user's, what can run runs, and what cannot is told.
    result = process("run", bundle, digit, "--json", missing=missing)
    assert json.loads(result.stdout)["artifact"] == f"model.fp32.{left}"
    result = process("verify", bundle, missing=missing)
    assert result.returncode == 0
    row = next(line for line in result.stdout.splitlines() if f"model.fp32.{lost}" in line)
    assert all(part in row for part in ["not run", *says])
    assert "1 of 2 artifacts" in result.stdout


def test_no_backend_at_all(bundle, digit, refused_process):
    for command in (["verify", bundle], ["run", bundle, digit]):
        refused_process(*command, missing="onnxruntime,ai_edge_litert", says=["pip install"])
