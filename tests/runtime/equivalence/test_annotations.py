"""Workflow commands and the summary: one a candidate, and no name becomes a command or a link."""

from __future__ import annotations

import dataclasses
import re

from stnkit.runtime.equivalence.annotations import summary_markdown, workflow_commands

HOSTILE = "x\n::set-env name=PATH::y\r\n::error::z%0A | `a` @team [l](http://e.com) <b>*"


def test_equal_models_are_a_notice(passed_report):
    (line,) = workflow_commands(passed_report).splitlines()
    assert line.startswith(
        "::notice title=stnkit%3A equal::All 2 candidates compute what digits.keras computes.%0A"
    )
    assert "model.fp32.onnx: theta needs" in line


def test_each_candidate_that_failed_is_an_error(failed_report):
    first, second = workflow_commands(failed_report).splitlines()
    assert first.startswith("::error title=stnkit%3A model.fp32.onnx differs from digits.keras::")
    worst = failed_report.candidates[1].proof.failures[0]
    assert worst.describe() in first
    assert "%0Alikely cause: The artifact's sampler" in first
    assert "%0Aand 8 more comparisons that failed" in first
    assert second == (
        "::error title=stnkit%3A model.tflite was not compared with digits.keras::"
        "LiteRT is not installed"
    )


def test_escaping_is_that_of_the_toolkit(reports):
    report = reports.report(dataclasses.replace(reports.not_run("a,b:c%.onnx")))
    (line,) = workflow_commands(report).splitlines()
    assert "title=stnkit%3A a%2Cb%3Ac%25.onnx was" in line


def test_no_name_becomes_a_command(reports):
    candidate = reports.candidate(0.03, file=HOSTILE, output=HOSTILE, transformer=HOSTILE)
    text = workflow_commands(reports.report(candidate, reference=HOSTILE))
    assert text.count("\n") == 1
    assert re.match(r"::error title=[^:,\n\r]*::", text)
    assert "\r" not in text


def test_not_more_than_github_shows(reports):
    report = reports.report(*[reports.not_run(f"{i}.onnx") for i in range(30)])
    assert len(workflow_commands(report).splitlines()) == 10


def test_the_summary_has_the_verdict_the_causes_and_the_numbers(failed_report, passed_report):
    text = summary_markdown(failed_report)
    assert text.startswith("## ❌ Not equal\n")
    assert "### ✅ <code>model.fp32.tflite</code>" in text
    assert "### ❌ <code>model.fp32.onnx</code>" in text
    assert "1. **The artifact&apos;s sampler" in text
    assert "It did not run: LiteRT is not installed" in text
    assert summary_markdown(passed_report).startswith("## ✅ Equal\n")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(row.count("|") == rows[0].count("|") for row in rows)
    assert len(rows) == 2 * (2 + 3)


def test_no_name_means_anything_in_the_summary(reports):
    candidate = reports.candidate(0.03, file=HOSTILE, output=HOSTILE, transformer=HOSTILE)
    candidate = dataclasses.replace(candidate, bisection=reports.curve(23, HOSTILE))
    text = summary_markdown(reports.report(candidate, reference=HOSTILE))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(row.count("|") == rows[0].count("|") for row in rows)
    shown = re.sub(r"</?code>", "", text)
    for part in ("<", "[l]", "@team", "http:", "`a`"):
        assert part not in shown
