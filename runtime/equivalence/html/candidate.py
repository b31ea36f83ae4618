"""The part of the page that one candidate fills."""

from __future__ import annotations

from stnkit.runtime.equivalence.html.charts import error_curve, error_histogram
from stnkit.runtime.equivalence.html.markup import Markup, element
from stnkit.runtime.equivalence.html.tables import (
    badge,
    comparison_table,
    error_table,
    statistics_table,
    table,
)
from stnkit.runtime.equivalence.html.views import transformer_section
from stnkit.runtime.equivalence.results import (
    Bisection,
    CandidateReport,
    NodeError,
    TransformerView,
)
from stnkit.runtime.equivalence.summary import (
    KIND_NAMES,
    TensorSummary,
    error_text,
    summarize_tensors,
)

__all__ = ["candidate_section"]

_NODES_MAX = 1000


def candidate_section(candidate: CandidateReport, number: int, warp_allowed: float) -> Markup:
    """Return everything that was found about one candidate.

    Args:
        candidate: its report.
        number: of the candidate, from 1; makes its anchor.
        warp_allowed: absolute tolerance of warped images where none was compared.
    """
    proof = candidate.proof
    ran = proof.not_run is None
    version = f" {proof.backend_version}" if proof.backend_version else ""
    parts = [
        element(
            "div",
            element("h2", proof.file),
            badge(candidate.passed, bad="differs" if ran else "not run"),
            class_="head",
        ),
        element(
            "p",
            f"{candidate.format} on {proof.backend}{version}, {proof.seconds:.1f} s",
            class_="soft small",
        ),
    ]
    if not ran:
        parts.append(element("p", f"It did not run: {proof.not_run}"))
        return element("section", *parts, class_="card", id=f"candidate-{number}")
    parts += _findings(candidate)
    summaries = summarize_tensors(proof.comparisons)
    inside = [] if candidate.bisection is None else _bisection(candidate.bisection, proof.passed)
    numbers = _numbers(candidate, summaries)
    # Where it goes wrong comes first; where nothing does, it is a detail.
    parts += [*numbers, *inside] if proof.passed else [*inside, *numbers]
    parts += _transformers(candidate, warp_allowed)
    parts += _histograms(summaries)
    parts += _notes(candidate)
    return element("section", *parts, class_="card", id=f"candidate-{number}")


def _findings(candidate: CandidateReport) -> list[Markup]:
    if not candidate.findings:
        if candidate.passed:
            return []
        text = "None of the known causes fits."
        if candidate.bisection is None:
            text += " --bisect finds the first tensor inside that is wrong."
        heading = element("h3", "Cause not known")
        return [element("div", heading, element("p", text), class_="callout")]
    items = [
        element(
            "li",
            element("strong", item.sentence),
            element("p", element("code", item.cause), f": {item.evidence}", class_="small"),
        )
        for item in candidate.findings
    ]
    title = "Likely cause" if len(items) == 1 else "Likely causes, the likeliest first"
    heading = element("h3", title)
    return [element("div", heading, element("ol", *items), class_="callout")]


def _bisection(bisection: Bisection, passed: bool) -> list[Markup]:
    first = bisection.first
    parts = [element("h3", "The error inside" if passed else "Where the two part")]
    if first is None and not passed:
        parts.append(
            element(
                "p",
                "No tensor inside is wrong while everything that it is computed from is right, "
                "as far as the tensors of the two could be matched.",
            )
        )
    elif first is not None:
        layer = f", layer {first.layer}" if first.layer else ""
        inputs: list[str] = []
        for source in first.inputs:
            inputs += [", " if inputs else " It is computed from ", element("code", source)]
        parts.append(
            element(
                "p",
                "The first tensor that is wrong is ",
                element("code", first.name),
                f" ({first.op}{layer}): {_node_error(first)}.",
                *inputs,
                "." if inputs else "",
            )
        )
    name = None if first is None else first.name
    if bisection.neighbours:
        parts.append(_node_table("Before and after it", bisection.neighbours, name))
    if any(node.relative is not None for node in bisection.curve):
        label = "Relative error of every tensor inside, from input to output"
        if first is not None:
            label += f"; the first that is wrong is {first.name}"
        chart = error_curve(bisection, label)
        box = element(
            "div", chart, class_="scroll curve", tabindex="0", role="region", aria_label=label
        )
        caption = "Error on the way from input to output; point at a mark for its name."
        parts.append(element("figure", element("figcaption", caption), box, class_="chart"))
        shown = bisection.curve[:_NODES_MAX]
        rest = len(bisection.curve) - len(shown)
        tail = f"; {rest} more stand in the JSON report" if rest else ""
        listed = _node_table(f"In the order of computation{tail}", shown, name)
        summary = element("summary", "The same as a table")
        parts.append(element("details", summary, listed))
    return parts


