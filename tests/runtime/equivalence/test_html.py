"""The page: it says what was found, nothing in it comes from outside, no name breaks out."""

from __future__ import annotations

import base64
import dataclasses
import io
import itertools
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from stnkit.runtime.compare import Tolerance
from stnkit.runtime.equivalence.html import write_html
from stnkit.runtime.equivalence.html.markup import Markup, element
from stnkit.runtime.equivalence.results import Bisection

VOID = {"meta", "img", "br", "col"}
HOSTILE = (
    "</title></code><script>alert('\"1\"')</script><img src=x onerror=alert(2)>\u202e\x00\ud800"
)


class Page(HTMLParser):
    """A page read as a browser would: elements with their attributes, and their text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in set(self.open):
            self.words.setdefault(tag, []).append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, tag="body"):
        return " ".join(" ".join(self.words.get(tag, [])).split())


@pytest.fixture(scope="module")
def failed(failed_report):
    return Page(write_html(failed_report))


@pytest.fixture(scope="module")
def passed(passed_report):
    return Page(write_html(passed_report))


def test_the_verdict_comes_first(failed, passed):
    assert failed.text("h1") == "Not equal"
    assert passed.text("h1") == "Equal"
    assert failed.text().startswith("stnkit equivalence report Not equal 2 of 3 candidates do not")
    assert "All 2 candidates compute what digits.keras computes." in passed.text()


def test_everything_that_was_found_is_there(failed, failed_report):
    text = failed.text()
    for candidate in failed_report.candidates:
        assert candidate.proof.file in failed.text("h2")
        for finding in candidate.findings:
            assert finding.sentence in text
            assert finding.evidence in text
        for note in candidate.notes:
            assert note in text
    for reason in failed_report.reasons.values():
        assert reason in text
    for probe in failed_report.probes:
        assert probe.name in text
    assert "minimum required tolerance" in text
    assert "It did not run: LiteRT is not installed" in text
    assert "The first tensor that is wrong is model/layer_23/out (GATHER, layer layer_23)" in text
    worst = failed_report.candidates[1].proof.worst("warped")
    assert str(list(worst.worst_index)) in text
    assert f"{worst.reference_value:.9g}" in text
    assert f"{worst.candidate_value:.9g}" in text
    assert "px" in text


def test_the_first_wrong_tensor_is_marked_in_the_curve(failed, passed):
    assert [a for a in failed.all("path") if a.get("class") == "point first"]
    assert not [a for a in passed.all("path") if a.get("class") == "point first"]
    hovers = failed.text("title")
    assert "model/layer_23/out (GATHER, layer layer_23): relative error" in hovers


@pytest.mark.parametrize("name", ["failed", "passed"])
def test_nothing_comes_from_outside(name, request):
    page = request.getfixturevalue(name)
    assert page.all("script") == []
    assert page.all("link") == []
    for _, attributes in page.elements:
        for key, value in attributes.items():
            assert not key.startswith("on")
            if key in ("src", "href", "srcset", "data", "action"):
                assert value.startswith(("data:image/png;base64,", "#candidate-"))
    style = page.text("style")
    assert "url(" not in style
    assert "@import" not in style
    policy = next(a for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'; img-src data:;")


@pytest.mark.parametrize("name", ["failed", "passed"])
def test_readers_without_eyes_find_their_way(name, request):
    page = request.getfixturevalue(name)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    for before, after in itertools.pairwise(levels):
        assert after <= before + 1
    for image in page.all("img"):
        assert image["alt"]
    for drawing in page.all("svg"):
        assert drawing.get("aria-hidden") == "true" or (
            drawing["role"] == "img" and drawing["aria-label"]
        )
    for box in page.all("div"):
        if box.get("class", "").startswith("scroll"):
            assert box["tabindex"] == "0"  # a keyboard can scroll it
            assert box["aria-label"]
    assert page.all("html") == [{"lang": "en"}]


def test_verdicts_are_words_and_signs_not_colours_alone(failed):
    text = failed.text("span")
    assert "✗ differs" in text
    assert "✓ equal" in text
    assert "✗ not run" in text


def test_pictures_are_whole(failed):
    for image in failed.all("img"):
        data = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"), validate=True)
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            assert opened.size == (48, 48)


def test_hostile_names_stay_text(reports):
    candidate = reports.candidate(
        0.03,
        file=HOSTILE,
        output=HOSTILE,
        transformer=HOSTILE,
        bisection=reports.curve(23, HOSTILE),
        notes=(HOSTILE,),
        rankings={HOSTILE: next(iter(reports.candidate().rankings.values()))},
    )
    findings = tuple(
        dataclasses.replace(it, cause=HOSTILE, sentence=HOSTILE, evidence=HOSTILE)
        for it in candidate.findings
    )
    probes = tuple(
        dataclasses.replace(it, name=HOSTILE, driven=(HOSTILE,)) for it in reports.report().probes
    )
    names = {"reasons": {HOSTILE: HOSTILE}, "versions": {"stnkit": HOSTILE, HOSTILE: HOSTILE}}
    report = reports.report(
        dataclasses.replace(candidate, findings=findings),
        reference=HOSTILE,
        reference_format=HOSTILE,
        probes=probes,
        **names,
    )
    text = write_html(report)
    text.encode()  # half a surrogate pair could not be written to a file
    page = Page(text)
    assert page.all("script") == []
    assert all("onerror" not in image for image in page.all("img"))
    assert "<script>alert" in page.text()
    assert "\x00" not in text
    assert "\u202e" not in text
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert ids == ["candidate-1"]


def test_very_long_names_are_cut(reports):
    report = reports.report(reports.candidate(0.03, output="a" * 10**6))
    assert len(write_html(report)) < 2 * 10**6


def test_what_could_not_be_measured_says_why(reports):
    candidate = reports.candidate(0.0)
    wrong = tuple(
        dataclasses.replace(
            it,
            passed=False,
            max_abs=None,
            required=None,
            statistics=None,
            histogram=(),
            reason="the artifact gave shape [3]: expected [4]",
        )
        if it.kind == "output"
        else it
        for it in candidate.proof.comparisons
    )
    proof = dataclasses.replace(candidate.proof, comparisons=wrong)
    page = Page(write_html(reports.report(dataclasses.replace(candidate, proof=proof))))
    assert "the artifact gave shape [3]: expected [4]" in page.text()
    assert "Cause not known" in page.text("h3")
    assert "not measured" in page.text()


@pytest.mark.parametrize(
    "changes",
    [
        {"image": None},
        {"outline_reference": None, "outline_candidate": None},
        {"outline_candidate": np.full((4, 2), np.nan, np.float32)},
        {"outline_candidate": np.full((4, 2), 3e38, np.float32)},
        {"theta_candidate": np.full(6, np.inf, np.float32)},
        {"theta_candidate": np.zeros(8, np.float32)},
        {
            "theta_reference": np.zeros(5000, np.float32),
            "theta_candidate": np.full(5000, np.nan, np.float32),
        },
        {"warped_candidate": np.full((48, 48, 1), np.nan, np.float32)},
        {"warped_candidate": np.full((48, 48, 1), 3e38, np.float32)},
        {"warped_candidate": np.zeros((48, 50, 1), np.float32)},
        {"warped_candidate": np.zeros((0, 48, 1), np.float32)},
        {"warped_candidate": np.zeros((4,), np.float32)},
        {"image": np.zeros((300, 1000, 7), np.float32)},
        {
            "warped_reference": np.zeros((8, 8, 64), np.float32),
            "warped_candidate": np.ones((8, 8, 64), np.float32),
        },
    ],
    ids=lambda changes: "-".join(changes),
)
def test_odd_views_are_drawn_as_far_as_they_go(reports, changes):
    view = dataclasses.replace(reports.views("st", 0.01)[0], **changes)
    text = write_html(reports.report(reports.candidate(0.03, views=(view,))))
    page = Page(text)
    assert 'Probe "noise_b1", item 0' in page.text()
    for image in page.all("img"):
        assert image["src"].startswith("data:image/png;base64,")
    assert not re.search(r'"[^"]*\b(nan|inf)\b[^"]*"', text)  # no such number in an attribute


def test_more_views_than_anybody_looks_at(reports):
    views = reports.views("st", 0.01) * 10
    page = Page(write_html(reports.report(reports.candidate(0.03, views=views))))
    assert len(page.all("img")) == 12 * 4
    assert "9 more pictures (38 with smaller errors are left out)" in page.text("summary")


@pytest.mark.parametrize("count", [0, 1, 5000])
def test_curves_of_any_length(reports, count):
    nodes = reports.curve(None).curve
    many = tuple(dataclasses.replace(nodes[i % 40], name=f"n{i}") for i in range(count))
    candidate = reports.candidate(bisection=Bisection(None, (), many, 1))
    page = Page(write_html(reports.report(candidate)))
    assert len(page.all("circle")) >= count * 39 // 40


def test_large_views_and_many_tensors_stay_quick_and_small(reports):
    views = reports.views("st", 0.01, size=512, channels=3)
    text = write_html(reports.report(reports.candidate(0.03, views=views)))
    assert len(text) < 6 * 10**6


def test_text_is_escaped_wherever_it_is_put():
    made = element("p", "<b>", element("i", "&"), title='"x"', data_x=None, width=1 / 3)
    assert made == '<p title="&quot;x&quot;" width="0.33">&lt;b&gt;<i>&amp;</i></p>'
    assert isinstance(made, Markup)


def test_importing_the_page_brings_no_numpy():
    code = (
        "import sys, json\nimport stnkit.runtime.equivalence.html\n"
        "import stnkit.runtime.equivalence.junit, stnkit.runtime.equivalence.annotations\n"
        "print(json.dumps(list(sys.modules)))"
    )
    run = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(run, capture_output=True, text=True, check=True)
    assert {"numpy", "PIL"} & set(json.loads(result.stdout)) == set()


def test_a_probe_is_judged_by_its_own_tolerance(reports):
    """A probe that may differ by much neither dims the heat maps nor reddens the bars of others."""
    candidate = reports.candidate(0.0)
    wide = tuple(
        dataclasses.replace(it, tolerance=Tolerance(15.0)) if it.case == "flip_b7" else it
        for it in candidate.proof.comparisons
    )
    proof = dataclasses.replace(candidate.proof, comparisons=wide)
    page = Page(write_html(reports.report(dataclasses.replace(candidate, proof=proof))))
    ends = page.text("span")
    assert "15" in ends.split()
    assert ends.split().count("1e-04") >= 2
    assert "allowed 1e-05 or more" in page.text("text")
    assert not [a for a in page.all("rect") if a["class"] == "bar over"]
