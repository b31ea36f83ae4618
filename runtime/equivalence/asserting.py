"""Assert in a test that models are equal, and leave a page that shows where they are not."""

from __future__ import annotations

import os
import re
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stnkit.runtime.equivalence.plain_text import plain

if TYPE_CHECKING:
    from stnkit.runtime.equivalence.results import CandidateReport, EquivalenceReport
    from stnkit.runtime.equivalence.summary import TensorSummary

__all__ = ["REPORT_FOLDER", "assert_equivalent", "describe_failure", "report_folders"]

REPORT_FOLDER = "stnkit-reports"
"""Where pages are written where nobody says otherwise, in the current folder."""

report_folders: list[Path] = []
"""Set by the pytest plugin: the last one is where the running session wants its pages."""

_TENSORS_MAX = 8


def assert_equivalent(
    reference: Any,
    candidate: Any,
    *more: Any,
    report_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> EquivalenceReport:
    """Assert that one or more models compute what a reference computes.

    Args:
        reference: path of a model or bundle, or a model in memory.
        candidate: what is compared with it.
        *more: further candidates.
        report_dir: where the HTML page of a failure is written. Default: the folder of
            `--stnkit-reports` in a pytest run, else `stnkit-reports` in the current folder.
        **options: fields of `CompareOptions`, for example `atol={"outputs": 1e-4}`; `views` and
            `bisect` are on where nothing else is said.

    Returns:
        The report, to look at what was measured.

    Raises:
        AssertionError: a candidate differs, or did not run.
        StnkitError: a file that cannot be read, or an option that fits none of the models.
    """
    __tracebackhide__ = True  # pytest shows the line of the test, not this one
    # The engine brings NumPy and the backends, which a test run that compares nothing never needs.
    from stnkit.runtime.equivalence.engine import compare_models
    from stnkit.runtime.equivalence.options import CompareOptions

    if options.get("data") is not None:
        options["data"] = Path(options["data"])
    # A failure has to be explained, and then it is too late to ask for pictures.
    chosen = CompareOptions(**{"views": True, "bisect": True, **options})
    report = compare_models(reference, (candidate, *more), chosen)
    if report.passed:
        return report
    folder = Path(report_dir) if report_dir is not None else _folder()
    raise AssertionError(describe_failure(report, _write_page(report, folder)))


def describe_failure(report: EquivalenceReport, page: str) -> str:
    """Return what is wrong in lines for a terminal: each candidate, its worst places, the causes.

    Args:
        report: with at least one failed candidate.
        page: where the HTML page lies, or why it could not be written.
    """
    from stnkit.runtime.equivalence.summary import verdict_sentence

    lines = [_flat(verdict_sentence(report))]
    for candidate in report.candidates:
        if not candidate.passed:
            lines += ["", *_candidate_lines(report.reference, candidate)]
    lines += ["", f"report: {page}"]
    return "\n".join(plain(line) for line in lines)


def _candidate_lines(reference: str, candidate: CandidateReport) -> list[str]:
    from stnkit.runtime.equivalence.summary import summarize_tensors

    proof = candidate.proof
    lines = [f"--- {_flat(reference)}", f"+++ {_flat(proof.file)}"]
    if proof.not_run is not None:
        return [*lines, f"  did not run: {_flat(proof.not_run)}"]
    summaries = summarize_tensors(proof.comparisons)
    failed = [item for item in summaries if not item.passed]
    for item in failed[:_TENSORS_MAX]:
        lines += _tensor_lines(item)
    if len(failed) > _TENSORS_MAX:
        lines.append(f"  and {len(failed) - _TENSORS_MAX} more tensors that differ")
    equal = [_flat(item.tensor) for item in summaries if item.passed]
    if equal:
        tail = f" and {len(equal) - _TENSORS_MAX} more" if len(equal) > _TENSORS_MAX else ""
        lines.append(f"  equal: {', '.join(equal[:_TENSORS_MAX])}{tail}")
    for finding in candidate.findings:
        lines.append(f"  likely cause: {_flat(finding.sentence)} ({_flat(finding.evidence)})")
    first = None if candidate.bisection is None else candidate.bisection.first
    if first is not None:
        lines.append(f"  first wrong inside: {_flat(first.name)} ({_flat(first.op)})")
    return lines


def _tensor_lines(item: TensorSummary) -> list[str]:
    from stnkit.runtime.equivalence.summary import (
        KIND_NAMES,
        error_text,
        index_text,
        value_text,
    )

    worst = item.worst
    failed = sum(not it.passed for it in item.comparisons)
    head = f'@@ {KIND_NAMES[item.kind]} "{_flat(item.tensor)}"'
    lines = [f"{head}, {failed} of {len(item.comparisons)} probes differ @@"]
    if worst.reason is not None:
        return [*lines, f'  probe "{_flat(worst.case)}": {_flat(worst.reason)}']
    pixels = f", {error_text(item.pixels)} px" if item.pixels is not None else ""
    return [
        *lines,
        f'  worst at {index_text(worst.worst_index)}, probe "{_flat(worst.case)}"',
        f"- {value_text(worst.reference_value)}",
        f"+ {value_text(worst.candidate_value)}",
        f"  largest difference {error_text(item.largest)}{pixels}; allowed {worst.tolerance}; "
        f"minimum required tolerance {error_text(item.required)}",
    ]


def _flat(text: str) -> str:
    # A name with a line feed could draw lines of its own.
    return " ".join(text.split())


def _folder() -> Path:
    return report_folders[-1] if report_folders else Path.cwd() / REPORT_FOLDER


def _write_page(report: EquivalenceReport, folder: Path) -> str:
    """Write the page and return its path; where that fails, why: the assertion matters more."""
    from stnkit.runtime.equivalence.html import write_html

    text = write_html(report)
    path = folder / f"{_stem(report)}-{sha256(text.encode()).hexdigest()[:8]}.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as exc:
        return f"{path} cannot be written ({exc.strerror or exc})"
    return str(path)


def _stem(report: EquivalenceReport) -> str:
    """Return the running test's name as a file name; without pytest the reference's."""
    # "tests/test_a.py::test_b[x] (call)"
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    name = test or Path(report.reference).name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[-100:] or "report"
