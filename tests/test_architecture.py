"""Who may import whom, and the shape of the house, read from the source itself."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("cli", "convert", "models", "runtime")
MAY_IMPORT = {
    "cli": {"cli", "convert", "models", "runtime"},
    "convert": {"convert", "models", "runtime"},
    "models": {"models"},
    "runtime": {"runtime"},
}
# Of the models the command line knows those that ship and how they are trained, no layer.
CLI_MODELS = (
    "stnkit.models.digits",
    "stnkit.models.pretrained",
    "stnkit.models.recipes",
    "stnkit.models.training",
    "stnkit.models.zoo",
)
CONVERTERS = {
    "tensorflow": {"models", "convert"},
    "keras": {"models", "convert"},
    "tf2onnx": {"convert"},
    "onnx": {"convert"},
    "h5py": {"convert"},
    "onnxruntime": {"runtime"},
}
LINES_MAX = 400

SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
EVERYTHING = [
    *SOURCES,
    *(
        path
        for folder in ("tests", "docs", "examples", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if ".checkpath" not in path.parts
    ),
]


def name_of(path):
    return str(path.relative_to(ROOT))


every_source = pytest.mark.parametrize("path", SOURCES, ids=name_of)


def imports(path):
    """Yield (line, module) for every import, those inside of functions and as text too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            # `from stnkit import cli` names the package after `import`.
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else None
            called = node.func.id if isinstance(node.func, ast.Name) else called
            first = node.args[0]
            if called in ("import_module", "__import__"):
                text = first.values[0] if isinstance(first, ast.JoinedStr) else first
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    yield node.lineno, text.value


def test_the_house_is_where_it_is_looked_for():
    assert len(SOURCES) > 60
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == set(PACKAGES)


@every_source
def test_who_imports_whom(path):
    package = path.relative_to(ROOT).parts[0]
    for line, module in imports(path):
        parts = module.split(".")
        where = f"{path}:{line}: {module}"
        if parts[0] == "stnkit":
            assert parts[1] in MAY_IMPORT[package], where
            if package == "cli" and parts[1] == "models":
                assert module.startswith(CLI_MODELS), where


@every_source
def test_heavy_packages_stay_where_they_belong(path):
    package = path.relative_to(ROOT).parts[0]
    for line, module in imports(path):
        allowed = CONVERTERS.get(module.split(".")[0])
        assert allowed is None or package in allowed, f"{path}:{line}: {module}"


@pytest.mark.parametrize("path", EVERYTHING, ids=name_of)
def test_nothing_imports_the_bare_names(path):
    # It works from the repository's root by accident, and nowhere else.
    for line, module in imports(path):
        assert module.split(".")[0] not in PACKAGES, f"{path}:{line}: {module}"


@every_source
def test_modules_are_of_one_idea(path):
    assert len(path.read_text("utf-8").splitlines()) <= LINES_MAX
    assert "utils" not in path.stem


@every_source
def test_modules_say_what_they_are(path):
    assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), path


def test_stnkit_is_a_namespace_package():
    import stnkit

    assert getattr(stnkit, "__file__", None) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import convert", "convert"),
        ("from runtime.bundle import Bundle", "runtime.bundle.Bundle"),
        ("from stnkit import convert", "stnkit.convert"),
        ("def f():\n    import tensorflow as tf", "tensorflow"),
        ("import importlib\nimportlib.import_module('keras.layers')", "keras.layers"),
        (
            "from importlib import import_module as m\nimport_module(f'stnkit.cli.{x}')",
            "stnkit.cli.",
        ),
    ],
)
def test_imports_are_found(text, found, tmp_path):
    path = tmp_path / "x.py"
    path.write_text(text)
    assert found in [module for _, module in imports(path)]
