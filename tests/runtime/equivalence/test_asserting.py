"""`assert_equivalent` and the pytest plugin, with an engine that says what the test wants."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import stnkit.runtime.equivalence as package
from stnkit.runtime.equivalence import CompareOptions, assert_equivalent, asserting, engine
from stnkit.runtime.errors import InputError

CONFTEST = f"""
import importlib.util
import sys

spec = importlib.util.spec_from_file_location("reports_of_stnkit", {str(Path(__file__).with_name("conftest.py"))!r})
module = importlib.util.module_from_spec(spec)
sys.modules["reports_of_stnkit"] = module
spec.loader.exec_module(module)


def compare_models(reference, candidates, options=None):
    maker = module.Reports()
    wrong = [maker.candidate(0.03 if "bad" in str(it) else 0.0, file=str(it)) for it in candidates]
    return maker.report(*wrong, reference=str(reference))


from stnkit.runtime.equivalence import engine

engine.compare_models = compare_models
"""  # noqa: E501

TESTS = """
from stnkit.runtime.equivalence import assert_equivalent


def test_fixture(equivalence):
    assert equivalence("a.keras", "good.onnx").passed


def test_fixture_fails(equivalence):
    equivalence("a.keras", "good.onnx", "bad.onnx")


def test_function_fails():
    assert_equivalent("a.keras", "bad.onnx")
