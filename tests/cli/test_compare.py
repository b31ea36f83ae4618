"""`stnkit verify A B …`: any models, what is printed, the reports, and what is refused."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET

import pytest


@pytest.fixture
def files(digits_bundle):
    return [digits_bundle / "model.fp32.tflite", digits_bundle / "model.fp32.onnx"]


def test_a_keras_model_and_both_files(files, stnkit):
    out = stnkit("verify", "digits", *files).stdout
    lines = out.splitlines()
    assert re.split(r"\s{2,}", lines[0]) == [
        "model",
        "ran on",
        "theta error",
        "warp error",
        "output error",
        "same class",
        "verdict",
    ]
    for line, file in zip(lines[1:3], files, strict=True):
        cells = re.split(r"\s{2,}", line)
        assert cells[0] == str(file)
        # Theta in its own units and in pixels.
        assert re.fullmatch(r"\d\.\de-\d\d \(\d\.\de-\d\d px\)", cells[2])
        assert cells[5:] == ["10 of 10", "equal"]
    assert re.search(r"on \d+ probes, 3 of them with thetas of their own", out)
    assert re.search(
        r"probabilities: \S+ = 4 x \S+ \(float32, [\d,]+ products\) x \(\S+ largest value \+ ", out
    )
    assert len(re.findall(r"minimum required tolerance: output \S+, theta \S+, warped ", out)) == 2
    assert out.isascii()


def test_without_keras_one_file_against_the_other(files, stnkit):
    document = json.loads(stnkit("verify", *files, "--json").stdout)
    assert document["passed"] is True
    assert document["reference"] == str(files[0])
    (candidate,) = document["candidates"]
    assert {item["kind"] for item in candidate["comparisons"]} == {"output", "theta", "warped"}
    assert set(candidate["required_tolerance"]) == {"output", "theta", "warped"}
    names = [probe["name"] for probe in document["probes"]]
    assert any("thetas_spatial_transformer" in name for name in names)
    statistics = candidate["comparisons"][0]["statistics"]
    assert {"max_ulp", "cosine", "snr_db", "abs_quantiles", "max_rel"} <= set(statistics)


def test_a_bundle_stands_for_its_artifacts(digits_bundle, stnkit):
    document = json.loads(stnkit("verify", "digits", digits_bundle, "--json").stdout)
    assert len(document["candidates"]) == 2


def test_reports(files, stnkit, scratch, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(scratch / "summary.md"))
    result = stnkit(
        "verify", *files, "--html", "out/r.html", "--junit", "r.xml", "--annotations", "--json"
    )
    json.loads(result.stdout)  # annotations do not spoil it
    assert "::notice" in result.stderr
    page = (scratch / "out" / "r.html").read_text("utf-8")
    assert page.startswith("<!doctype html>") or page.lower().startswith("<!doctype html>")
    assert "data:image/png;base64," in page
    suites = ET.fromstring((scratch / "r.xml").read_text("utf-8"))
    assert len(list(suites.iter("testcase"))) > 5
    assert not list(suites.iter("failure"))
    assert (scratch / "summary.md").read_text("utf-8")
    assert {path.name for path in scratch.iterdir()} == {"out", "r.xml", "summary.md"}


def test_reports_of_a_bundle_alone(digits_bundle, stnkit, scratch):
    out = stnkit("verify", digits_bundle, "--html", "r.html").stdout
    assert "answers stored in" in out
    assert (scratch / "r.html").stat().st_size > 10_000


def test_a_difference_is_exit_code_1_with_a_cause_and_a_layer(files, stnkit, scratch):
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(files[1]))
    kernel = next(it for it in model.graph.initializer if len(it.dims) == 4 and it.dims[0] == 64)
    values = numpy_helper.to_array(kernel).copy()
    values[3] *= 1.5
    kernel.CopyFrom(numpy_helper.from_array(values, kernel.name))
    onnx.save(model, "wrong.onnx")
    result = stnkit(
        "verify", "digits", "wrong.onnx", "--bisect", "--html", "r.html", "--junit", "r.xml", code=1
    )
    assert "DIFFERS" in result.stdout
    assert "block3" in result.stdout  # the layer of that kernel
    assert result.stderr.splitlines()[-1].startswith("error: wrong.onnx differs from its source: ")
    assert list(ET.fromstring((scratch / "r.xml").read_text("utf-8")).iter("failure"))
    assert "wrong.onnx" in (scratch / "r.html").read_text("utf-8")


def test_a_tolerance_of_the_user_s(files, stnkit):
    stnkit("verify", *files, "--atol", "outputs=1e-9", "--atol", "probabilities=1", code=0)
    result = stnkit("verify", *files, "--atol", "theta=0", "--atol", "warped=0", code=1)
    assert "0.0e+00, as given" in result.stdout


def test_another_seed(files, stnkit):
    document = json.loads(stnkit("verify", *files, "--seed", 7, "--json").stdout)
    assert {probe["seed"] for probe in document["probes"]} == {7}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["A", "nowhere.onnx"], "nowhere.onnx: "),
        (["A"], "is a single model: name the model to compare it with"),
        (["A", "B", "--map", "image"], "--map image: expected A_NAME=B_NAME"),
        (["A", "B", "--map", "image=photo"], "has no input or output 'photo'"),
        (["A", "B", "--layout", "C=nchw"], "--layout C=nchw: expected LETTER=nchw"),
        (["A", "B", "--layout", "B=nchw"], "expected the same"),
        (["A", "B", "--atol", "outputs=-1"], "--atol outputs=-1: expected NAME=VALUE"),
        (["A", "B", "--atol", "nothing=1"], "--atol nothing: there is"),
        (["A", "B", "--data", "nowhere"], "nowhere: expected a folder"),
        (["A", "B", "--artifact", "onnx"], "--artifact is for a single bundle"),
        (["A", "garbage.onnx"], "garbage.onnx: "),
        (["A", "empty.tflite"], "empty.tflite: "),
        (["A", "cut.onnx"], ""),
        (["A", "B", "--html", "file/x.html"], "cannot be written"),
    ],
)
def test_refused_in_one_line(arguments, says, files, refused, scratch):
    (scratch / "garbage.onnx").write_bytes(b"\x00garbage" * 100)
    (scratch / "empty.tflite").touch()
    (scratch / "cut.onnx").write_bytes(files[1].read_bytes()[:300_000])
    (scratch / "file").touch()
    named = {"A": files[0], "B": files[1]}
    line = refused("verify", *(named.get(word, word) for word in arguments))
    assert says in line
