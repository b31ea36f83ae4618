"""One row a tensor: the worst of all probes, worked out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from stnkit.runtime.compare import Tolerance, compare
from stnkit.runtime.equivalence.plain_text import plain
from stnkit.runtime.equivalence.summary import (
    error_text,
    index_text,
    summarize_tensors,
    value_text,
    verdict_sentence,
)


def item(tensor, kind, case, reference, candidate, atol=0.5):
    values = np.array(reference, np.float32), np.array(candidate, np.float32)
    return compare(tensor, kind, case, *values, Tolerance(atol))


def test_each_number_is_that_of_the_worst_probe():
    first = dataclasses.replace(item("t", "theta", "a", [1, 2], [1, 2.25]), pixels=3.0)
    second = dataclasses.replace(item("t", "theta", "b", [1, 2], [2, 2]), pixels=2.0)
    (found,) = summarize_tensors([first, second])
    assert not found.passed
    assert found.worst is second
    assert (found.largest, found.required, found.pixels) == (1.0, 1.0, 3.0)
    assert found.equal == 2
    assert found.histogram == ((-1, 1), (0, 1))
    assert found.decades_over == {0}
    assert len(found.statistics) == 2


def test_outputs_come_first_and_names_are_kept_apart_by_kind():
    rows = summarize_tensors(
        [
            item("x", "warped", "a", [0], [0]),
            item("x", "output", "a", [0], [0]),
            item("x", "theta", "a", [0], [0]),
            item("x", "output", "b", [0], [0]),
        ]
    )
    assert [(row.kind, len(row.comparisons)) for row in rows] == [
        ("output", 2),
        ("theta", 1),
        ("warped", 1),
    ]
    assert summarize_tensors([]) == ()


def test_what_was_not_measured_makes_the_whole_unknown():
    (found,) = summarize_tensors(
        [item("y", "output", "a", [0], [0.1]), item("y", "output", "b", [0], [np.nan])]
    )
    assert (found.largest, found.required) == (None, None)
    assert found.worst.case == "b"
    assert not found.passed


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0"),
        (1e-5, "1e-05"),
        (2.44e-7, "2.4e-07"),
        (0.001, "0.001"),
        (0.46875, "0.469"),
        (12345.0, "1.23e+04"),
        (3.4e38, "3.4e+38"),
    ],
)
def test_errors_in_few_digits(value, text):
    assert error_text(value) == text


def test_values_and_places():
    assert value_text(np.float32(0.1).item()) == "0.100000001"
    assert value_text(None) == "not finite"
    assert (index_text(None), index_text(()), index_text((0, 12))) == ("-", "[]", "[0, 12]")


def test_verdicts_in_a_sentence(reports, failed_report, passed_report):
    assert verdict_sentence(passed_report).startswith("All 2 candidates compute what")
    assert verdict_sentence(failed_report).startswith("2 of 3 candidates do not compute")
    one = reports.report()
    assert verdict_sentence(one) == "model.fp32.onnx computes what digits.keras computes."
    bad = reports.report(reports.candidate(0.1))
    assert verdict_sentence(bad) == "model.fp32.onnx differs from digits.keras."
    silent = reports.report(reports.not_run())
    assert verdict_sentence(silent) == "model.tflite did not run, so nothing is known of it."


def test_plain_text():
    assert plain("a\tb\nc\r\x1b\u202e\ud800\u200b é ✓") == "a\tb\nc" + "\ufffd" * 5 + " é ✓"
    assert len(plain("x" * 5000)) == 2000
