"""The page as a whole: the verdict, an overview, each candidate, and what was run.

The page asks for nothing from outside and runs no script; its content security policy says so, so
that a browser would refuse what a hostile name could bring in.
"""

from __future__ import annotations

from stnkit.runtime.equivalence.html.candidate import candidate_section
from stnkit.runtime.equivalence.html.markup import Markup, element
from stnkit.runtime.equivalence.html.style import STYLE
from stnkit.runtime.equivalence.html.tables import overview_table, table
from stnkit.runtime.equivalence.results import EquivalenceReport
from stnkit.runtime.equivalence.summary import verdict_sentence

__all__ = ["write_html"]

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'"


def write_html(report: EquivalenceReport) -> str:
    """Return a comparison as one HTML page.

    Args:
        report: what was found.

    Returns:
        A whole document in UTF-8, with its pictures inside; it holds no script.
    """
    title = f"{'Equal' if report.passed else 'Differs'}: {report.reference} | stnkit"
    warp_allowed = report.tolerances.warped.atol
    head = element(
        "head",
        element("meta", charset="utf-8"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("style", Markup(STYLE)),
    )
    main = element(
        "main",
        _banner(report),
        _allowed(report),
        *(
            candidate_section(candidate, number, warp_allowed)
            for number, candidate in enumerate(report.candidates, 1)
        ),
        _probes(report),
        element("footer", f"Written by stnkit {report.versions.get('stnkit', '')}".rstrip() + "."),
    )
    return f"<!doctype html>\n{element('html', head, element('body', main), lang='en')}\n"


def _banner(report: EquivalenceReport) -> Markup:
    failed = sum(not candidate.passed for candidate in report.candidates)
    word = "Equal" if report.passed else "Not equal"
    compared = sum(len(candidate.proof.comparisons) for candidate in report.candidates)
    facts = {
        "Reference": f"{report.reference} ({report.reference_format})",
        "Candidates": f"{len(report.candidates)}, of which {failed} failed"
        if failed
        else f"{len(report.candidates)}",
        "Probes": str(len(report.probes)),
        "Comparisons": f"{compared:,}",
        "Time": f"{report.seconds:.1f} s",
    }
    cells = [element("div", element("dt", k), element("dd", v)) for k, v in facts.items()]
    colour = "good-text" if report.passed else "bad-text"
    verdict = element("div", _mark(report.passed), element("h1", word), class_=f"verdict {colour}")
    return element(
        "header",
        element("p", "stnkit equivalence report", class_="kicker"),
        verdict,
        element("p", verdict_sentence(report), class_="lead"),
        element("dl", *cells, class_="facts"),
        overview_table(report),
        class_="card banner" if report.passed else "card banner bad",
    )


def _mark(passed: bool) -> Markup:
    sign = "M10 18.5l5.5 5.5L26.5 12.5" if passed else "M12 12l12 12M24 12l-12 12"
    return element(
        "svg",
        element("circle", cx=18, cy=18, r=16.5, fill="none", stroke="currentColor", stroke_width=3),
        element(
            "path",
            d=sign,
            fill="none",
            stroke="currentColor",
            stroke_width=3.5,
            stroke_linecap="round",
            stroke_linejoin="round",
        ),
        viewBox="0 0 36 36",
        class_="mark",
        aria_hidden="true",
    )


def _allowed(report: EquivalenceReport) -> Markup:
    known = report.tolerances
    rows = [
        ["outputs", str(known.outputs)],
        ["theta", str(known.theta)],
        ["warped image", str(known.warped)],
    ]
    parts = [
        element("h2", "What is allowed, and why"),
        table("Tolerances of float32, where no other was asked for", ("kind", "allowed"), rows),
    ]
    if report.reasons:
        items = []
        for name, reason in report.reasons.items():
            items += [element("dt", name), element("dd", reason)]
        parts.append(element("dl", *items, class_="reasons"))
    return element("section", *parts, class_="card")


def _probes(report: EquivalenceReport) -> Markup:
    rows = [
        [
            probe.name,
            str(probe.batch),
            "real data" if probe.seed is None else str(probe.seed),
            ", ".join(probe.driven) or "-",
        ]
        for probe in report.probes
    ]
    headings = ("probe", ">items", ">seed", "theta given to")
    versions = [[name, version] for name, version in report.versions.items()]
    return element(
        "section",
        element("h2", "Probes and versions"),
        element(
            "details",
            element("summary", f"{len(rows)} probes"),
            table("What the models were run on", headings, rows),
        ),
        element(
            "details",
            element("summary", f"{len(versions)} packages"),
            table("What took part", ("package", "version"), versions),
        ),
        class_="card",
    )
