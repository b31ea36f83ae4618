"""The tables of the page: verdicts, errors, and every other measure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stnkit.runtime.compare import KINDS, Comparison
from stnkit.runtime.equivalence.html.markup import Markup, element, fragment
from stnkit.runtime.equivalence.results import EquivalenceReport
from stnkit.runtime.equivalence.summary import (
    KIND_NAMES,
    TensorSummary,
    error_text,
    index_text,
    value_text,
)
from stnkit.runtime.statistics import QUANTILES

__all__ = [
    "badge",
    "comparison_table",
    "error_table",
    "overview_table",
    "statistics_table",
    "table",
]

_ROWS_MAX = 400


def badge(passed: bool, good: str = "equal", bad: str = "differs") -> Markup:
    """Return the verdict as a word with a sign, never a colour alone."""
    text, kind = (f"✓ {good}", "good") if passed else (f"✗ {bad}", "bad")
    return element("span", text, class_=f"badge {kind}")


def table(
    caption: str,
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    bad: Sequence[bool] | None = None,
) -> Markup:
    """Return a table that scrolls sideways inside its own box.

    Args:
        caption: what it shows.
        headings: the columns; one that starts with ">" is aligned to the right.
        rows: cells; the first of each row is its heading. A cell that is `<td>` already stays.
        bad: for each row whether it stands for a failure.
    """
    right = [heading.startswith(">") for heading in headings]

    def cell(index: int, text: str) -> Markup:
        if isinstance(text, Markup) and text.startswith("<td"):
            return text
        kind = "num" if right[index] else "text"
        return element("th", text, scope="row", class_=kind) if index == 0 else element(
            "td", text, class_=kind
        )  # fmt: skip

    head = [
        element("th", heading.lstrip(">"), scope="col", class_="num" if to_right else "text")
        for heading, to_right in zip(headings, right, strict=True)
    ]
    body = [
        element(
            "tr",
            *(cell(i, text) for i, text in enumerate(row)),
            class_="bad" if bad is not None and bad[k] else None,
        )
        for k, row in enumerate(rows)
    ]
    inner = element(
        "table",
        element("caption", element("span", caption)),
        element("thead", element("tr", *head)),
        element("tbody", *body),
    )
    return element(
        "div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption[:120]
    )


def overview_table(report: EquivalenceReport) -> Markup:
    """Return a row a candidate: its verdict, and the worst of each kind."""
    rows = []
    for number, candidate in enumerate(report.candidates, 1):
        proof = candidate.proof
        cells: list[str] = [
            element("a", proof.file, href=f"#candidate-{number}"),
            badge(candidate.passed, bad="differs" if proof.not_run is None else "not run"),
        ]
        for kind in KINDS:
            worst = proof.worst(kind)
            if worst is None:
                cells.append("-")
            elif worst.max_abs is None:
                cells.append(fragment(["not measured", _below("see below")]))
            else:
                allowed = _below(f"of {error_text(worst.tolerance.atol)} allowed")
                cells.append(fragment([error_text(worst.max_abs), allowed]))
        pixels = [it.pixels for it in proof.comparisons if it.pixels is not None]
        cells.append(f"{error_text(max(pixels))} px" if pixels else "-")
        rows.append(cells)
    headings = ("candidate", "verdict", ">outputs", ">theta", ">warped image", ">theta reads apart")
    bad = [not candidate.passed for candidate in report.candidates]
    return table("Largest error of each candidate, over all probes", headings, rows, bad)


def error_table(summaries: Sequence[TensorSummary]) -> Markup:
    """Return a row a tensor: the error, what is allowed, and the worst place."""
    headings = (
        "tensor",
        "verdict",
        ">largest error",
        ">allowed",
        ">minimum required tolerance",
        "worst at",
        ">source",
        ">artifact",
    )
    rows = []
    for item in summaries:
        worst = item.worst
        failed = sum(not it.passed for it in item.comparisons)
        cells: list[str] = [
            fragment([element("code", item.tensor), _below(KIND_NAMES[item.kind])]),
            fragment(
                [
                    badge(item.passed),
                    *([_below(f"{failed} of {len(item.comparisons)} probes")] if failed else []),
                ]
            ),
        ]
        if worst.reason is not None:
            reason = f'probe "{worst.case}": {worst.reason}'
            cells.append(element("td", reason, colspan="6", class_="wide"))
        else:
            cells += [
                _in_pixels(item),
                _allowed(worst),
                element("td", error_text(item.required), class_="num key"),
                fragment(
                    [
                        element("code", index_text(worst.worst_index), class_="place"),
                        _below(worst.case),
                    ]
                ),
                value_text(worst.reference_value),
                value_text(worst.candidate_value),
            ]
        rows.append(cells)
    caption = f"Errors at {_count(len(summaries), 'tensor')}; each number is of the worst probe"
    return table(caption, headings, rows, [not item.passed for item in summaries])


def statistics_table(summaries: Sequence[TensorSummary]) -> Markup:
    """Return a row a tensor: relative error, ULPs, cosine, SNR and quantiles."""
    quantiles = [f">{100 * q:g} %" for q in QUANTILES]
    headings = (
        "tensor",
        ">elements that differ",
        ">largest relative error",
        ">ULPs",
        ">cosine",
        ">SNR, dB",
        *quantiles,
    )
    rows = []
    for item in summaries:
        found = item.statistics
        if not found:
            continue
        relative = [it.max_rel for it in found if it.max_rel is not None]
        ulps = [it.max_ulp for it in found if it.max_ulp is not None]
        cosines = [it.cosine for it in found if it.cosine is not None]
        ratios = [it.snr_db for it in found if it.snr_db is not None]
        count = sum(it.count for it in found)
        rows.append(
            [
                element("code", item.tensor),
                f"{count - item.equal:,} of {count:,}",
                error_text(max(relative, default=None)),
                f"{max(ulps):,}" if ulps else "-",
                f"{min(cosines):.9f}" if cosines else "-",
                f"{min(ratios):.1f}" if ratios else "-",
                *(error_text(max(it.abs_quantiles[q] for it in found)) for q in QUANTILES),
            ]
        )
    caption = (
        "Other measures; the percentages head quantiles of the absolute error, and each number is "
        "of the probe where it is worst"
    )
    return table(caption, headings, rows)


def comparison_table(comparisons: Sequence[Comparison]) -> Markup:
    """Return a row a comparison, failures first, at most 400."""
    ordered = sorted(comparisons, key=lambda item: item.passed)[:_ROWS_MAX]
    rows = [
        [
            element("code", item.tensor),
            item.case,
            badge(item.passed),
            error_text(item.max_abs),
            error_text(item.required),
            element("td", item.reason or index_text(item.worst_index), class_="wide"),
        ]
        for item in ordered
    ]
    left_out = len(comparisons) - len(ordered)
    caption = f"{_count(len(comparisons), 'comparison')}, failures first"
    if left_out:
        caption += f"; {left_out} more stand in the JSON report"
    headings = ("tensor", "probe", "verdict", ">largest error", ">required", "worst at")
    return table(caption, headings, rows, [not item.passed for item in ordered])


def _allowed(item: Comparison) -> Markup:
    parts = [error_text(item.tolerance.atol)]
    if item.tolerance.rtol:
        parts.append(_below(f"+ {error_text(item.tolerance.rtol)} · |source|"))
    return fragment(parts)


def _in_pixels(item: TensorSummary) -> Markup:
    parts = [error_text(item.largest)]
    if item.pixels is not None:
        parts.append(_below(f"{error_text(item.pixels)} px"))
    return fragment(parts)


def _below(text: str) -> Markup:
    return element("span", text, class_="of")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
