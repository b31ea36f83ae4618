"""JUnit XML: the elements, attributes and counts that readers of junit-10.xsd expect."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from stnkit.runtime.equivalence.junit import write_junit

# junit-10.xsd of the Jenkins xUnit plugin: element -> (attributes, children).
JUNIT_10 = {
    "testsuites": (
        {"name", "time", "tests", "failures", "disabled", "errors"},
        {"testsuite"},
    ),
    "testsuite": (
        {"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname", "id"},
        {"properties", "testcase", "system-out", "system-err"},
    ),
    "properties": (set(), {"property"}),
    "property": ({"name", "value"}, set()),
    "testcase": (
        {"name", "time", "classname", "group"},
        {"skipped", "error", "failure", "system-out", "system-err"},
    ),
    "failure": ({"type", "message"}, set()),
    "error": ({"type", "message"}, set()),
    "skipped": ({"type", "message"}, set()),
    "system-out": (set(), set()),
}


def check(element: ET.Element) -> None:
    attributes, children = JUNIT_10[element.tag]
    assert set(element.attrib) <= attributes, element.tag
    if element.tag in ("testsuite", "testcase", "property"):
        assert element.get("name")
    for child in element:
        assert child.tag in children, (element.tag, child.tag)
        check(child)


@pytest.fixture(params=["passed_report", "failed_report"])
def report(request):
    return request.getfixturevalue(request.param)


def test_the_structure_is_that_of_junit_10(report):
    text = write_junit(report)
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n')
    root = ET.fromstring(text)
    assert root.tag == "testsuites"
    check(root)


def test_counts_are_those_of_the_cases(report):
    root = ET.fromstring(write_junit(report))
    for suite, candidate in zip(root, report.candidates, strict=True):
        cases = suite.findall("testcase")
        assert int(suite.get("tests")) == len(cases)
        assert int(suite.get("failures")) == len(suite.findall("testcase/failure"))
        assert int(suite.get("failures")) == len(candidate.proof.failures)
        assert int(suite.get("errors")) == len(suite.findall("testcase/error"))
        # GitLab takes two cases of one class and name for one.
        assert len({(it.get("classname"), it.get("name")) for it in cases}) == len(cases)
    for name in ("tests", "failures", "errors"):
        assert int(root.get(name)) == sum(int(suite.get(name)) for suite in root)
    assert report.passed == (root.get("failures") == root.get("errors") == "0")


def test_a_failure_is_described(failed_report):
    root = ET.fromstring(write_junit(failed_report))
    proof = failed_report.candidates[1].proof
    messages = [it.get("message") for it in root[1].iter("failure")]
    assert sorted(messages) == sorted(it.describe() for it in proof.failures)
    texts = [it.text for it in root[1].iter("failure")]
    assert all("minimum required tolerance" in text for text in texts)
    said = root[1].findtext("system-out")
    assert "align_corners: The artifact's sampler" in said
    assert "the first tensor that is wrong: model/layer_23/out (GATHER" in said
    (error,) = root[2].iter("error")
    assert error.get("message") == "LiteRT is not installed"


def test_properties_say_how_it_was_made(passed_report):
    root = ET.fromstring(write_junit(passed_report))
    found = {it.get("name"): it.get("value") for it in root[0].iter("property")}
    assert found["reference"] == "digits.keras"
    assert found["candidate"] == "model.fp32.onnx"
    assert found["seed.noise_b1"] == "11"
    assert "seed.edges_b2" not in found  # real data has none
    assert found["version.numpy"] == "2.4.6"
    assert float(found["required_tolerance.theta"]) < 1e-5


def test_skipped_probes_are_cases(reports):
    import dataclasses

    candidate = reports.candidate()
    proof = dataclasses.replace(candidate.proof, skipped_cases=("noise_b7",))
    report = reports.report(dataclasses.replace(candidate, proof=proof))
    (suite,) = ET.fromstring(write_junit(report))
    assert suite.get("skipped") == "1"
    assert [it.get("name") for it in suite.iter("testcase") if it.find("skipped") is not None] == [
        "noise_b7"
    ]


def test_what_xml_cannot_hold_is_replaced(reports):
    hostile = 'a\x00b\x1b[31m\ud800\ufffe\uffff]]><failure message="x"/>&amp;\U0001f600'
    candidate = reports.candidate(0.03, file=hostile, output=hostile, notes=(hostile,))
    text = write_junit(reports.report(candidate, reference=hostile, versions={hostile: hostile}))
    text.encode()
    root = ET.fromstring(text)
    check(root)
    (suite,) = root
    name = suite.find("testcase").get("classname")
    assert name == ('a\ufffdb\ufffd[31m\ufffd\ufffd\ufffd]]><failure message="x"/>&amp;\U0001f600')
