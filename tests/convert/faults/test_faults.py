"""No broken conversion passes, and most are called by their right name."""

from __future__ import annotations

import os

import pytest
from fault_bench import Bench, compared, faithful, faulty, named_right
from fault_models import MODELS
from fault_table import FAULTS

SEEDS = (1, 2, 3, 4, 5)
NAMED_MIN = 0.8
# Far more than rounding, which is about 1e-6 here, and less than any fault that matters.
CHANGED_MIN = 1e-5

EVERY_FAULT = [
    pytest.param(name, marks=pytest.mark.slow) if fault.slow else name
    for name, fault in FAULTS.items()
]


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "faults"
    folder.mkdir(exist_ok=True)
    return Bench(folder)


def test_there_are_enough_of_them():
    assert len([fault for fault in FAULTS.values() if not fault.slow]) >= 40
    assert {fault.format for fault in FAULTS.values()} == {"onnx", "tflite"}
    assert {fault.model for fault in FAULTS.values()} == {*MODELS, "digits"}


@pytest.mark.parametrize("name", EVERY_FAULT)
def test_a_fault_is_found(name, bench):
    result = bench.result(name)
    assert result["changed"] > CHANGED_MIN, "the file does the same: this is no fault"
    assert not result["passed"]
    assert result["findings"], "it was found but nothing was said about it"


@pytest.mark.parametrize("model", [*MODELS, "digits"])
def test_faithful_files_pass_with_every_seed(model):
    for seed in SEEDS:
        for format, *sampler in (("onnx", "gather"), ("onnx", "auto"), ("tflite",)):
            report = compared(model, faithful(model, format, *sampler), format, seed=seed)
            failures = [item.describe() for item in report.failures]
            assert report.passed, (seed, format, failures)
            assert report.candidates[0].findings == ()


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("theta_transposed", "theta_transposed"),
        ("align_corners_flipped", "align_corners"),
        ("half_pixel", "half_pixel"),
        ("prepared_twice", "preprocessing"),
    ],
)
def test_causes_are_seen_in_files_without_taps(name, cause):
    fault = FAULTS[name]
    report = compared(fault.model, faulty(fault), fault.format, taps=False).candidates[0]
    assert not report.passed
    assert report.findings[0].cause == cause


def check_named(names, bench):
    misses = []
    # From the end: another worker may be at the front.
    for name in reversed(names):
        fault, result = FAULTS[name], bench.result(name)
        if not named_right(fault, result):
            said = [finding["cause"] for finding in result["findings"]]
            wanted = [*sorted(fault.causes), *fault.layers]
            misses.append(f"{name:35} said {said}, layer {result['layer']!r}; right is {wanted}")
    print(f"\n{len(names) - len(misses)} of {len(names)} faults are named right")
    print("\n".join(misses))
    assert len(misses) <= (1 - NAMED_MIN) * len(names), "\n".join(misses)


def test_most_faults_are_named_right(bench):
    check_named([name for name, fault in FAULTS.items() if not fault.slow], bench)


@pytest.mark.slow
def test_most_of_all_faults_are_named_right(bench):
    check_named([*FAULTS], bench)
