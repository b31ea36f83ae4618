"""`make demo`, as a newcomer runs it after the installation."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stnkit.runtime import open_bundle

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv"
LIMIT_S = 180
FILES = ("model.fp32.tflite", "model.fp32.onnx")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Return what `make demo` prints, how long it took, and its folder."""
    make = shutil.which("make")
    if make is None or Path(sys.prefix).resolve() != VENV.resolve():
        pytest.skip("the demonstration installs into .venv, which is not what runs this test")
    folder = tmp_path_factory.mktemp("demo") / "here"
    # The installation counts as done, whatever was edited since: tests run in it meanwhile.
    unchanged = ["-o", ".venv/.installed"]
    start = time.monotonic()
    result = subprocess.run(
        [make, "-C", ROOT, *unchanged, "demo", f"DEMO={folder}"],
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - start
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    return result, seconds, folder


def test_it_ends_in_time(demo):
    assert demo[1] < LIMIT_S


def test_it_prints_a_row_for_each_artifact(demo):
    rows = {}
    for line in demo[0].stdout.splitlines():
        cells = re.split(r"\s{2,}", line)
        if cells[0] in FILES:
            rows.setdefault(cells[0], cells)  # that of convert comes first
    assert set(rows) == set(FILES)
    for name, size, theta, warp, output, accuracy, same in rows.values():
        bytes_ = (demo[2] / "digits.bundle" / name).stat().st_size
        assert size == f"{bytes_ / 1000:.1f} KB"
        for cell, limit in ((theta, 1e-5), (warp, 1e-4), (output, 1e-5)):
            error, allowed = (float(part) for part in cell.split(" / "))
            assert 0 < error <= min(limit, allowed)
        assert float(accuracy.removesuffix("%")) >= 97
        assert same == "200 of 200"


def test_its_evidence_is_as_good_as_promised(demo):
    evidence = json.loads((demo[2] / "digits.bundle" / "equivalence.json").read_text())
    assert [it["file"] for it in evidence["artifacts"]] == list(FILES)
    for artifact in evidence["artifacts"]:
        assert artifact["passed"] is True
        assert artifact["largest_errors"]["output"] <= 1e-5
        assert artifact["largest_errors"]["warped"] <= 1e-4
        assert len(artifact["comparisons"]) >= 9
    labelled = evidence["labelled_images"]
    assert [row["artifact"] for row in labelled] == ["source", *FILES]
    assert [(row["same_class"], row["count"]) for row in labelled] == [(200, 200)] * 3
    assert open_bundle(demo[2] / "digits.bundle").manifest.name == "digits"


def test_it_leaves_pictures_of_before_and_after(demo):
    before = sorted((demo[2] / "samples").glob("00?_*.png"))
    after = sorted(path.name for path in (demo[2] / "warped").iterdir())
    assert len(before) == 10
    assert after == [f"{path.stem}.warped.png" for path in before]


def test_it_says_nothing_but_progress(demo):
    for noise in ("WARNING", "Traceback", "error:", "delegate", "oneDNN", "I0000", "W0000"):
        assert noise not in demo[0].stdout + demo[0].stderr