"""


@pytest.fixture
def asked(monkeypatch):
    """Replace the engine; return what it was asked, and what it answers."""
    calls = []

    def compare_models(reference, candidates, options):
        calls.append((reference, tuple(candidates), options))
        return calls.answer

    class Calls(list):
        answer = None

    calls = Calls()
    monkeypatch.setattr(engine, "compare_models", compare_models)
    return calls


def test_what_is_equal_is_returned(asked, passed_report, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked.answer = passed_report
    found = assert_equivalent("a.keras", "b.onnx", "c.tflite", atol={"theta": 1e-6}, data="photos")
    assert found is passed_report
    ((reference, candidates, options),) = asked
    assert (reference, candidates) == ("a.keras", ("b.onnx", "c.tflite"))
    assert options == CompareOptions(
        atol={"theta": 1e-6}, data=Path("photos"), views=True, bisect=True
    )
    assert list(tmp_path.iterdir()) == []


def test_a_failure_is_readable(asked, failed_report, tmp_path):
    asked.answer = failed_report
    with pytest.raises(AssertionError) as caught:
        assert_equivalent("digits.keras", "b.onnx", report_dir=tmp_path / "new" / "pages")
    lines = str(caught.value).splitlines()
    assert lines[0] == "2 of 3 candidates do not compute what digits.keras computes."
    assert lines[2:4] == ["--- digits.keras", "+++ model.fp32.onnx"]
    worst = failed_report.candidates[1].proof.worst("warped")
    place = lines.index('@@ warped image "st/warped", 3 of 3 probes differ @@')
    index = ", ".join(str(i) for i in worst.worst_index)
    assert lines[place + 1] == f'  worst at [{index}], probe "{worst.case}"'
    assert lines[place + 2] == f"- {worst.reference_value:.9g}"
    assert lines[place + 3] == f"+ {worst.candidate_value:.9g}"
    assert "allowed 0.0001 + 1e-05 * |reference|; minimum required tolerance" in lines[place + 4]
    assert any(re.search(r"largest difference .*, 0\.42 px; allowed", line) for line in lines)
    assert any(line.startswith("  likely cause: The artifact's sampler") for line in lines)
    assert "  first wrong inside: model/layer_23/out (GATHER)" in lines
    assert "  did not run: LiteRT is not installed" in lines
    (page,) = (tmp_path / "new" / "pages").iterdir()
    assert lines[-1] == f"report: {page}"
    assert "test_a_failure_is_readable" in page.name
    assert "Not equal" in page.read_text("utf-8")


def test_what_is_equal_of_a_failed_candidate_is_named(reports):
    candidate = reports.candidate(0.0)
    other = reports.candidate(0.03)
    mixed = tuple(
        b if b.kind == "theta" else a
        for a, b in zip(candidate.proof.comparisons, other.proof.comparisons, strict=True)
    )
    import dataclasses

    proof = dataclasses.replace(candidate.proof, comparisons=mixed)
    report = reports.report(dataclasses.replace(candidate, proof=proof))
    text = asserting.describe_failure(report, "x.html")
    assert "  equal: probabilities, st/warped\n" in text
    assert text.count("@@") == 2


def test_a_page_that_cannot_be_written_hides_nothing(asked, failed_report, tmp_path):
    asked.answer = failed_report
    (tmp_path / "file").touch()
    with pytest.raises(AssertionError, match=r"differ @@[\s\S]*cannot be written \("):
        assert_equivalent("a", "b", report_dir=tmp_path / "file" / "pages")


def test_names_draw_no_lines_and_no_colours(asked, reports, tmp_path):
    hostile = "x\n+++ other\x1b[32m\r\u202e"
    candidate = reports.candidate(0.03, file=hostile, output=hostile, transformer=hostile)
    asked.answer = reports.report(candidate, reference=hostile)
    with pytest.raises(AssertionError) as caught:
        assert_equivalent("a", "b", report_dir=tmp_path)
    text = str(caught.value)
    assert [line for line in text.splitlines() if line.startswith("+++")] == [
        "+++ x +++ other\ufffd[32m \ufffd"
    ]
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_many_tensors_are_cut(reports):
    import dataclasses

    candidate = reports.candidate(0.03)
    many = tuple(
        dataclasses.replace(it, tensor=f"{it.tensor}_{i}")
        for i in range(20)
        for it in candidate.proof.comparisons
    )
    proof = dataclasses.replace(candidate.proof, comparisons=many)
    report = reports.report(dataclasses.replace(candidate, proof=proof))
    text = asserting.describe_failure(report, "x")
    assert text.count(" probes differ @@") == 8
    assert "and 52 more tensors that differ" in text


def test_wrong_options_are_refused_before_anything_runs(asked):
    with pytest.raises(TypeError, match="nonsense"):
        assert_equivalent("a", "b", nonsense=1)
    with pytest.raises(InputError, match="atol is theta=-1"):
        assert_equivalent("a", "b", atol={"theta": -1})
    assert asked == []


def test_public_names():
    assert package.__all__ == sorted(package.__all__)
    assert set(package._HOMES) == set(package.__all__) == set(dir(package))
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing


def run_pytest(folder, *arguments, **variables):
    """Run pytest as a stranger would, with this plugin and xdist alone."""
    plugins = ("-p", "stnkit.runtime.equivalence.pytest_plugin", "-p", "xdist")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-W", "error", *plugins, *arguments],
        cwd=folder,
        env={**environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def project(tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_models.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


@pytest.mark.parametrize("processes", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_the_plugin_leaves_a_page_for_each_failure(project, processes):
    result = run_pytest(project, *processes)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "2 failed, 1 passed" in result.stdout
    assert "warning" not in result.stdout
    assert "+++ bad.onnx" in result.stdout
    pages = sorted(path.name for path in (project / "stnkit-reports").iterdir())
    assert len(pages) == 2
    assert pages[0].startswith("test_models.py-test_fixture_fails-")
    assert pages[1].startswith("test_models.py-test_function_fails-")
    # What pytest shows is the test's own line, not the inside of the assertion.
    shown = [line for line in result.stdout.splitlines() if line.startswith(">")]
    assert sorted(line.split(maxsplit=1)[1] for line in shown) == [
        'assert_equivalent("a.keras", "bad.onnx")',
        'equivalence("a.keras", "good.onnx", "bad.onnx")',
    ]


def test_the_folder_is_where_the_option_says(project):
    below = project / "below"
    below.mkdir()
    result = run_pytest(below, "..", "--stnkit-reports", "pages", "-n", "2")
    assert result.returncode == 1, result.stdout
    assert len(list((below / "pages").iterdir())) == 2
    assert not (project / "stnkit-reports").exists()


def test_nothing_is_written_while_all_is_equal(project):
    result = run_pytest(project, "-k", "test_fixture and not fails")
    assert result.returncode == 0, result.stdout
    assert not (project / "stnkit-reports").exists()


def test_the_plugin_loads_nothing_heavy(tmp_path):
    (tmp_path / "test_nothing.py").write_text(
        "import json, sys\n\n\ndef test():\n"
        "    with open('modules.json', 'w') as file:\n"
        "        json.dump(list(sys.modules), file)\n"
    )
    result = run_pytest(tmp_path)
    assert result.returncode == 0, result.stdout
    loaded = set(json.loads((tmp_path / "modules.json").read_text()))
    assert {"numpy", "PIL", "onnxruntime", "ai_edge_litert", "click", "rich"} & loaded == set()
    assert {name for name in loaded if name.startswith("stnkit.")} == {
        "stnkit.runtime",
        "stnkit.runtime.equivalence",
        "stnkit.runtime.equivalence.asserting",
        "stnkit.runtime.equivalence.plain_text",
        "stnkit.runtime.equivalence.pytest_plugin",
    }


def test_the_option_is_in_the_help(tmp_path):
    result = run_pytest(tmp_path, "--help")
    assert "--stnkit-reports=DIR" in result.stdout
    assert "equivalence" in run_pytest(tmp_path, "--fixtures").stdout