def _node_table(caption: str, nodes: tuple[NodeError, ...], first: str | None) -> Markup:
    rows = [
        [
            element("code", node.name),
            node.op,
            node.layer or "-",
            error_text(node.max_abs),
            error_text(node.scale),
            error_text(node.relative),
            "first wrong" if node.name == first else "",
        ]
        for node in nodes
    ]
    headings = ("tensor", "op", "layer", ">largest error", ">largest value", ">relative error", "")
    return table(caption, headings, rows, [node.name == first for node in nodes])


def _node_error(node: NodeError) -> str:
    if node.max_abs is None:
        return "it cannot be compared"
    relative = f", relative error {error_text(node.relative)}" if node.relative else ""
    return f"off by up to {error_text(node.max_abs)}{relative}"


def _numbers(candidate: CandidateReport, summaries: tuple[TensorSummary, ...]) -> list[Markup]:
    parts = [element("h3", "What was compared"), error_table(summaries)]
    if any(item.statistics for item in summaries):
        parts.append(statistics_table(summaries))
    if candidate.rankings:
        lines = [
            element(
                "li",
                element("code", name),
                f": the same class comes first for {it.top1:,} of {it.items:,} items; the source's "
                f"first is among the artifact's first {it.k} for {it.topk:,}.",
            )
            for name, it in candidate.rankings.items()
        ]
        parts.append(element("ul", *lines, class_="plain"))
    summary = element("summary", "Every comparison")
    listed = comparison_table(candidate.proof.comparisons)
    return [*parts, element("details", summary, listed)]


def _transformers(candidate: CandidateReport, warp_allowed: float) -> list[Markup]:
    if not candidate.views:
        return []
    # What is allowed differs between probes: one that drives theta far out is judged by it.
    known = {
        (item.tensor.rpartition("/")[0], item.case): item.tolerance.atol
        for item in candidate.proof.comparisons
        if item.kind == "warped"
    }
    grouped: dict[str, list[TransformerView]] = {}
    for view in candidate.views:
        grouped.setdefault(view.transformer, []).append(view)
    return [
        element("h3", "What each transformer sees"),
        *(
            transformer_section(
                name, [(view, known.get((name, view.case), warp_allowed)) for view in views]
            )
            for name, views in grouped.items()
        ),
    ]


def _histograms(summaries: tuple[TensorSummary, ...]) -> list[Markup]:
    charts = []
    for item in summaries:
        if not item.statistics:
            continue
        label = f"Histogram of the absolute differences at {item.tensor}"
        chart = error_histogram(item, label)
        caption = element("figcaption", element("code", item.tensor), f" ({KIND_NAMES[item.kind]})")
        charts.append(element("figure", caption, chart, class_="chart"))
    if not charts:
        return []
    return [
        element("h3", "How many elements differ by how much"),
        element(
            "p",
            "All probes together, by powers of ten; heights are logarithmic, so that one element "
            "among a million shows.",
            class_="soft small",
        ),
        element("div", *charts, class_="charts"),
    ]


def _notes(candidate: CandidateReport) -> list[Markup]:
    lines = [element("li", note) for note in candidate.notes]
    skipped = candidate.proof.skipped_cases
    if skipped:
        lines.append(element("li", f"It cannot take these probes: {', '.join(skipped)}."))
    if not lines:
        return []
    return [element("h3", "To know"), element("ul", *lines, class_="plain")]
