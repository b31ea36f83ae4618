"""`stnkit convert --autotune`: what is printed, and what `stnkit inspect` shows of it."""

from __future__ import annotations

import json
import re

import pytest

from stnkit.runtime.timing.turns import Turns

FORM_MS = {"deform-conv": 1.5, "grid-sample": 2.0, "gather": 1.25}
LINE = (
    "autotune kept gather: batch 1 deform-conv 1.50 ms, grid-sample 2.00 ms, gather 1.25 ms; "
    "batch 8 deform-conv 1.50 ms, grid-sample 2.00 ms, gather 1.25 ms; on "
)


@pytest.fixture(scope="module")
def tuned(stnkit, tmp_path_factory):
    """Return the command's results, as a text and as JSON, where gathers are faster; a bundle."""
    from stnkit.convert import tuning

    target = tmp_path_factory.mktemp("tuned") / "digits.bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            tuning, "take_turns", lambda names: {n: Turns((FORM_MS[n],), 1, 1.0) for n in names}
        )
        arguments = ["convert", "digits", "-o", target, "--to", "onnx", "--autotune", "--force"]
        return stnkit(*arguments), stnkit(*arguments, "--json"), target


def test_one_line_says_what_was_chosen(tuned):
    text, _, _ = tuned
    (line,) = [line for line in text.stdout.splitlines() if "autotune" in line]
    assert line.startswith(f"model.fp32.onnx: {LINE}")
    assert re.search(r" cores\), onnxruntime \S+, threads: its own choice\.$", line)
    assert "timing deform-conv, grid-sample and gather at batch 8" in text.stderr.splitlines()


def test_json(tuned):
    (artifact,) = json.loads(tuned[1].stdout)["artifacts"]
    assert artifact["sampler"] == "gather"
    forms = {form["sampler"]: form for form in artifact["autotune"]["forms"]}
    assert list(forms) == ["deform-conv", "grid-sample", "gather"]
    for name, form in forms.items():
        assert form["dropped"] is None
        assert [(it["batch"], it["median_ms"]) for it in form["times"]] == [
            (1, FORM_MS[name]),
            (8, FORM_MS[name]),
        ]


def test_inspect(tuned, stnkit):
    target = tuned[2]
    (line,) = [it for it in stnkit("inspect", target).stdout.splitlines() if "autotune" in it]
    assert line.startswith(LINE)
    (file,) = json.loads(stnkit("inspect", target, "--json").stdout)["files"]
    assert file["autotune"] == json.loads(tuned[1].stdout)["artifacts"][0]["autotune"]
    assert not {"DeformConv", "GridSample"} & set(file["ops"])
    stnkit("verify", target)


def test_the_line_names_a_form_that_did_not_pass():
    from stnkit.cli.views.tuning import tuning_line

    times = [{"batch": 4, "median_ms": 12.5, "q1_ms": 12.0, "q3_ms": 13.0}]
    record = {
        "forms": [
            {"sampler": "grid-sample", "times": [], "dropped": "differs"},
            {"sampler": "gather", "times": times, "dropped": None},
        ],
        "backend": "onnxruntime",
        "backend_version": "1.22.0",
        "threads": 2,
        "cpu": "A Processor",
        "cores": 8,
        "usable_cores": 4,
    }
    assert tuning_line(record, "gather") == (
        "autotune kept gather: batch 4 gather 12.5 ms; grid-sample did not pass; on A Processor "
        "(4 of 8 cores), onnxruntime 1.22.0, threads: 2"
    )


def test_tflite_alone_is_a_note(stnkit):
    result = stnkit("convert", "digits", "-o", "x.bundle", "--to", "tflite", "--autotune")
    notes = [line for line in result.stdout.splitlines() if "--autotune" in line]
    assert notes == [
        "Note: --autotune had nothing to choose from: TFLite has one form, with gathers."
    ]
    assert "autotune" not in stnkit("inspect", "x.bundle").stdout
    (file,) = json.loads(stnkit("inspect", "x.bundle", "--json").stdout)["files"]
    assert file["autotune"] is None


@pytest.mark.parametrize("sampler", ["gather", "grid-sample", "deform-conv"])
def test_a_fixed_form_is_refused(sampler, refused):
    arguments = ["convert", "digits", "-o", "x.bundle", "--autotune", "--sampler", sampler]
    line = refused(*arguments, says=["--autotune", f"--sampler {sampler}"])
    assert "one of the two" in line
