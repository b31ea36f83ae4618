"""Write a comparison as JUnit XML, for the test pages of GitHub, GitLab and Jenkins.

One test suite a candidate, one test case a comparison. What did not run is an error, a probe that
an artifact cannot take is skipped.

Source: `junit-10.xsd` of the Jenkins xUnit plugin.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from stnkit.runtime.compare import Comparison
from stnkit.runtime.equivalence.results import CandidateReport, EquivalenceReport
from stnkit.runtime.equivalence.summary import KIND_NAMES, error_text

__all__ = ["write_junit"]

# What XML 1.0 has no way to write: control characters, halves of surrogate pairs, U+FFFE, U+FFFF.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(report: EquivalenceReport) -> str:
    """Return a comparison as a JUnit XML document.

    Args:
        report: what was found.
    """
    root = ET.Element("testsuites", name=_clean(f"stnkit: {report.reference}"))
    for candidate in report.candidates:
        root.append(_suite(report, candidate))
    for name in ("tests", "failures", "errors"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    root.set("time", f"{report.seconds:.3f}")
    ET.indent(root)
    body = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _suite(report: EquivalenceReport, candidate: CandidateReport) -> ET.Element:
    proof = candidate.proof
    suite = ET.Element("testsuite", name=_clean(f"{proof.file} against {report.reference}"))
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(report, candidate).items():
        ET.SubElement(properties, "property", name=_clean(name), value=_clean(value))
    for item in proof.comparisons:
        suite.append(_case(proof.file, item))
    for probe in proof.skipped_cases:
        case = ET.SubElement(
            suite, "testcase", classname=_clean(proof.file), name=_clean(probe), time="0"
        )
        ET.SubElement(case, "skipped", message="the artifact is for another batch size")
    if proof.not_run is not None:
        case = ET.SubElement(suite, "testcase", classname=_clean(proof.file), name="runs", time="0")
        error = ET.SubElement(case, "error", type="NotRun", message=_clean(proof.not_run))
        error.text = _clean(proof.not_run)
    ET.SubElement(suite, "system-out").text = _clean("\n".join(_lines(candidate)))
    failures = sum(not item.passed for item in proof.comparisons)
    counts = {
        "tests": len(suite.findall("testcase")),
        "failures": failures,
        "errors": len(suite.findall("testcase/error")),
        "skipped": len(proof.skipped_cases),
    }
    for name, count in counts.items():
        suite.set(name, str(count))
    suite.set("time", f"{proof.seconds:.3f}")
    return suite


def _case(file: str, item: Comparison) -> ET.Element:
    name = f"{KIND_NAMES[item.kind]} {item.tensor}, probe {item.case}"
    # The time of one comparison is not measured; some readers refuse a case without the attribute.
    case = ET.Element("testcase", classname=_clean(file), name=_clean(name), time="0")
    if not item.passed:
        kind = "NotMeasured" if item.reason is not None else "Mismatch"
        failure = ET.SubElement(case, "failure", type=kind, message=_clean(item.describe()))
        required = error_text(item.required)
        failure.text = _clean(f"{item.describe()}\nminimum required tolerance: {required}")
    return case


def _properties(report: EquivalenceReport, candidate: CandidateReport) -> dict[str, str]:
    found = {
        "reference": report.reference,
        "candidate": candidate.proof.file,
        "format": candidate.format,
        "backend": f"{candidate.proof.backend} {candidate.proof.backend_version or ''}".strip(),
    }
    for kind, required in candidate.required.items():
        found[f"required_tolerance.{kind}"] = "not measured" if required is None else str(required)
    for probe in report.probes:
        if probe.seed is not None:
            found[f"seed.{probe.name}"] = str(probe.seed)
    return {**found, **{f"version.{name}": text for name, text in report.versions.items()}}


def _lines(candidate: CandidateReport) -> list[str]:
    """Return what explains the suite: likely causes, the first wrong tensor, notes."""
    lines = [f"{it.cause}: {it.sentence} ({it.evidence})" for it in candidate.findings]
    first = None if candidate.bisection is None else candidate.bisection.first
    if first is not None:
        where = f", layer {first.layer}" if first.layer else ""
        lines.append(f"the first tensor that is wrong: {first.name} ({first.op}{where})")
    return [*lines, *candidate.notes]


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
