"""The wheel, and what it does in a fresh environment without TensorFlow.

The packages come from the package index, as for a user: without one these tests fail.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from _pytest.config import _iter_rewritable_modules

ROOT = Path(__file__).parents[1]
PACKAGES = ("cli", "convert", "models", "runtime")
CLEAN = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}


def run(*command, code=0, **options):
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, env=CLEAN, **options
    )
    assert result.returncode == code, f"{command}\n{result.stdout}\n{result.stderr}"
    return result


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel from a copy of the tree, so that no build folder of before helps it."""
    source = tmp_path_factory.mktemp("source")
    hidden = shutil.ignore_patterns("__pycache__")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=hidden)
    for name in ("pyproject.toml", "README.md", "pytest_stnkit.py"):
        shutil.copy(ROOT / name, source / name)
    target = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", target]
    run(*build, source)
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    """Return the folder of executables of an environment with the wheel and `[cpu]` alone."""
    home = tmp_path_factory.mktemp("bare")
    run(sys.executable, "-m", "venv", home)
    bin_folder = home / ("Scripts" if sys.platform == "win32" else "bin")
    pip = [bin_folder / "python", "-m", "pip", "install", "--quiet", "--no-compile"]
    run(*pip, "--constraint", ROOT / "constraints.txt", f"{wheel}[cpu]")
    return bin_folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Return a bundle made in the environment that has TensorFlow."""
    target = tmp_path_factory.mktemp("made") / "digits.bundle"
    run(Path(sys.executable).with_name("stnkit"), "convert", "digits", "-o", target)
    return target


def test_the_wheel_holds_the_tree(wheel):
    tree = {
        "stnkit/" + str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == {*tree, "pytest_stnkit.py"}
    for name in (
        *(f"stnkit/{package}/py.typed" for package in PACKAGES),
        "stnkit/models/pretrained/digits.keras",
        "stnkit/models/pretrained/digits.provenance.json",
        "stnkit/models/pretrained/digits.samples.npz",
        "stnkit/runtime/schema/manifest.schema.json",
    ):
        assert name in names


def test_pytest_rewrites_none_of_the_users_packages(wheel):
    """As pytest looks at the files of a plugin's distribution: `models` may be the user's."""
    with zipfile.ZipFile(wheel) as archive:
        assert list(_iter_rewritable_modules(archive.namelist())) == ["pytest_stnkit"]


def test_the_wheel_runs_without_tensorflow(bare, bundle, tmp_path):
    python, stnkit = bare / "python", bare / "stnkit"
    look = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])"
    absent = ["tensorflow", "keras", "tf2onnx", "onnx", "h5py", "torch"]
    assert run(python, "-P", "-c", look, *absent).stdout == "[]\n"

    report = json.loads(run(stnkit, "verify", bundle, "--json", cwd=tmp_path).stdout)
    assert report["passed"] is True
    assert [it["not_run"] for it in report["artifacts"]] == [None, None]

    run(stnkit, "samples", "digits", "--output", "samples", cwd=tmp_path)
    with (tmp_path / "samples" / "labels.csv").open() as table:
        rows = list(csv.DictReader(table))
    images = [f"samples/{row['file']}" for row in rows]
    for artifact in ("tflite", "onnx"):
        arguments = [bundle, *images, "--artifact", artifact, "--json"]
        result = json.loads(run(stnkit, "run", *arguments, cwd=tmp_path).stdout)
        assert result["artifact"] == f"model.fp32.{artifact}"
        found = [it["class"] for it in result["predictions"]]
        assert sum(a == row["label"] for a, row in zip(found, rows, strict=True)) >= 190

    result = run(stnkit, "convert", "digits", "-o", "x.bundle", code=2, cwd=tmp_path)
    assert result.stderr == ('error: tensorflow is not installed: pip install "stnkit[convert]"\n')
    assert not (tmp_path / "x.bundle").exists()
