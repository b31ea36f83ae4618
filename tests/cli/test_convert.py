"""`stnkit convert` where it succeeds: what is printed, published, and said on which stream."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from stnkit.runtime import open_bundle

FILES = {"manifest.json", "model.fp32.tflite", "model.fp32.onnx", "golden.npz", "equivalence.json"}


@pytest.fixture(scope="module")
def converted(stnkit, samples, tmp_path_factory):
    """Return the result of the whole command as JSON, and the bundle."""
    target = tmp_path_factory.mktemp("whole") / "digits.bundle"
    return stnkit("convert", "digits", "-o", target, "--samples", samples, "--json"), target


def test_json_alone_on_stdout_and_progress_on_stderr(converted):
    result, target = converted
    document = json.loads(result.stdout)
    assert document["bundle"] == str(target)
    assert document["passed"] is True
    assert document["transformers"] == ["spatial_transformer"]
    stages = result.stderr.splitlines()
    assert stages[0] == "starting TensorFlow"
    assert stages[-1] == "publishing the bundle"
    assert len(stages) == len(set(stages)) >= 8


def test_every_artifact_is_as_close_as_promised(converted):
    document = json.loads(converted[0].stdout)
    assert [it["file"] for it in document["artifacts"]] == ["model.fp32.tflite", "model.fp32.onnx"]
    for artifact in document["artifacts"]:
        errors = artifact["errors"]
        assert 0 < errors["outputs"] <= 1e-5
        assert 0 < errors["theta"] <= 1e-5
        assert 0 < errors["warped"] <= 1e-4


def test_every_artifact_gives_the_classes_that_keras_gives(converted):
    rows = {row["artifact"]: row for row in json.loads(converted[0].stdout)["labelled_images"]}
    assert set(rows) == {"source", "model.fp32.tflite", "model.fp32.onnx"}
    for row in rows.values():
        assert (row["count"], row["same_class"]) == (200, 200)
        assert row["accuracy"] == row["correct"] / 200 >= 0.97


def test_what_is_published(converted):
    _, target = converted
    assert {path.name for path in target.iterdir()} == FILES
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    bundle = open_bundle(target)
    assert bundle.manifest.name == "digits"
    assert bundle.manifest.classes.labels == tuple("0123456789")
    batches = {len(next(iter(case.inputs.values()))) for case in bundle.golden()}
    assert 1 in batches
    assert max(batches) > 1


def test_the_table_in_a_pipe_is_plain(stnkit):
    out = stnkit("convert", "digits", "-o", "x.bundle", "--to", "tflite").stdout
    lines = out.splitlines()
    assert re.split(r"\s{2,}", lines[0]) == [
        "artifact",
        "size",
        "theta error",
        "warp error",
        "output error",
    ]
    row = re.split(r"\s{2,}", lines[1])
    assert row[0] == "model.fp32.tflite"
    assert re.fullmatch(r"\d+\.\d KB", row[1])
    assert all(re.fullmatch(r"\d\.\de-\d\d / \de-0[45]", cell) for cell in row[2:])
    assert lines[-1] == "Published: x.bundle"
    assert out.isascii()
    assert "\x1b" not in out


def test_options_reach_the_bundle(stnkit, scratch):
    (scratch / "names.txt").write_text("".join(f"digit {i}\n" for i in range(10)))
    options = ["--to", "onnx", "--opset", "18", "--batch", "3", "--name", "mine"]
    options += ["--labels", "names.txt", "--input-range", "-1", "1", "--mean", "0.5", "--std", "2"]
    stnkit("convert", "digits", "-o", "x.bundle", *options)
    manifest = open_bundle("x.bundle").manifest
    (artifact,) = manifest.artifacts
    assert (artifact.format, artifact.opset, artifact.batch) == ("onnx", 18, 3)
    assert manifest.name == "mine"
    assert manifest.classes.labels[7] == "digit 7"
    recipe = manifest.preprocessing
    white = (255 * recipe.scale - recipe.mean[0]) / recipe.std[0]
    black = -recipe.mean[0] / recipe.std[0]
    np.testing.assert_allclose([black, white], [(-1 - 0.5) / 2, (1 - 0.5) / 2], atol=1e-9)


def test_force_replaces_a_bundle(stnkit, bundle):
    old = bundle.stat().st_ino
    stnkit("convert", "digits", "-o", bundle, "--to", "tflite", "--force", "--name", "new")
    assert bundle.stat().st_ino != old
    assert open_bundle(bundle).manifest.name == "new"
    assert [path.name for path in bundle.absolute().parent.iterdir()] == [bundle.name]
