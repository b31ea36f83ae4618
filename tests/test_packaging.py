"""What pyproject.toml says is what the tree holds."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("cli", "convert", "models", "runtime")
TRACKED_BYTES_MAX = 2_000_000
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_the_list_of_packages_is_the_tree():
    found = {
        "stnkit." + ".".join(path.parent.relative_to(ROOT).parts)
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    listed = PYPROJECT["tool"]["setuptools"]["packages"]
    assert len(listed) == len(set(listed))
    assert set(listed) == found


def test_every_package_has_an_init():
    for name in PYPROJECT["tool"]["setuptools"]["packages"]:
        folder = ROOT.joinpath(*name.split(".")[1:])
        assert (folder / "__init__.py").is_file(), folder


def test_package_data_exists():
    for name, patterns in PYPROJECT["tool"]["setuptools"]["package-data"].items():
        folder = ROOT.joinpath(*name.split(".")[1:])
        for pattern in patterns:
            assert list(folder.glob(pattern)), f"{name}: {pattern}"


def test_no_data_file_is_forgotten():
    listed = set()
    for name, patterns in PYPROJECT["tool"]["setuptools"]["package-data"].items():
        folder = ROOT.joinpath(*name.split(".")[1:])
        listed |= {path for pattern in patterns for path in folder.glob(pattern)}
    tree = {
        path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    }
    assert listed == tree


def test_dependencies_are_bounded():
    project = PYPROJECT["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in (item for group in groups for item in group):
        specifier = requirement.partition(";")[0]
        assert ">=" in specifier, requirement
        assert re.search(r"<\d", specifier), requirement


def test_the_constraints_pin_what_is_asked_for():
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pins[name.lower().replace("_", "-")] = version
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["gpu"], *extras["convert"], *extras["dev"]]
    for requirement in wanted:
        name = re.match(r"[\w-]+", requirement)[0].lower()
        if name != "setuptools":  # the environment's own
            assert name in pins, f"{name} is not pinned"


def test_one_runtime_for_onnx_in_every_extra():
    extras = PYPROJECT["project"]["optional-dependencies"]
    for extra, requirements in extras.items():
        named = [it for it in requirements if it.startswith("onnxruntime")]
        assert bool(named) == (extra in ("cpu", "gpu", "cuda")), extra


def test_the_base_brings_no_converter():
    for requirement in PYPROJECT["project"]["dependencies"]:
        assert not re.match(r"tensorflow|keras|tf2onnx|onnx|torch", requirement), requirement


def test_the_shipped_model_is_small():
    assert (ROOT / "models/pretrained/digits.keras").stat().st_size <= 1_500_000


def test_nothing_tracked_is_large():
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    result = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, check=True)
    files = [ROOT / name for name in result.stdout.decode().split("\0") if name]
    assert len(files) > 60
    large = {f.name: f.stat().st_size for f in files if f.is_file() and not f.is_symlink()}
    assert {n: s for n, s in large.items() if s > TRACKED_BYTES_MAX} == {}


def test_nothing_built_is_tracked():
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    result = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--ignored", "--exclude-standard", "--cached"],
        capture_output=True,
        check=True,
    )
    assert result.stdout == b""
