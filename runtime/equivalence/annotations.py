"""Say the verdict where GitHub shows it: as annotations of a run, and in its summary.

Source: "Workflow commands for GitHub Actions", and `packages/core/src/command.ts` of
`actions/toolkit` for the escaping of data and of properties.
"""

from __future__ import annotations

import html
import re

from stnkit.runtime.equivalence.plain_text import plain
from stnkit.runtime.equivalence.results import CandidateReport, EquivalenceReport
from stnkit.runtime.equivalence.summary import (
    KIND_NAMES,
    error_text,
    index_text,
    summarize_tensors,
    value_text,
    verdict_sentence,
)

__all__ = ["summary_markdown", "workflow_commands"]

_ROWS_MAX = 100
# GitHub shows ten errors a step, and a summary of 1 MiB at most.
_COMMANDS_MAX = 10
_SPECIAL = re.compile(r"[\\`*_{}\[\]()#+!|~@:$\n\r]")


def workflow_commands(report: EquivalenceReport) -> str:
    """Return one workflow command a failed candidate, or one notice where all are equal.

    Args:
        report: what was found.

    Returns:
        Lines to print on the standard output of a step. Whatever a name holds, no line begins with
        a command that is not here.
    """
    failed = [candidate for candidate in report.candidates if not candidate.passed]
    if not failed:
        needed = [
            f"{candidate.proof.file}: {kind} needs {error_text(required)}"
            for candidate in report.candidates
            for kind, required in candidate.required.items()
        ]
        text = "\n".join([verdict_sentence(report), *needed])
        return _command("notice", "stnkit: equal", text)
    lines = []
    for candidate in failed[:_COMMANDS_MAX]:
        verb = "differs from" if candidate.proof.not_run is None else "was not compared with"
        title = f"stnkit: {candidate.proof.file} {verb} {report.reference}"
        lines.append(_command("error", title, _explain(candidate)))
    return "".join(lines)


def _explain(candidate: CandidateReport) -> str:
    if candidate.proof.not_run is not None:
        return candidate.proof.not_run
    worst = candidate.proof.failures[0]
    lines = [worst.describe(), f"minimum required tolerance: {error_text(worst.required)}"]
    lines += [f"likely cause: {item.sentence} ({item.evidence})" for item in candidate.findings[:1]]
    first = None if candidate.bisection is None else candidate.bisection.first
    if first is not None:
        lines.append(f"the first tensor that is wrong: {first.name} ({first.op})")
    more = len(candidate.proof.failures) - 1
    if more:
        lines.append(f"and {more} more comparisons that failed")
    return "\n".join(lines)


def _command(name: str, title: str, message: str) -> str:
    return f"::{name} title={_property(title)}::{_data(message)}\n"


def _data(text: str) -> str:
    return plain(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def summary_markdown(report: EquivalenceReport) -> str:
    """Return the verdict as Markdown, for the file that `$GITHUB_STEP_SUMMARY` names.

    Args:
        report: what was found.
    """
    sign = "✅ Equal" if report.passed else "❌ Not equal"
    parts = [f"## {sign}\n", f"{_text(verdict_sentence(report))}\n"]
    for candidate in report.candidates:
        mark = "✅" if candidate.passed else "❌"
        parts.append(f"### {mark} {_code(candidate.proof.file)}\n")
        if candidate.proof.not_run is not None:
            parts.append(f"It did not run: {_text(candidate.proof.not_run)}\n")
            continue
        if candidate.findings:
            parts.append(
                "\n".join(
                    f"{i}. **{_text(item.sentence)}** {_text(item.evidence)}"
                    for i, item in enumerate(candidate.findings, 1)
                )
                + "\n"
            )
        first = None if candidate.bisection is None else candidate.bisection.first
        if first is not None:
            parts.append(
                f"The first tensor that is wrong: {_code(first.name)} ({_text(first.op)}).\n"
            )
        parts.append(_table(candidate))
    return "\n".join(parts)


def _table(candidate: CandidateReport) -> str:
    summaries = summarize_tensors(candidate.proof.comparisons)
    # Stable: failures first, else in the order of the table on the page.
    ordered = sorted(summaries, key=lambda item: item.passed)
    lines = [
        "| | tensor | kind | largest error | allowed | minimum required | worst at | source "
        "| artifact |",
        "|---|---|---|--:|--:|--:|---|--:|--:|",
    ]
    for item in ordered[:_ROWS_MAX]:
        worst = item.worst
        cells = ["✅" if item.passed else "❌", _code(item.tensor), KIND_NAMES[item.kind]]
        if worst.reason is not None:
            cells += ["", "", "", _text(worst.reason), "", ""]
        else:
            pixels = f" ({error_text(item.pixels)} px)" if item.pixels is not None else ""
            cells += [
                error_text(item.largest) + pixels,
                error_text(worst.tolerance.atol),
                error_text(item.required),
                f"{_text(worst.case)} {_text(index_text(worst.worst_index))}",
                value_text(worst.reference_value),
                value_text(worst.candidate_value),
            ]
        lines.append(f"| {' | '.join(cells)} |")
    if len(ordered) > _ROWS_MAX:
        lines.append(f"\n{len(ordered) - _ROWS_MAX} more tensors are in the report.")
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    """Return a text that means nothing in Markdown or HTML: no link, no mention, no cell's end."""
    escaped = html.escape(plain(text), quote=True)
    return _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", escaped.replace("&#x27;", "&apos;"))


def _code(text: str) -> str:
    return f"<code>{_text(text)}</code>"
