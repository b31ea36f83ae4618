"""The hook for pre-commit: from the files of a commit to bundles, and to one exit code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from stnkit.cli import precommit


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files_become_their_bundles_once(here):
    touch(here / "a.bundle/manifest.json", here / "a.bundle/golden.npz")
    touch(here / "b/manifest.json", here / "b/golden.npz")
    found = precommit.bundles_of(
        ["b/model.fp32.onnx", "a.bundle/manifest.json", "a.bundle/golden.npz", "b/manifest.json"]
    )
    assert found == (Path("b"), Path("a.bundle"))


def test_a_bundle_may_lie_at_the_root(here):
    touch(here / "manifest.json", here / "golden.npz")
    assert precommit.bundles_of(["manifest.json"]) == (Path(),)


def test_manifests_of_something_else_are_left_alone(here):
    touch(here / "web/manifest.json")
    (here / "web/manifest.json").write_text('{"manifest_version": 3, "name": "x"}')
    (here / "list").mkdir()
    (here / "list/manifest.json").write_text("[1]")
    (here / "deep").mkdir()
    (here / "deep/manifest.json").write_text("[" * 100_000)
    touch(here / "models/other.onnx")
    files = ["web/manifest.json", "list/manifest.json", "deep/manifest.json", "models/other.onnx"]
    assert precommit.bundles_of(files) == ()


def test_a_bundle_without_its_probes_counts(here):
    touch(here / "a/manifest.json")
    document = {"schema_version": 1, "artifacts": [], "golden": {}}
    (here / "a/manifest.json").write_text(json.dumps(document))
    assert precommit.bundles_of(["a/manifest.json"]) == (Path("a"),)


@pytest.mark.parametrize(("codes", "expected"), [([0, 0], 0), ([1, 0], 1), ([2, 1], 2)])
def test_the_worst_exit_code_counts(codes, expected, here, monkeypatch):
    for name in ("a", "b"):
        touch(here / name / "manifest.json", here / name / "golden.npz")
    left = list(codes)
    monkeypatch.setattr(precommit, "_verify", lambda folder: left.pop(0))
    monkeypatch.setattr(sys, "argv", ["stnkit-precommit", "a/manifest.json", "b/golden.npz"])
    with pytest.raises(SystemExit) as end:
        precommit.main()
    assert end.value.code == expected
    assert left == []  # one that fails does not hide the next


def test_a_damaged_bundle_is_named(here, capsys):
    touch(here / "-odd.bundle/manifest.json", here / "-odd.bundle/golden.npz")
    with pytest.raises(SystemExit) as end:
        precommit.main(["-odd.bundle/manifest.json"])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_nothing_to_verify_is_well():
    with pytest.raises(SystemExit) as end:
        precommit.main([])
    assert end.value.code == 0
