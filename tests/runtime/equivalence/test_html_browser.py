"""The page in a real browser: headless Chromium renders it, and a frame around it measures.

The page runs no script and its policy forbids any; so it stands, as it was written, in a frame as
wide as a screen or a phone, and the script of the page around it looks inside.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest

from stnkit.runtime.equivalence.html import write_html

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed: `make browser` installs it on Debian"
)

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)
WIDTHS = (1280, 390)

FRAME = """<!doctype html><meta charset="utf-8">
<iframe id="page" width="{width}" height="900" style="border:0" srcdoc="{page}"></iframe>
<pre id="found"></pre>
<script>
addEventListener("load", () => {{
  const page = document.getElementById("page").contentDocument;
  const view = page.defaultView;
  const root = page.documentElement;
  for (const part of page.querySelectorAll("details")) part.open = true;
  const wide = [...page.querySelectorAll("body *")].filter((it) =>
    it.getBoundingClientRect().right > view.innerWidth + 0.5 && !it.parentElement.closest(".scroll, .stage"));
  const visible = (it) => it.getBoundingClientRect().width > 0 && it.getBoundingClientRect().height > 0;
  const found = {{
    innerWidth: view.innerWidth,
    scrollWidth: root.scrollWidth,
    wide: wide.map((it) => it.outerHTML.slice(0, 80)),
    verdict: page.querySelector("h1").textContent,
    verdictBottom: page.querySelector("h1").getBoundingClientRect().bottom,
    images: page.images.length,
    loaded: [...page.images].filter((it) => it.complete && it.naturalWidth > 0 && visible(it)).length,
    pixelated: [...page.images].every((it) => view.getComputedStyle(it).imageRendering === "pixelated"),
    quads: [...page.querySelectorAll("polygon.quad.artifact")].filter(visible).length,
    bars: [...page.querySelectorAll("rect.bar")].filter(visible).length,
    points: [...page.querySelectorAll(".point")].filter(visible).length,
    first: page.querySelectorAll(".point.first title").length,
    smallest: Math.min(...[...page.querySelectorAll("body *:not(svg *)")].filter((it) =>
      visible(it) && it.children.length === 0 && it.textContent.trim()).map((it) =>
      parseFloat(view.getComputedStyle(it).fontSize))),
    background: view.getComputedStyle(page.body).backgroundColor,
    colour: view.getComputedStyle(page.body).color,
    resources: view.performance.getEntriesByType("resource").map((it) => it.name.slice(0, 60)),
    scripts: page.scripts.length,
  }};
  document.getElementById("found").textContent = JSON.stringify(found);
}});
</script>
"""  # noqa: E501


def chromium(folder, *arguments):
    profile = f"--user-data-dir={folder / 'profile'}"
    result = subprocess.run(
        [CHROMIUM, *OPTIONS, profile, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result


def look(folder, report, width, *arguments):
    """Return what the frame measured, and what Chromium complained about."""
    path = folder / "frame.html"
    page = html.escape(write_html(report), quote=True)
    path.write_text(FRAME.format(width=width, page=page), "utf-8")
    logging = ("--enable-logging=stderr", "--v=0")
    result = chromium(folder, *arguments, *logging, "--dump-dom", path.as_uri())
    text = re.search(r'<pre id="found">(.*?)</pre>', result.stdout, re.DOTALL)
    assert text, result.stdout[-2000:]
    complaints = [line for line in result.stderr.splitlines() if ":CONSOLE" in line]
    return json.loads(html.unescape(text[1])), complaints


@pytest.fixture(scope="module", params=WIDTHS)
def failed(request, failed_report, tmp_path_factory):
    return look(tmp_path_factory.mktemp("failed"), failed_report, request.param)


def test_a_failure_as_a_browser_shows_it(failed, failed_report):
    found, complaints = failed
    assert complaints == []  # the page's own policy refuses nothing that the page needs
    assert found["verdict"] == "Not equal"
    assert found["verdictBottom"] < 200  # the verdict is seen before anything is scrolled
    assert found["images"] == found["loaded"] == 2 * 5 * 4
    assert found["pixelated"]
    assert found["quads"] >= 2 * 3
    assert found["bars"] >= 2 * 3 * 3
    assert found["points"] == 2 * 39
    assert found["first"] == 1
    assert found["smallest"] > 11.5  # px


def test_nothing_is_wider_than_the_screen(failed):
    found, _ = failed
    assert found["innerWidth"] in WIDTHS
    assert found["wide"] == []
    assert found["scrollWidth"] <= found["innerWidth"]


def test_the_page_asks_for_nothing(failed):
    found, _ = failed
    assert found["scripts"] == 0
    assert [it for it in found["resources"] if not it.startswith("data:")] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_success_in_light_and_dark(scheme, passed_report, tmp_path):
    dark = ("--blink-settings=preferredColorScheme=0",) if scheme == "dark" else ()
    found, complaints = look(tmp_path, passed_report, 390, *dark)
    assert complaints == []
    assert found["verdict"] == "Equal"
    assert found["first"] == 0
    light = [sum(map(int, re.findall(r"\d+", found[it])[:3])) for it in ("background", "colour")]
    assert (light[0] > light[1]) == (scheme == "light")
    assert abs(light[0] - light[1]) > 450  # of 765


def test_hostile_names_neither_run_nor_stretch_the_page(reports, tmp_path):
    hostile = "<script>document.title='owned'</script><img src=x onerror=alert(1)>" + "w" * 3000
    candidate = reports.candidate(
        0.03,
        file=hostile,
        output=hostile,
        transformer=hostile,
        bisection=reports.curve(23, hostile),
        notes=(hostile,),
    )
    found, complaints = look(tmp_path, reports.report(candidate, reference=hostile), 390)
    assert complaints == []
    assert found["scripts"] == 0
    assert found["images"] == found["loaded"] == 5 * 4
    assert found["wide"] == []
    assert found["scrollWidth"] == found["innerWidth"] == 390


def test_a_screenshot_is_not_empty(failed_report, tmp_path):
    from PIL import Image

    page, picture = tmp_path / "page.html", tmp_path / "page.png"
    page.write_text(write_html(failed_report), "utf-8")
    chromium(tmp_path, f"--screenshot={picture}", "--window-size=1280,1600", page.as_uri())
    with Image.open(picture) as image:
        assert image.size == (1280, 1600)
        colours = image.convert("RGB").getcolors(2**24)
    assert len(colours) > 100
